"""Embeddings on disk: what a backbone made of an image or a sentence is computed once.

Everything is kept under a hash of what it depends on: the bytes of the image, and ``Backbone.fingerprint``. Files are
safetensors, replaced whole, so two processes may share the folder; the least recently used go when it outgrows its bound.
"""

import contextlib
import hashlib
import json
import os
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from functools import cache

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch.nn import functional as F

from zsadlib.datasets.images import load_image
from zsadlib.files import CACHE, clear_left_over, left_over, replacing
from zsadlib.models.encoded import Encoded
from zsadlib.provenance import sha256

FOLDER = CACHE / "embeddings"
GIGABYTES = float(os.environ.get("ZSAD_CACHE_GB", 20))


def _file(content, backbone, part):
    name = hashlib.sha256(f"{content} {backbone.fingerprint} {part}".encode()).hexdigest()
    return FOLDER / name[:2] / f"{name}.safetensors"


def _save(tensor, path):
    with replacing(path) as temporary:
        save_file({"it": tensor.contiguous()}, temporary)


def _load(path):
    """A kept tensor, or None where its file is missing, being removed or damaged."""
    try:
        os.utime(path)  # used now
        return load_file(path)["it"]
    except (OSError, SafetensorError):
        return None


def _kept():
    """(time of last use, bytes, path) of every kept file; those that another process writes or removes meanwhile are skipped."""
    for path in FOLDER.rglob("[!.]*.safetensors"):
        with contextlib.suppress(FileNotFoundError):
            yield path.stat().st_mtime, path.stat().st_size, path


def size():
    """Bytes kept and number of files."""
    sizes = [taken for _, taken, _ in _kept()]
    return sum(sizes) + sum(taken for taken, _ in left_over(FOLDER)), len(sizes)


def trim(gigabytes=GIGABYTES):
    """Remove what killed processes left half written, then the least recently used files until ``gigabytes`` are left."""
    clear_left_over(FOLDER)
    files = sorted(_kept())
    total = sum(taken for _, taken, _ in files)
    for _, taken, path in files:
        if total <= gigabytes * 1e9:
            return
        path.unlink(missing_ok=True)
        total -= taken


@cache
def _digest(path, stamp):
    return sha256(path)


def digest(path):
    """sha256 of a file, computed again when it changes."""
    return _digest(path, os.stat(path).st_mtime_ns)


def tensor_digest(tensor):
    """sha256 of a tensor's values."""
    return hashlib.sha256(tensor.contiguous().numpy().tobytes()).hexdigest()


def encode_text(backbone, texts, normalize=True):
    """``Backbone.encode_text``, kept: one file for each list of sentences."""
    file = _file(json.dumps(texts), backbone, "text")
    embeddings = _load(file)
    if embeddings is None:
        embeddings = backbone.encode_text(texts, normalize=False)
        _save(embeddings, file)
    return F.normalize(embeddings, dim=-1) if normalize else embeddings


def ahead(prepare, items, depth=2):
    """``map(prepare, items)`` by a thread that is up to ``depth`` items ahead of whoever uses them."""
    waiting, thread = deque(), ThreadPoolExecutor(1)
    try:
        for item in items:
            waiting.append(thread.submit(prepare, item))
            if len(waiting) > depth:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        thread.shutdown(cancel_futures=True)


def batches(backbone, paths):
    """Preprocessed images (up to ``backbone.batch_size``, 3, size, size) of the files, in order."""
    for start in range(0, len(paths), backbone.batch_size):
        yield backbone.preprocess([load_image(p) for p in paths[start : start + backbone.batch_size]])


def encode_batches(backbone, paths, needs=(), size=None):
    """Yields ``Encoded`` of image files, a batch at a time, in order: kept where there is all, or computed.

    A batch is computed whole where something of it is missing, so that one list of paths gives the same bits after a stop as
    without (a matrix product's last bits depend on the number of its rows). The next images are read while the model works.

    Args:
        needs: as in ``Backbone.encode``. size: images in a batch, None for ``backbone.batch_size``.
    """
    size = size or backbone.batch_size
    parts = [("image", ""), ("patches", ""), *needs]

    def prepare(some):
        files = {part: [_file(digest(path), backbone, " ".join(map(str, part))) for path in some] for part in parts}
        kept = {part: [_load(file) for file in own] for part, own in files.items()}
        kept = {part: torch.stack(own) for part, own in kept.items() if all(tensor is not None for tensor in own)}
        missing = [part for part in parts if part not in kept]
        return files, kept, missing, backbone.preprocess([load_image(path) for path in some]) if missing else None

    computed = False
    for files, kept, missing, batch in ahead(prepare, [paths[i : i + size] for i in range(0, len(paths), size)]):
        if missing:
            computed = True
            encoded = backbone.encode(batch, [need for need in missing if need in needs])
            found = {("image", ""): encoded.image, ("patches", ""): encoded.patches} | encoded.extra
            for part in missing:
                kept[part] = found[part]
                for file, tensor in zip(files[part], kept[part], strict=True):
                    _save(tensor, file)
        yield Encoded(kept["image", ""], kept["patches", ""], {need: kept[need] for need in needs})
    if computed:
        trim()


def encode(backbone, paths, needs=()):
    """``encode_batches``, joined: all in memory."""
    return Encoded.join(encode_batches(backbone, paths, needs))
