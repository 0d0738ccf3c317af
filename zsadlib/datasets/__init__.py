"""Pictures in: what a category is (``folders``), its pixels (``images``), and every set by its name (``catalogue``).

Drawn sets are in ``miniad``, sets that come as Python packages in ``packages``, and sets that one must fetch in ``official``.
"""

from zsadlib.datasets.catalogue import load_dataset, load_miniad, load_split, load_splits, reported_split
from zsadlib.datasets.folders import Category, Sample, read_category
from zsadlib.datasets.images import IMAGE_SUFFIXES, load_image, load_mask
from zsadlib.datasets.official import read_visa

__all__ = [
    "IMAGE_SUFFIXES", "Category", "Sample", "load_dataset", "load_image", "load_mask", "load_miniad", "load_split",
    "load_splits", "reported_split",
    "read_category", "read_visa",
]  # fmt: skip
