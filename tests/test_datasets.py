import hashlib

import numpy as np
import pytest
from conftest import write_category
from PIL import Image

from zsadlib import datasets, miniad
from zsadlib.miniad import anything


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
    data = datasets.load_textile()[0]
    assert len(data.train) == 20 and len(data.test) == 1980 and data.labels.sum() == 1000 and not data.has_masks


def test_a_set_can_be_limited_by_name():
    data = datasets.load_dataset("textile:8")[0]
    assert sorted(s.kind for s in data.test) == ["global"] * 2 + ["good"] * 4 + ["local"] * 2


def test_miniad_is_large_enough_and_its_splits_are_disjoint():
    names = [n for split in miniad.SPLITS for n in miniad.split_names(split)]
    assert len(names) == len(set(names)) >= 50
    assert len(miniad.KINDS) >= 10
    assert _photographs("training") and _photographs("test") == {"grass.png", "brick.png"}
    assert not _photographs("test") & (_photographs("training") | _photographs("development"))


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
    assert image.shape == (miniad.SIZE, miniad.SIZE, 3) and image.min() >= 0 and image.max() <= 1


@pytest.mark.parametrize("kind", list(miniad.KINDS))
def test_every_defect_is_visible_where_its_mask_says(kind):
    rng = miniad.generator(kind)
    base, where = miniad.CATEGORIES["wood"](rng, 128)
    changed, mask = miniad.damage(rng, base, where, kind, 0.2)
    difference = np.abs(changed - base).mean(2)
    assert difference[mask].mean() >= 0.03 and difference[mask].mean() > 3 * difference[~mask].mean()


def test_writing_miniad_leaves_nothing_half_done(tmp_path, monkeypatch):
    monkeypatch.setattr(miniad, "COUNTS", {"train good": 1, "test good": 1, "per defect kind": 1})
    monkeypatch.setattr(miniad, "split_names", lambda split: ["plate"] if split == "test" else [])
    monkeypatch.setattr(miniad, "_save", lambda *a: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        miniad.write(tmp_path / "set", n_jobs=1)
    assert list(tmp_path.iterdir()) == []
    monkeypatch.undo()
    monkeypatch.setattr(miniad, "COUNTS", {"train good": 1, "test good": 1, "per defect kind": 1})
    monkeypatch.setattr(miniad, "split_names", lambda split: ["plate"] if split == "test" else [])
    hashes = {miniad.tree_hash(miniad.write(tmp_path / name, n_jobs=1)) for name in ("a", "b")}
    assert len(hashes) == 1 and hashes != {hashlib.sha256().hexdigest()}
    assert len(datasets.read_category(tmp_path / "a" / "plate").test) == 1 + miniad.KINDS_PER_CATEGORY
