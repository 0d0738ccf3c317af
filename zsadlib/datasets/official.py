"""Official data sets in: a user's own archive or folder first, then mirrors; always checked, unpacked safely, counted.

Nothing of these sets is in the repository. ``fetch`` puts one under ``data/``; ``check`` compares it with the published
counts and opens every file. An address may change or lie, so the sha256 decides, never the address.

VisA lists its images in ``split_csv/1cls.csv`` (object, split, label, image, mask), and its masks are palettes in which every
index above 0 is a defect.
"""

import os
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path

import joblib
import pandas as pd
from tqdm.auto import tqdm

from zsadlib.datasets.downloads import download, unpack
from zsadlib.datasets.folders import Category, Sample, read_category
from zsadlib.datasets.images import load_image
from zsadlib.files import CACHE, DATA
from zsadlib.provenance import sha256

PARTS = ("train good", "test good", "test defective")


@dataclass(frozen=True)
class Source:
    """One official set: its archive, where to get it, its licence, and how many images each category must have.

    ``counts`` maps a category's folder to (train good, test good, test defective). ``most_bytes`` and ``most_files``
    bound what its archive may unpack to.
    """

    name: str
    title: str
    archive: str
    sha256: str
    mirrors: tuple[str, ...]
    licence: str
    licence_page: str
    counts: dict[str, tuple[int, int, int]]
    most_bytes: int = 12 * 10**9
    most_files: int = 50_000


SOURCES = {
    s.name: s
    for s in (
        Source(
            "mvtec-ad",
            "MVTec AD (Bergmann et al., CVPR 2019)",
            "mvtec_anomaly_detection.tar.xz",
            "cf4313b13603bec67abb49ca959488f7eedce2a9f7795ec54446c649ac98cd3d",
            (
                "https://www.mydrive.ch/shares/38536/3830184030e49fe74747669442f0f282/download/420938113-1629952094/mvtec_anomaly_detection.tar.xz",
                "https://www.mydrive.ch/shares/150996/b52ecdcbf521176e9db9c731f2304b27/download/420938113-1629960298/mvtec_anomaly_detection.tar.xz",
            ),
            "CC BY-NC-SA 4.0 (not for commercial use)",
            "https://www.mvtec.com/company/research/datasets/mvtec-ad",
            {
                "bottle": (209, 20, 63),
                "cable": (224, 58, 92),
                "capsule": (219, 23, 109),
                "carpet": (280, 28, 89),
                "grid": (264, 21, 57),
                "hazelnut": (391, 40, 70),
                "leather": (245, 32, 92),
                "metal_nut": (220, 22, 93),
                "pill": (267, 26, 141),
                "screw": (320, 41, 119),
                "tile": (230, 33, 84),
                "toothbrush": (60, 12, 30),
                "transistor": (213, 60, 40),
                "wood": (247, 19, 60),
                "zipper": (240, 32, 119),
            },
        ),
        Source(
            "visa",
            "VisA (Zou et al., ECCV 2022)",
            "VisA_20220922.tar",
            "2eb8690c803ab37de0324772964100169ec8ba1fa3f7e94291c9ca673f40f362",
            ("https://amazon-visual-anomaly.s3.us-west-2.amazonaws.com/VisA_20220922.tar",),
            "CC BY 4.0",
            "https://registry.opendata.aws/visa/",
            {
                "candle": (900, 100, 100),
                "capsules": (542, 60, 100),
                "cashew": (450, 50, 100),
                "chewinggum": (453, 50, 100),
                "fryum": (450, 50, 100),
                "macaroni1": (900, 100, 100),
                "macaroni2": (900, 100, 100),
                "pcb1": (904, 100, 100),
                "pcb2": (901, 100, 100),
                "pcb3": (905, 101, 100),
                "pcb4": (904, 101, 100),
                "pipe_fryum": (450, 50, 100),
            },
        ),
    )
}


def get_source(name):
    """A ``Source`` by its name; ValueError if there is none."""
    if name not in SOURCES:
        raise ValueError(f"unknown data set '{name}'; choose one of {', '.join(SOURCES)}")
    return SOURCES[name]


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


def fetch(source, path=None, accept_licence=False, data=DATA):
    """Put an official set under ``data``.

    Args:
        source: a ``Source``. path: the user's own archive, or a folder where it is unpacked already (it is linked, not
            copied); None downloads. accept_licence: the user has read and accepts the licence.

    Returns:
        The set's folder, ``data/<name>``.

    Raises:
        ValueError: the licence is not accepted, the set is there already, no mirror gave the right archive, the archive's
            hash is wrong, or it holds what no picture archive should.
    """
    folder = Path(data) / source.name
    if folder.exists():
        raise ValueError(f"{folder} is there already; check it with: zsad data check {source.name}, or remove it first")
    if not accept_licence:
        raise ValueError(
            f"{source.title} is licensed under {source.licence}, see {source.licence_page}; "
            "if you accept it, add --accept-licence"
        )
    folder.parent.mkdir(parents=True, exist_ok=True)
    if path is not None and Path(path).is_dir():
        folder.symlink_to(find_root(Path(path).resolve(), source), target_is_directory=True)
        return folder
    archive = Path(path) if path is not None else download(source, CACHE / "downloads")
    if not archive.is_file():
        raise ValueError(
            f"{archive} does not exist; give the archive {source.archive} or the folder it was unpacked to"
        )
    if path is not None and (found := sha256(archive)) != source.sha256:
        raise ValueError(f"{archive} is not the published {source.archive}: its sha256 is {found}, not {source.sha256}")
    work = Path(tempfile.mkdtemp(prefix=f".{source.name}-", dir=folder.parent))
    try:
        unpack(archive, work, source.most_bytes, source.most_files)
        os.replace(find_root(work, source), folder)
    finally:
        shutil.rmtree(work, ignore_errors=True)
    if path is None:
        archive.unlink()
    return folder


def find_root(folder, source):
    """The folder that holds the category folders: ``folder`` itself or a child of it. ValueError if neither does."""
    for root in (folder, *sorted(p for p in folder.iterdir() if p.is_dir())):
        if all((root / category).is_dir() for category in source.counts):
            return root
    raise ValueError(f"{folder} does not hold {source.title}: expected the folders {', '.join(source.counts)}")


def _problem(path):
    try:
        load_image(path)
    except ValueError as error:
        return str(error)


def check(source, folder, n_jobs=-1):
    """Compare a set with the published counts and open every image and mask.

    Returns:
        A table with one row per category and, for each part of ``PARTS``, the number of images found and the number published;
        and a list of sentences that say what is wrong. The list is empty for a whole set.

    Raises:
        ValueError: the folder does not hold the set at all.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise ValueError(f"{folder} does not exist; get it with: zsad data fetch {source.name} --accept-licence")
    root, problems = find_root(folder, source), []
    rows, files = [], []
    for name, expected in source.counts.items():
        category = None
        try:
            if source.name == "visa":
                category = next(iter(read_visa(root, name)), None)
            else:
                category = read_category(root / name)
        except FileNotFoundError as error:
            problems.append(str(error))
        if category is None:
            found = (0, 0, 0)
        else:
            defective = int(category.labels.sum())
            found = (len(category.train), len(category.test) - defective, defective)
            masks = [s.mask_path for s in category.test if s.mask_path]
            files += [*category.train, *(s.path for s in category.test), *masks]
            problems += [f"{s.path} has no mask" for s in category.test if s.label and not s.mask_path]
        row = {"category": name}
        for part, count, published in zip(PARTS, found, expected, strict=True):
            row |= {part: count, f"{part}, published": published}
            if count != published:
                problems.append(f"{name}: {count} images in {part}, {published} are published")
        rows.append(row)
    checks = joblib.Parallel(n_jobs=n_jobs, return_as="generator")(joblib.delayed(_problem)(path) for path in files)
    problems += [problem for problem in tqdm(checks, "opening images", len(files)) if problem]
    return pd.DataFrame(rows), problems
