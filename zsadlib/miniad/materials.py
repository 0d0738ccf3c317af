"""Photographs of materials for the training categories: wood, metal, plaster, felt, bread, ... (robosuite, MIT licence).

They come out of a pinned wheel on PyPI, fetched once; only drawing training pictures needs them, never the study itself.
"""

from functools import cache
from pathlib import Path

import numpy as np
from PIL import Image

from zsadlib.files import CACHE

WHEEL = (
    "https://files.pythonhosted.org/packages/c8/54/3c0940c92d381eb5837cd29bf2c9fbf0a9dff313a2b2779e3902665276b3/"
    "robosuite-1.5.2-py3-none-any.whl"
)
SHA256 = "b9e02df55de8949739de6ba1d196d2ba59cf33c51a76efcfbe5c2f73cdcf99ce"
FOLDER = "robosuite/models/assets/textures"
# Left out: bricks (a test category of MiniAD), prints with trademarks, and a scratched surface (it has a defect). One plaster
# is in twice: the training set is drawn by position in this list.
NAMES = (
    "blue-wood.png", "brass-ambra.png", "bread.png", "clay.png", "cream-plaster.png", "dark-wood.png", "dirt.png",
    "gray-felt.png", "light-gray-plaster.png", "gray-woodgrain.png", "green-wood.png", "lemon.png", "light-gray-floor-tile.png",
    "light-gray-plaster.png", "light-wood.png", "metal.png", "pink-plaster.png", "red-wood.png", "steel-brushed.png",
    "white-plaster.png", "wood-tiles.png", "wood-varnished-panels.png", "yellow-plaster.png",
)  # fmt: skip


@cache
def folder():
    """Where the photographs lie; downloaded (157 MB) and checked on first use."""
    import pooch  # only training needs it

    members = [f"{FOLDER}/{name}" for name in sorted(set(NAMES))]
    files = pooch.retrieve(
        WHEEL, SHA256, fname="robosuite-1.5.2.zip", path=CACHE / "materials", processor=pooch.Unzip(members=members)
    )
    return {Path(path).name: path for path in files}


@cache
def material(name):
    """The photograph ``name``, at most 640 pixels a side, float16 RGB in [0, 1]."""
    image = Image.open(folder()[name]).convert("RGB")
    image.thumbnail((640, 640))
    return (np.asarray(image) / 255).astype(np.float16)
