"""Pictures in: the MVTec AD folder layout, through which nearly every set goes, and VisA's own.

    <category>/train/good/*            normal images (support images for few-shot; zero-shot never reads them)
    <category>/test/good/*             normal test images
    <category>/test/<kind>/*           defective test images
    <category>/ground_truth/<kind>/<name>_mask.png

Masks are paired by name. A category without a ``ground_truth`` folder has image labels only; with one, every defective
image must have its mask. A mask pixel belongs to the defect where its value is above 127 (anti-aliased masks exist).

VisA lists its images in ``split_csv/1cls.csv`` (object, split, label, image, mask), and its masks are palettes in which every
index above 0 is a defect.
"""

import os
import shutil
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image

from zsadlib import miniad
from zsadlib.files import DATA

NOUNS = {f"pcb{i}": "printed circuit board" for i in range(1, 5)} | {
    "chewinggum": "chewing gum", "macaroni1": "macaroni", "macaroni2": "macaroni"
}  # fmt: skip
IMAGE_SUFFIXES = {".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp"}


@dataclass(frozen=True)
class Sample:
    """One test image: its file, its kind ("good" or the defect's name) and its mask file, if there is one.

    ``palette``: every index of the mask above 0 is a defect, rather than every grey above 127.
    """

    path: Path
    kind: str
    mask_path: Path | None = None
    palette: bool = False

    @property
    def label(self):
        """0 for a normal image, 1 for a defective one."""
        return int(self.kind != "good")


@dataclass(frozen=True)
class Category:
    """One object or texture: ``train`` are normal images, ``test`` the labelled ones; ``name`` stands in the tables."""

    name: str
    dataset: str
    train: tuple[Path, ...]
    test: tuple[Sample, ...]

    @property
    def noun(self):
        """The word for the object in a prompt: the name, but for those that are no words ("pcb1")."""
        return NOUNS.get(self.name, self.name)

    @property
    def labels(self):
        """(n,) int array, 1 = defective."""
        return np.array([s.label for s in self.test])

    @property
    def has_masks(self):
        return all(s.mask_path is not None for s in self.test if s.label)

    def take(self, limit):
        """At most ``limit`` test images, spread evenly over the kinds; 0 keeps all."""
        if not limit or limit >= len(self.test):
            return self
        by_kind = {}
        for sample in self.test:
            by_kind.setdefault(sample.kind, []).append(sample)
        good, bad = by_kind.pop("good", []), list(by_kind.values())
        half = max(1, limit // 2)
        mixed = [kind[i] for i in range(max(map(len, bad), default=0)) for kind in bad if i < len(kind)]
        return replace(self, test=tuple(good[:half] + mixed[: limit - min(half, len(good))]))


def _images(folder):
    return sorted(p for p in folder.iterdir() if p.suffix.lower() in IMAGE_SUFFIXES and not p.name.startswith("."))


def read_category(folder, name=None, dataset=None):
    """Read one category folder in the MVTec AD layout.

    Args:
        folder: the category's folder, with ``test/`` inside. name: what to call the object in a prompt (default: the
            folder's name). dataset: the set's name in tables (default: the parent folder's name).

    Raises:
        FileNotFoundError: there is no ``test`` folder, no image in it, or a defective image has no mask although the
            category has a ``ground_truth`` folder.
    """
    folder = Path(folder).resolve()
    test, truth = folder / "test", folder / "ground_truth"
    if not test.is_dir():
        raise FileNotFoundError(
            f"{folder} is not a category in the MVTec AD layout: it has no folder 'test'; "
            "expected test/good, test/<kind> and, for pixel metrics, ground_truth/<kind>/<name>_mask.png"
        )
    samples = []
    for kind in sorted(p.name for p in test.iterdir() if p.is_dir()):
        for path in _images(test / kind):
            mask = None
            if kind != "good" and truth.is_dir():
                mask = truth / kind / f"{path.stem}_mask.png"
                if not mask.is_file():
                    raise FileNotFoundError(
                        f"{path} has no mask: {mask} is missing; add it, or remove the whole ground_truth folder to "
                        "use image labels only"
                    )
            samples.append(Sample(path, kind, mask))
    if not samples:
        raise FileNotFoundError(f"{test} holds no image; put images into test/good and test/<kind>")
    train = tuple(_images(folder / "train" / "good")) if (folder / "train" / "good").is_dir() else ()
    return Category(name or folder.name.replace("_", " "), dataset or folder.parent.name, train, tuple(samples))


def read_visa(root, only=None):
    """The categories of VisA (or ``only`` one) in its official layout and split (one class: normal images to train on).

    Raises:
        FileNotFoundError: there is no list, or a file that it names is missing.
    """
    root = Path(root).resolve()
    listed = root / "split_csv" / "1cls.csv"
    if not listed.is_file():
        raise FileNotFoundError(f"{root} is not VisA in its official layout: {listed} is missing")
    table = pd.read_csv(listed, dtype=str, keep_default_na=False)
    if only is not None:
        table = table[table.object == only]
    for path in [*table["image"], *table["mask"][table["mask"] != ""]]:
        if not (root / path).is_file():
            raise FileNotFoundError(f"{listed} names {path}, which is missing")
    categories = []
    for name, rows in table.groupby("object", sort=False):
        test = [
            Sample(
                root / r.image, "good" if r.label == "normal" else "anomaly", root / r.mask if r.mask else None, True
            )
            for r in rows[rows.split == "test"].itertuples()
        ]
        train = tuple(root / path for path in rows["image"][rows.split == "train"])
        categories.append(Category(name.replace("_", " "), "VisA", train, tuple(test)))
    return categories


def load_image(path):
    """An image file as 8-bit RGB: 16-bit greys are divided by 257 (taken as they are if none is above 255), floating-point
    greys stretched from their own range.

    Raises:
        ValueError: the file is missing, is not an image or is cut short.
    """
    try:
        with Image.open(path) as image:
            image.load()
            if image.mode in ("I", "F") or image.mode.startswith("I;16"):
                grey = np.asarray(image).astype(np.float64)
                if not np.isfinite(grey).all():
                    raise ValueError("it holds NaN or infinity")
                if image.mode.startswith("I;16") or image.mode == "I":
                    low, high = 0, 65535 if grey.max() > 255 else 255
                else:
                    low, high = float(grey.min()), float(grey.max()) or 1.0
                scaled = np.clip((grey - low) / max(high - low, 1e-9), 0, 1) * 255
                return Image.fromarray(np.rint(scaled).astype(np.uint8)).convert("RGB")
            return image.convert("RGB")
    except FileNotFoundError:
        raise ValueError(f"{path} does not exist") from None
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise ValueError(f"{path} cannot be read as an image: {error}") from None


def load_mask(sample, size):
    """Ground truth of a sample as a bool array (size, size); all False for a normal image (nearest-neighbour resizing)."""
    if sample.mask_path is None:
        if sample.label:
            raise ValueError(f"{sample.path} is defective but has no mask; pixel metrics need masks")
        return np.zeros((size, size), bool)
    if sample.palette:
        with Image.open(sample.mask_path) as file:
            mask = np.asarray(file if file.mode in ("P", "L") else file.convert("L")) > 0
    else:
        mask = np.asarray(load_image(sample.mask_path).convert("L")) > 127
    return np.asarray(Image.fromarray(mask).resize((size, size), Image.NEAREST))


def load_miniad(split):
    """The categories of a MiniAD split ("development" or "test"); the set is generated on first use (about a minute)."""
    root = miniad.write(DATA / "miniad")
    return [read_category(root / name, name, f"MiniAD {split}") for name in miniad.split_names(split)]


def _textile_layout(root):
    """The simulated textiles of conformal-clip-data in the MVTec AD layout: links to the installed package's files."""
    import conformal_clip_data as package

    root.parent.mkdir(parents=True, exist_ok=True)
    work = Path(tempfile.mkdtemp(prefix=".textile-", dir=root.parent))
    try:
        for source, target in [("nominal", "good"), ("local", "local"), ("global", "global")]:
            for i, path in enumerate(_images(package.textile_simulated_root() / source)):
                part = "train" if target == "good" and i < 20 else "test"
                link = work / part / target / path.name
                link.parent.mkdir(parents=True, exist_ok=True)
                try:
                    link.symlink_to(path)
                except OSError:
                    shutil.copyfile(path, link)
        shutil.rmtree(root, ignore_errors=True)
        os.replace(work, root)
    finally:
        shutil.rmtree(work, ignore_errors=True)


def load_textile():
    """The textile set of ``conformal-clip-data`` (MIT): 2,000 images, image labels only; 20 normal ones are "train"."""
    root = DATA / "textile"
    probe = root / "test" / "good"
    if not probe.is_dir() or not all(p.exists() for p in probe.iterdir()):
        _textile_layout(root)
    return [read_category(root, "textile", "textile")]


def load_dataset(name):
    """Categories of a named set: "miniad-development", "miniad-test", "textile", "mvtec-ad", "visa", a folder of folders,
    or "miniad-few": eight images, to try things.

    "NAME:400" takes at most 400 test images of each category, spread evenly over the kinds (``Category.take``).
    """
    name, _, limit = name.rpartition(":") if name.rpartition(":")[2].isdigit() else (name, "", "0")
    if int(limit):
        return [category.take(int(limit)) for category in load_dataset(name)]
    if name in ("miniad-development", "miniad-test"):
        return load_miniad(name.removeprefix("miniad-"))
    if name == "miniad-few":
        return [category.take(4) for category in load_miniad("test")[:2]]
    if name == "textile":
        return load_textile()
    if name in ("mvtec-ad", "visa"):
        root = DATA / name
        if not root.is_dir():
            raise ValueError(f"the data set {name} is not there; get it with: zsad data fetch {name} --accept-licence")
        if name == "visa":
            return read_visa(root)
        return [read_category(p, dataset="MVTec AD") for p in _category_folders(root)]
    root = Path(name)
    if not root.is_dir():
        raise ValueError(
            f"unknown data set '{name}'; choose miniad-development, miniad-test, textile, mvtec-ad, visa, or a folder with "
            "one MVTec-layout folder per category"
        )
    return [read_category(p) for p in _category_folders(root)]


def _category_folders(root):
    return [p for p in sorted(root.iterdir()) if (p / "test").is_dir()]


def load_split(names, limit=0, masks=False):
    """All categories of several named sets, at most ``limit`` images of each (0: all); ``masks``: only those that have some."""
    categories = [category.take(limit) for name in names for category in load_dataset(name)]
    return [category for category in categories if category.has_masks or not masks]
