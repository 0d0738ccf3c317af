"""MiniAD: a generated anomaly-detection set in the MVTec AD layout, with pixel masks, the same on every machine.

``draw`` makes one picture, ``write`` the folders of a split. The pictures are drawings (partly on real photographic textures),
not photographs: results on MiniAD say how methods compare, not how they do in a factory.
"""

from zsadlib.datasets.miniad.defects import KINDS
from zsadlib.datasets.miniad.pictures import generator, photograph_it
from zsadlib.datasets.miniad.splits import (
    CATEGORIES,
    COUNTS,
    SPLITS,
    STAMP,
    draw,
    split_names,
    split_source,
    test_kinds,
    tree_hash,
    write,
)

__all__ = [
    "CATEGORIES", "COUNTS", "KINDS", "SPLITS", "STAMP", "draw", "generator", "photograph_it", "split_names", "split_source",
    "test_kinds", "tree_hash", "write",
]  # fmt: skip
