"""MiniAD: a generated anomaly-detection set in the MVTec AD layout, with pixel masks, the same on every machine.

``draw`` makes one picture, ``write`` the development and test folders. The pictures are drawings (partly on real
photographic textures), not photographs: results on MiniAD say how methods compare, not how they do in a factory.
"""

import hashlib
import os
import shutil
import tempfile
import zlib
from pathlib import Path

import joblib
import numpy as np
from PIL import Image
from scipy.ndimage import gaussian_filter
from tqdm.auto import tqdm

from zsadlib.miniad.categories import CATEGORIES, SPLITS
from zsadlib.miniad.defects import KINDS, damage
from zsadlib.miniad.drawing import noise

SIZE = 192
SEED = 2024
COUNTS = {"train good": 20, "test good": 40, "per defect kind": 10}
KINDS_PER_CATEGORY = 6
STAMP = "SHA256"


def split_names(split):
    """Category names of a split: "training", "development" or "test"."""
    if split not in SPLITS:
        raise ValueError(f"unknown MiniAD split '{split}'; choose one of {', '.join(SPLITS)}")
    return [draw.__name__.replace("_", " ") for draw in SPLITS[split]]


def generator(*key):
    """A random generator that depends on nothing but ``key`` (numbers and strings)."""
    return np.random.default_rng([k if isinstance(k, int) else zlib.crc32(k.encode()) for k in key])


def photograph_it(rng, image):
    """What a camera adds, to normal and damaged objects alike: uneven light, exposure, blur and noise."""
    size = image.shape[0]
    image = image * (1 + rng.uniform(0, 0.08) * noise(rng, size, 0.4))[..., None]
    image = np.clip(image * rng.uniform(0.85, 1.1), 0, 1) ** rng.uniform(0.85, 1.2)
    image = gaussian_filter(image, (s := rng.uniform(0.0, 0.9), s, 0))
    return np.clip(image + rng.normal(0, rng.uniform(0.003, 0.02), image.shape), 0, 1).astype(np.float32)


def draw(category, kind, rng, size=SIZE):
    """One picture of MiniAD.

    Args:
        category: a name in ``CATEGORIES``. kind: "good" or a name in ``KINDS``.
        rng: a ``numpy.random.Generator``. size: side in pixels.

    Returns:
        The image (size, size, 3), float32 in [0, 1], and the defect mask (size, size), bool.
    """
    image, where = CATEGORIES[category](rng, size)
    mask = np.zeros(where.shape, bool)
    if kind != "good":
        image, mask = damage(rng, image, where, kind, rng.uniform(0, 1))
    return photograph_it(rng, image), mask


def test_kinds(category):
    """The defect kinds in a category's test folder, fixed by its name."""
    return sorted(generator("kinds", category).choice(list(KINDS), KINDS_PER_CATEGORY, replace=False).tolist())


def _save(root, category, part, kind, index):
    image, mask = draw(category, kind, generator(SEED, category, part, kind, index))
    name = f"{index:03d}.png"
    path = root / category / part / kind / name
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.rint(image * 255).astype(np.uint8)).save(path)
    if kind != "good":
        mask_path = root / category / "ground_truth" / kind / name.replace(".png", "_mask.png")
        mask_path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(mask.astype(np.uint8) * 255).save(mask_path)


def _jobs(categories):
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


def source_hash():
    """sha256 of this package's source: a changed generator makes a new set."""
    folder = Path(__file__).parent
    return hashlib.sha256(b"".join(p.read_bytes() for p in sorted(folder.glob("*.py")))).hexdigest()


def _is_current(root):
    stamp = root / STAMP
    return stamp.is_file() and stamp.read_text().split()[0] == source_hash()


def write(root, n_jobs=-1):
    """Write the development and test categories to ``root`` in the MVTec AD layout, unless they are there already.

    The set is made in a temporary folder and renamed, so a run that is stopped leaves nothing half done.
    Returns the folder.
    """
    root = Path(root)
    if _is_current(root):
        return root
    root.parent.mkdir(parents=True, exist_ok=True)
    work = Path(tempfile.mkdtemp(prefix=f".{root.name}-", dir=root.parent))
    try:
        jobs = list(_jobs(split_names("development") + split_names("test")))
        joblib.Parallel(n_jobs=n_jobs)(joblib.delayed(_save)(work, *job) for job in tqdm(jobs, "drawing MiniAD"))
        (work / STAMP).write_text(f"{source_hash()} generator\n{tree_hash(work)} images\n")
        if not _is_current(root):  # another process may have been quicker
            shutil.rmtree(root, ignore_errors=True)
            os.replace(work, root)
    finally:
        shutil.rmtree(work, ignore_errors=True)
    return root
