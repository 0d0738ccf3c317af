"""Every set by its name."""

from pathlib import Path

from zsadlib.datasets import miniad
from zsadlib.datasets.folders import read_category
from zsadlib.datasets.official import read_visa
from zsadlib.datasets.packages import load_textile
from zsadlib.files import DATA


def load_miniad(split):
    """The categories of a MiniAD split ("development" or "seen_test"); each is generated on first use (less than a minute)."""
    root = miniad.write(DATA / "miniad" / split, split)
    return [read_category(root / name, name, f"MiniAD {split}".replace("_", " ")) for name in miniad.split_names(split)]


def load_dataset(name):
    """Categories of a named set: "miniad-development", "miniad-seen-test", "textile", "mvtec-ad", "visa", a folder of folders,
    or "miniad-few": eight images, to try things.

    "NAME:400" takes at most 400 test images of each category, spread evenly over the kinds (``Category.take``).
    """
    name, _, limit = name.rpartition(":") if name.rpartition(":")[2].isdigit() else (name, "", "0")
    if int(limit):
        return [category.take(int(limit)) for category in load_dataset(name)]
    if name in ("miniad-development", "miniad-seen-test"):
        return load_miniad(name.removeprefix("miniad-").replace("-", "_"))
    if name == "miniad-few":
        return [category.take(4) for category in load_miniad("seen_test")[:2]]
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
            f"unknown data set '{name}'; choose miniad-development, miniad-seen-test, textile, mvtec-ad, visa, or a folder with "
            "one MVTec-layout folder per category"
        )
    return [read_category(p) for p in _category_folders(root)]


def _category_folders(root):
    return [p for p in sorted(root.iterdir()) if (p / "test").is_dir()]


def load_split(names, limit=0, masks=False):
    """All categories of several named sets, at most ``limit`` images of each (0: all); ``masks``: only those that have some."""
    categories = [category.take(limit) for name in names for category in load_dataset(name)]
    return [category for category in categories if category.has_masks or not masks]


def load_splits(profile, limit=0, masks=False):
    """The profile's sets by what they are for: dict of "development", "seen test" and "test" -> categories (``load_split``).

    Choices are made on the first, and may look at the second. A part without categories is left out.
    """
    names = {"development": profile.development, "seen test": profile.seen, "test": profile.test}
    found = {split: load_split(some, limit, masks) for split, some in names.items()}
    return {split: categories for split, categories in found.items() if categories}


def reported_split(splits):
    """Name of the split of ``load_splits`` whose results are reported: the last, which must not be development.

    Raises:
        ValueError: there is none beside development.
    """
    reported = [split for split in splits if split != "development"]
    if not reported:
        raise ValueError(
            "there is nothing to report on beside development; name sets under 'seen' or 'test' in the profile"
        )
    return reported[-1]
