"""Photographs in, scores and reasons out: the same by the Python door, the command line and a saved file."""

import json
import os
import pickletools
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import write_category
from PIL import Image
from safetensors.torch import load_file, save_file
from scipy.ndimage import binary_dilation

from zsadlib import Inspector, datasets, study
from zsadlib.datasets import miniad
from zsadlib.inspection import saving, threshold
from zsadlib.inspection.inspector import Wanted
from zsadlib.inspection.partial import Partial
from zsadlib.inspection.photographs import photographs
from zsadlib.inspection.region import Region
from zsadlib.profiles import load_profile


@pytest.fixture(scope="module")
def bolts(tmp_path_factory):
    """Photographs (96 pixels) of good and cracked bolts, and a folder of good ones to learn from."""
    root = write_category(tmp_path_factory.mktemp("bolts") / "bolt", kinds=("crack",), good=6, bad=6, train=12)
    return {"normal": root / "train" / "good", "test": root / "test"}


@pytest.fixture(scope="module")
def inspector():
    return Inspector("bolt", views="whole")


def test_one_look_gives_the_score_and_map_of_the_study(bolts, inspector, backbone):
    result = inspector(bolts["test"])
    detector = study.build_detector("alfa", load_profile("mini"), backbone).prepare("bolt")
    paths = sorted(bolts["test"].rglob("*.png"))
    assert [Path(p) for p in result.table.path] == paths and list(result.table) == [
        "path", "image_score", "verdict", "threshold", "error",
    ]  # fmt: skip
    for i, path in enumerate(paths):
        score, anomaly_map = detector.predict(backbone.preprocess([datasets.load_image(path)]))
        assert result.table.image_score[i] == pytest.approx(float(score), abs=2e-5)
        assert np.abs(result.maps[i] - anomaly_map[0].numpy()).max() < 1e-4


def test_files_pictures_and_arrays_are_inspected_alike(bolts, inspector):
    path = next(iter(sorted((bolts["test"] / "crack").iterdir())))
    picture = Image.open(path).convert("RGB")
    result = inspector([path, str(path), picture, np.asarray(picture)])
    assert result.table.image_score.nunique() == 1 and result.table.path[3] == "image 4"
    assert inspector(picture).table.image_score[0] == result.table.image_score[0]
    wrong = inspector([np.zeros((4, 4)), picture])
    assert "give uint8" in wrong.table.error[0] and wrong.table.image_score.notna().tolist() == [False, True]
    with pytest.raises(ValueError, match="no photograph"):
        inspector([])
    with pytest.raises(ValueError, match="does not exist"):
        inspector("nowhere")


def test_reasons_of_one_pass_are_those_of_the_verdict(bolts, inspector, backbone):
    result = inspector(bolts["test"])
    detector = study.build_detector("alfa", load_profile("mini"), backbone).prepare("bolt")
    for path, verdict, found in zip(result.table.path, result.table.verdict, result.reasons, strict=True):
        encoded = backbone.encode(backbone.preprocess([datasets.load_image(path)]))
        (expected,) = detector.explain(encoded, threshold=result.threshold)
        assert [r["prompt"] for r in found] == [r["prompt"] for r in expected]
        assert {r["side"] for r in found} == {verdict} and all(0 <= r["where"]["x"] < 96 for r in found)


def test_normal_photographs_give_a_threshold_with_a_stated_rate_of_false_alarms(bolts):
    inspector = Inspector("bolt", normal=bolts["normal"], views="whole")
    assert inspector.threshold_from == "12 left-out normals, 8 % false alarms expected"  # 1 of 13
    result = inspector(bolts["test"])
    assert result.threshold == inspector.threshold and set(result.table.threshold) == {round(inspector.threshold, 6)}
    assert (result.table.verdict == np.where(result.table.image_score >= result.threshold, "abnormal", "normal")).all()
    again = inspector(bolts["normal"])  # those in the memory
    assert (again.table.verdict == "normal").all()
    assert Inspector("bolt", normal=bolts["normal"], threshold=0.7).threshold == 0.7
    low, high = Inspector("bolt", normal=bolts["normal"], threshold=0.0).scale(0.0)
    assert low < high, "a heat map needs a range of colours"
    with pytest.raises(ValueError, match="threshold nan is not a finite number"):
        Inspector("bolt", threshold=float("nan"))
    single = Inspector("bolt", normal=sorted(bolts["normal"].iterdir())[0], views="whole")
    assert single.threshold is None and "one normal photograph" in single.notes[-1]


def test_the_threshold_is_exceeded_by_the_promised_share_of_new_normals():
    rng = np.random.default_rng(0)
    rates = []
    for _ in range(2000):
        cut, promised = threshold.of_normals(rng.normal(size=39).tolist(), 0.05)
        rates.append((rng.normal(size=50) >= cut).mean())
    assert promised == pytest.approx(0.05) and np.mean(rates) == pytest.approx(0.05, abs=0.005)
    assert threshold.of_normals([1.0, 2.0], 0.05)[1] == pytest.approx(1 / 3)  # two cannot promise more
    with pytest.raises(ValueError, match="between 0 and 1"):
        threshold.of_normals([1.0], 0.0)


def test_every_normal_photograph_is_left_out_once():
    seen = []
    threshold.leave_out(list(range(13)), lambda known, out: seen.append((set(known), out)) or [0.0] * len(out))
    assert sorted(i for _, out in seen for i in out) == list(range(13)) and not any(
        known & set(out) for known, out in seen
    )


@pytest.mark.parametrize("method", ["alfa", "winclip", "patchcore"])
def test_a_saved_inspector_says_the_same_and_holds_no_pickle(bolts, tmp_path, method):
    inspector = Inspector("bolt", normal=bolts["normal"], method=method, views="whole", roi=(4, 4, 90, 92))
    file = tmp_path / "bolt.zsad"
    inspector.save(file)
    loaded = Inspector.load(file)
    before, after = inspector(bolts["test"]), loaded(bolts["test"])
    pd.testing.assert_frame_equal(before.table, after.table)
    assert all(np.array_equal(a, b) for a, b in zip(before.maps, after.maps, strict=True))
    assert loaded.threshold == inspector.threshold and loaded.about() == inspector.about()
    with pytest.raises(Exception, match="opcode|expected|unknown|pickle|utf"):
        list(pickletools.genops(file.read_bytes()))


def test_a_file_that_is_no_inspector_is_refused_in_one_sentence(bolts, tmp_path):
    file = tmp_path / "bolt.zsad"
    Inspector("bolt", views="whole").save(file)
    about, *_ = saving.read(file)
    for name, content in (("cut", file.read_bytes()[:-20]), ("text", b"hello"), ("empty", b"")):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(ValueError, match="holds no inspector"):
            Inspector.load(tmp_path / name)
    save_file(
        load_file(file), tmp_path / "other", {"about": about.model_copy(update={"weights": "0"}).model_dump_json()}
    )
    with pytest.raises(ValueError, match="made with other weights"):
        Inspector.load(tmp_path / "other")
    with pytest.raises(ValueError, match="does not exist"):
        Inspector.load(tmp_path / "nowhere")


def test_own_sentences_decide_and_are_kept(bolts, tmp_path):
    words = {"normal_words": ["flawless {}"], "abnormal_words": ["{} with a crack", "cracked {}"]}
    inspector = Inspector("bolt", views="whole", **words)
    result = inspector(bolts["test"])
    said = {r["prompt"] for reasons in result.reasons for r in reasons}
    assert said <= {"flawless bolt", "bolt with a crack", "cracked bolt"} and len(said) > 1
    assert not np.allclose(result.table.image_score, Inspector("bolt", views="whole")(bolts["test"]).table.image_score)
    file = tmp_path / "words.json"
    file.write_text(json.dumps({"normal": words["normal_words"], "abnormal": words["abnormal_words"]}))
    pd.testing.assert_frame_equal(Inspector("bolt", prompts=file, views="whole")(bolts["test"]).table, result.table)
    one = Inspector("bolt", abnormal_words=["{} with a crack"], views="whole")
    assert one.sentences.normal[0] == "bolt" and one.sentences.abnormal == ["bolt with a crack"]
    for wrong in ("[]", "{", '{"normal": ["a good one"]}'):
        file.write_text(wrong)
        with pytest.raises(ValueError, match="holds no sentences"):
            Inspector("bolt", prompts=file)
    with pytest.raises(ValueError, match="none of the abnormal sentences"):
        Inspector("bolt", abnormal_words=["", "12"])
    with pytest.raises(ValueError, match="takes no sentences"):
        Inspector("bolt", method="winclip", abnormal_words=["bent {}"])


# ---------------------------------------------------------------------------------------------- region of interest


def scene(background):
    """A bolt on a field of some brightness: picture and mask of the bolt's square."""
    image, _ = miniad.draw("bolt", "crack", miniad.generator(3), 96)
    whole = np.full((140, 180, 3), background, np.uint8)
    whole[20:116, 40:136] = (image * 255).astype(np.uint8)
    mask = np.zeros((140, 180), bool)
    mask[30:100, 50:130] = True
    return Image.fromarray(whole), mask


def test_what_lies_outside_the_region_has_no_say(tmp_path):
    (dark, mask), (light, _) = scene(10), scene(240)
    file = tmp_path / "mask.png"
    Image.fromarray(mask).save(file)
    for roi in ((50, 30, 130, 100), file):
        result = Inspector("bolt", roi=roi, views="whole")([dark, light])
        assert result.table.image_score[0] == result.table.image_score[1]
        assert np.array_equal(*result.maps) and result.maps[0].max() > 0
        looked = np.asarray(Image.fromarray(mask).resize((192, 192), Image.NEAREST))
        assert result.maps[0][~binary_dilation(looked, iterations=4)].max() == 0  # 4: what interpolation carries over
        for reason in (r for reasons in result.reasons for r in reasons):
            assert 50 <= reason["where"]["x"] < 130 and 30 <= reason["where"]["y"] < 100
    plain = Inspector("bolt", views="whole")([dark, light]).table.image_score
    assert plain[0] != plain[1]


def test_a_region_that_does_not_fit_is_said(tmp_path):
    small = Image.new("RGB", (40, 40))
    for wrong in ((0, 0, 0, 5), (-1, 0, 5, 5), (1, 2, 3)):
        with pytest.raises(ValueError, match="no region of interest"):
            Region(wrong)
    with pytest.raises(ValueError, match="empty"):
        Region(np.zeros((4, 4), bool))
    result = Inspector("bolt", roi=(0, 0, 60, 20), views="whole")([small, Image.new("RGB", (80, 80))])
    assert "region of interest ends" in result.table.error[0] and not result.table.error[1]
    _, mask = scene(0)
    assert "40 x 40" in Inspector("bolt", roi=_saved(mask, tmp_path), views="whole")([small]).table.error[0]


def _saved(mask, folder):
    Image.fromarray(mask).save(folder / "m.png")
    return folder / "m.png"


def test_a_transparent_or_turned_photograph_has_its_map_and_place_upright(tmp_path, inspector):
    image, _ = miniad.draw("bolt", "stain", miniad.generator(7), 96)
    upright = Image.fromarray((image * 255).astype(np.uint8)).resize((120, 80))
    upright.save(tmp_path / "a.png")
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90 degrees clockwise
    upright.transpose(Image.ROTATE_90).save(tmp_path / "b.png", exif=exif)
    clear = upright.convert("RGBA")
    clear.putalpha(0)  # nothing of it is seen
    with Image.open(tmp_path / "b.png") as opened:
        result = inspector([tmp_path, opened, clear, Image.new("RGB", upright.size, "white")])
    scores = result.table.image_score
    assert scores[0] == scores[1] == scores[2] and np.array_equal(*result.maps[:2]) and scores[3] == scores[4]
    assert [r["where"] for r in result.reasons[0]] == [r["where"] for r in result.reasons[1]]


# ------------------------------------------------------------------------------------------------ partial results


def test_what_is_found_is_kept_as_it_comes_and_not_looked_at_again(bolts, tmp_path, inspector):
    images, wanted, out = photographs(bolts["test"]), Wanted(False, True, True), tmp_path / "scores.csv"
    with pytest.raises(KeyboardInterrupt), Partial(out, inspector, images, wanted) as partial:
        for i, finding in enumerate(inspector.inspect(partial.missing, wanted)):
            if i == 5:
                raise KeyboardInterrupt
            partial.add(finding)
    file = tmp_path / "scores.csv.partial"
    file.write_text(file.read_text() + '{"path": "half a li')  # killed while writing
    os.utime(images[2].path, (1, 1))  # it changed meanwhile
    with Partial(out, inspector, images, wanted, resume=True) as partial:
        assert [image.path for image in partial.missing] == [images[2].path, *(image.path for image in images[5:])]
        for finding in inspector.inspect(partial.missing, wanted):
            partial.add(finding)
        found = partial.findings()
        partial.done()
    assert not file.exists()
    straight = list(inspector.inspect(images, wanted))
    assert [f.path for f in found] == [f.path for f in straight]
    assert np.allclose([f.image_score for f in found], [f.image_score for f in straight], atol=1e-5)
    assert [f.card["thumbnail"] for f in found] == [f.card["thumbnail"] for f in straight]


def test_a_partial_file_of_another_call_is_not_mixed_in(bolts, tmp_path, inspector):
    images, wanted, out = photographs(bolts["test"]), Wanted(False, False, False), tmp_path / "scores.csv"
    with Partial(out, inspector, images, wanted):
        pass
    other = Inspector("screw", views="whole")
    for changed in ((other, wanted), (inspector, Wanted(False, True, False))):
        with pytest.raises(ValueError, match="is of another call"):
            Partial(out, changed[0], images, changed[1], resume=True)


# ------------------------------------------------------------------------------------------------- what is refused


def test_a_call_that_does_not_fit_together_says_what_to_do(bolts):
    for arguments, message in (
        ({"method": "magic"}, "unknown method 'magic'; choose one of clip-ac"),
        ({"method": "patchcore"}, "needs support images"),
        ({"method": "clip-ac", "normal": bolts["normal"]}, "zero-shot only"),
        ({"method": "musc", "normal": bolts["normal"]}, "judges a folder as a whole"),
        ({"views": "many"}, "unknown views 'many'; choose"),
        ({"bank": "nobody"}, "no prompt bank of 'nobody'"),
        ({"profile": "huge"}, "unknown profile"),
    ):
        with pytest.raises(ValueError, match=message):
            Inspector("bolt", **arguments)


def test_a_folder_can_be_judged_as_a_whole(bolts):
    result = Inspector("bolt", method="musc")(bolts["test"])
    assert result.table.image_score.notna().all() and result.maps[0].shape == (192, 192)
    report = result.scale
    assert report[0] == 0 and 0 < report[1] <= 1


def test_batches_of_photographs_give_the_scores_of_single_ones(bolts, inspector):
    several, single = inspector(bolts["test"]), Inspector("bolt", batch_size=1, views="whole")(bolts["test"])
    assert np.allclose(several.table.image_score, single.table.image_score, atol=1e-5)
    assert torch.equal(torch.tensor(several.maps[0]).isfinite(), torch.ones(192, 192, dtype=torch.bool))
