"""Categories in: the MVTec AD folder layout, through which nearly every set goes.

    <category>/train/good/*            normal images (support images for few-shot; zero-shot never reads them)
    <category>/test/good/*             normal test images
    <category>/test/<kind>/*           defective test images
    <category>/ground_truth/<kind>/<name>_mask.png

Masks are paired by name. A category without a ``ground_truth`` folder has image labels only; with one, every defective
image must have its mask. A mask pixel belongs to the defect where its value is above 127 (anti-aliased masks exist).
"""

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from zsadlib.datasets.images import IMAGE_SUFFIXES

NOUNS = {f"pcb{i}": "printed circuit board" for i in range(1, 5)} | {
    "chewinggum": "chewing gum", "macaroni1": "macaroni", "macaroni2": "macaroni"
}  # fmt: skip


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


def list_images(folder):
    """Files that are called like an image, sorted; neither hidden ones ("._a.jpg") nor folders."""
    named = (p for p in folder.iterdir() if p.suffix.lower() in IMAGE_SUFFIXES and not p.name.startswith("."))
    return sorted(p for p in named if not p.is_dir())


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
        for path in list_images(test / kind):
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
    train = tuple(list_images(folder / "train" / "good")) if (folder / "train" / "good").is_dir() else ()
    return Category(name or folder.name.replace("_", " "), dataset or folder.parent.name, train, tuple(samples))
