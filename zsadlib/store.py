"""Embeddings on disk: what a backbone made of an image is computed once.

Everything is kept under a hash of what it depends on: the bytes of the image, and ``Backbone.fingerprint``. Files are
safetensors, replaced whole, so two processes may share the folder; the least recently used go when it outgrows its bound.
"""

import contextlib
import hashlib
import os
from functools import cache

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from zsadlib.backbones import Encoded
from zsadlib.datasets import load_image
from zsadlib.files import CACHE, replacing, sha256

FOLDER = CACHE / "embeddings"
GIGABYTES = float(os.environ.get("ZSAD_CACHE_GB", 20))


def _file(image, backbone, part):
    name = hashlib.sha256(f"{image} {backbone.fingerprint} {part}".encode()).hexdigest()
    return FOLDER / name[:2] / f"{name}.safetensors"


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
    return sum(sizes), len(sizes)


def trim(gigabytes=GIGABYTES):
    """Remove the least recently used files until at most ``gigabytes`` are left."""
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


def encode(backbone, paths, window_sizes=(), layers=()):
    """``Encoded`` of image files, in order: kept embeddings where there are some, the others computed and kept.

    Args:
        window_sizes, layers: as in ``Backbone.encode``.
    """
    parts = ["image", "patches", *(f"windows {k}" for k in window_sizes), *(f"layer {i}" for i in layers)]
    files = [{part: _file(digest(path), backbone, part) for part in parts} for path in paths]
    whole = {}  # part -> (images, ...), filled as embeddings come

    def put(row, part, tensor):
        if part not in whole:
            whole[part] = tensor.new_empty(len(paths), *tensor.shape)
        whole[part][row] = tensor

    missing = {}
    for row, own in enumerate(files):
        for part, file in own.items():
            tensor = _load(file)
            if tensor is None:
                missing.setdefault(row, []).append(part)
            else:
                put(row, part, tensor)
    rows = list(missing)
    for start in range(0, len(rows), backbone.batch_size):
        some = rows[start : start + backbone.batch_size]
        wanted = {part for row in some for part in missing[row]}
        batch = backbone.preprocess([load_image(paths[row]) for row in some])
        encoded = backbone.encode(
            batch,
            tuple(k for k in window_sizes if f"windows {k}" in wanted),
            tuple(i for i in layers if f"layer {i}" in wanted),
        )
        found = {"image": encoded.image, "patches": encoded.patches}
        found |= {f"windows {k}": t for k, t in encoded.windows.items()} | {
            f"layer {i}": t for i, t in encoded.layers.items()
        }
        for place, row in enumerate(some):
            for part in missing[row]:
                put(row, part, found[part][place])
                with replacing(files[row][part]) as temporary:
                    save_file({"it": found[part][place].contiguous()}, temporary)
    if rows:
        trim()
    windows, kept = {k: whole[f"windows {k}"] for k in window_sizes}, {i: whole[f"layer {i}"] for i in layers}
    return Encoded(whole["image"], whole["patches"], windows, kept)
