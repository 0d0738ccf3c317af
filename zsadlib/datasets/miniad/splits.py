"""The splits of MiniAD: ``draw`` makes one picture, ``write`` the folders of a split.

Each split's categories are in a module of their own, and each has a source hash of its own.
"""

import hashlib
import os
import shutil
import tempfile
from pathlib import Path

import joblib
from tqdm.auto import tqdm

from zsadlib.datasets.miniad import development, seen_test, training
from zsadlib.datasets.miniad.defects import KINDS
from zsadlib.datasets.miniad.pictures import SIZE, generator, picture
from zsadlib.datasets.miniad.writing import save_picture
from zsadlib.provenance import json_hash, libraries, source_hash, versions

SEED = 2024
COUNTS = {"train good": 20, "test good": 40, "per defect kind": 10}
KINDS_PER_CATEGORY = 6
STAMP = "SHA256"
# The embedded models are trained on training categories only. Choices are made on development; seen_test was a test set once, and
# is one no more.
SPLITS = {"training": training.CATEGORIES, "development": development.CATEGORIES, "seen_test": seen_test.CATEGORIES}
CATEGORIES = {draw.__name__.replace("_", " "): draw for split in SPLITS.values() for draw in split}


def split_names(split):
    """Category names of a split: "training", "development" or "seen_test"."""
    if split not in SPLITS:
        raise ValueError(f"unknown MiniAD split '{split}'; choose one of {', '.join(SPLITS)}")
    return [name for name, draw in CATEGORIES.items() if draw in SPLITS[split]]


def draw(category, kind, rng, size=SIZE):
    """One picture of MiniAD.

    Args:
        category: a name in ``CATEGORIES``. kind: "good" or a name in ``KINDS``.
        rng: a ``numpy.random.Generator``. size: side in pixels.

    Returns:
        The image (size, size, 3), float32 in [0, 1], and the defect mask (size, size), bool.
    """
    return picture(CATEGORIES[category], kind, rng, size)


def test_kinds(category):
    """The defect kinds in a category's test folder, fixed by its name."""
    return sorted(generator("kinds", category).choice(list(KINDS), KINDS_PER_CATEGORY, replace=False).tolist())


def _jobs(categories):
    """Every picture of some categories: (category, part, kind, index)."""
    for category in categories:
        yield from ((category, "train", "good", i) for i in range(COUNTS["train good"]))
        yield from ((category, "test", "good", i) for i in range(COUNTS["test good"]))
        for kind in test_kinds(category):
            yield from ((category, "test", kind, i) for i in range(COUNTS["per defect kind"]))


def tree_hash(root):
    """sha256 over the names and bytes of all PNG files under ``root``."""
    digest = hashlib.sha256()
    for path in sorted(Path(root).rglob("*.png")):
        digest.update(path.relative_to(root).as_posix().encode())
        digest.update(path.read_bytes())
    return digest.hexdigest()


def split_source(split):
    """sha256 of all that a split's files depend on: which pictures they are, the sources that draw and write them, and the
    versions of the libraries that these import. A changed line makes that split anew, and no other."""
    made_by = [f"zsadlib.datasets.miniad.{name}" for name in (split, "writing")]
    pictures = list(_jobs(split_names(split)))
    return json_hash([SEED, pictures, source_hash(*made_by), versions(*libraries(*made_by))])


def _is_current(root, split):
    stamp = root / STAMP
    return stamp.is_file() and stamp.read_text().split()[0] == split_source(split)


def write(root, split, n_jobs=-1):
    """Write the categories of a split to ``root`` in the MVTec AD layout, unless they are there already.

    The set is made in a temporary folder and renamed, so a run that is stopped leaves nothing half done.
    Returns the folder.
    """
    root = Path(root)
    if _is_current(root, split):
        return root
    root.parent.mkdir(parents=True, exist_ok=True)
    work = Path(tempfile.mkdtemp(prefix=f".{root.name}-", dir=root.parent))
    try:
        jobs = list(_jobs(split_names(split)))
        joblib.Parallel(n_jobs=n_jobs)(
            joblib.delayed(save_picture)(work, CATEGORIES[job[0]], *job, SEED)
            for job in tqdm(jobs, f"drawing MiniAD {split}")
        )
        (work / STAMP).write_text(f"{split_source(split)} generator\n{tree_hash(work)} images\n")
        if not _is_current(root, split):  # another process may have been quicker
            shutil.rmtree(root, ignore_errors=True)
            os.replace(work, root)
    finally:
        shutil.rmtree(work, ignore_errors=True)
    return root
