"""Embeddings on disk: what a backbone made of an image is computed once.

Everything is kept under a hash of all it depends on (bytes of the image, weights, preprocessing, precision, and which part of the
network), so nothing is ever stale. Files are safetensors, replaced whole, so two processes may share the folder; the least
recently used go when it outgrows its bound.
"""

import hashlib
import os
from functools import cache

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from zsadlib.backbones import Encoded
from zsadlib.datasets import load_image
from zsadlib.files import CACHE, replacing, sha256

FOLDER = CACHE / "embeddings"
GIGABYTES = float(os.environ.get("ZSAD_CACHE_GB", 20))


def _file(digest, backbone, part, which):
    name = hashlib.sha256(f"{digest} {backbone.fingerprint} {part} {which}".encode()).hexdigest()
    return FOLDER / name[:2] / f"{name}.safetensors"


def _load(path):
    """A kept file's tensors, or None where it is missing, being removed or damaged."""
    try:
        os.utime(path)  # used now
        return load_file(path)
    except (OSError, SafetensorError):
        return None


def size():
    """Bytes kept and number of files."""
    sizes = [file.stat().st_size for file in FOLDER.rglob("*.safetensors")]
    return sum(sizes), len(sizes)


def trim(gigabytes=GIGABYTES):
    """Remove the least recently used files until at most ``gigabytes`` are left."""
    files = sorted((f.stat().st_mtime, f.stat().st_size, f) for f in FOLDER.rglob("*.safetensors"))
    total = sum(bytes_ for _, bytes_, _ in files)
    for _, bytes_, file in files:
        if total <= gigabytes * 1e9:
            return
        file.unlink(missing_ok=True)
        total -= bytes_


@cache
def _digest(path, stamp):
    return sha256(path)


def _parts(window_sizes, layers):
    return [("pass", 0), *(("windows", k) for k in window_sizes), *(("layer", i) for i in layers)]


def _tensors(encoded, row, part, which):
    if part == "pass":
        return {"image": encoded.image[row], "patches": encoded.patches[row]}
    return {part: (encoded.windows if part == "windows" else encoded.layers)[which][row]}


def encode(backbone, paths, batch_size=16, window_sizes=(), layers=()):
    """``Encoded`` of image files, in order: kept embeddings where there are some, the others computed and kept.

    Args:
        window_sizes, layers: as in ``Backbone.encode``.
    """
    parts = _parts(window_sizes, layers)
    digests = [_digest(path, os.stat(path).st_mtime_ns) for path in paths]
    names = [{part: _file(digest, backbone, *part) for part in parts} for digest in digests]
    found = [{part: _load(file) for part, file in own.items()} for own in names]
    new = [i for i, own in enumerate(found) if None in own.values()]
    for start in range(0, len(new), batch_size):
        rows = new[start : start + batch_size]
        lacking = {part for i in rows for part, tensors in found[i].items() if tensors is None}
        batch = backbone.preprocess([load_image(paths[i]) for i in rows])
        wanted = (tuple(k for part, k in sorted(lacking) if part == kind) for kind in ("windows", "layer"))
        encoded = backbone.encode(batch, *wanted)
        for row, i in enumerate(rows):
            for part in [part for part, tensors in found[i].items() if tensors is None]:
                found[i][part] = _tensors(encoded, row, *part)
                with replacing(names[i][part]) as temporary:
                    save_file({name: tensor.contiguous() for name, tensor in found[i][part].items()}, temporary)
    if new:
        trim()
    stack = lambda part, name: torch.stack([own[part][name] for own in found])  # noqa: E731
    windows = {k: stack(("windows", k), "windows") for k in window_sizes}
    kept = {i: stack(("layer", i), "layer") for i in layers}
    return Encoded(stack(("pass", 0), "image"), stack(("pass", 0), "patches"), windows, kept)
