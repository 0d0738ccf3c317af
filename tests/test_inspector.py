"""Photographs in, scores and reasons out: the same by the Python door, the command line and a saved file."""

import json
import os
import shutil
import weakref
import zipfile
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
from zsadlib.detectors.alfa import Alfa
from zsadlib.inspection import inspector as inspection
from zsadlib.inspection import photographs as photos
from zsadlib.inspection import saving, threshold
from zsadlib.inspection.inspector import Finding, Wanted
from zsadlib.inspection.partial import Partial
from zsadlib.inspection.photographs import photographs
from zsadlib.inspection.region import Region
from zsadlib.inspection.result import rows
from zsadlib.profiles import load_profile
from zsadlib.prompts import banks
from zsadlib.study import methods


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


def test_what_is_said_of_a_threshold_is_where_it_came_from(bolts, inspector, tmp_path):
    assert inspector.origin(0.5) == "the prompts alone: the batch shows no two groups"
    assert inspector.origin(0.3) == "two groups in the batch"
    assert Inspector("bolt", views="whole", threshold=0.5).origin(0.5) == "you"
    inspector(bolts["test"]).report(tmp_path / "r.html")
    page = (tmp_path / "r.html").read_text()
    assert "the prompts alone" in page and load_profile("mini").trust in page
    with pytest.raises(ValueError, match="no name"):
        Inspector(" ")


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


def test_copies_of_a_normal_photograph_count_once(bolts, tmp_path):
    """Left out in different turns, they would be no distance from each other, and every new photograph abnormal."""
    for path in bolts["normal"].iterdir():
        for name in (path.name, f"{path.stem}_copy.png"):
            shutil.copy(path, tmp_path / name)
    alone, copied = (Inspector("bolt", normal=folder) for folder in (bolts["normal"], tmp_path))
    assert copied.threshold == pytest.approx(alone.threshold, abs=2e-6) and not alone.notes
    assert copied.threshold_from == alone.threshold_from and len(copied.support.image) == 12
    assert copied.notes == ["of 24 normal photographs 12 are copies of others and are left out"]
    path = next(bolts["normal"].iterdir())
    assert Inspector("bolt", normal=[path, path]).threshold is None


def test_a_verdict_is_that_of_the_numbers_that_are_shown():
    scores = (0.1234559, 0.1234564, 0.1234566)
    made, cut = rows([Finding(str(score), score) for score in scores], 0.12345649)
    assert cut == 0.123456 and {row["threshold"] for row in made} == {cut}
    assert all((row["image_score"] >= cut) == (row["verdict"] == "abnormal") for row in made)
    for score in scores:
        above, _ = threshold.of_normals([score])
        assert rows([Finding("it", score)], above)[0][0]["verdict"] == "normal" and above - score < 2e-6


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
    content = file.read_bytes()
    end = 8 + int.from_bytes(content[:8], "little")  # safetensors: the length of a header, JSON, and plain numbers
    header = json.loads(content[8:end])
    saving.Saved.model_validate_json(header.pop("__metadata__")["about"])
    assert max(tensor["data_offsets"][1] for tensor in header.values()) == len(content) - end
    assert not zipfile.is_zipfile(file), "torch.save would write one, with a pickle in it"


@pytest.fixture
def own_bank(tmp_path, monkeypatch):
    """Records a bank "mine" among a user's own, in a new folder: a function of an object and its abnormal sentence."""
    monkeypatch.setattr(banks, "OWN", tmp_path / "prompts")

    def record(category, abnormal):
        answers = {"normal": [f"flawless {category}"], "abnormal": [abnormal]}
        return banks.save_bank(banks.Bank(llm="mine", category=category, request={}, answers=answers))

    return record


@pytest.fixture
def plan(tmp_path, monkeypatch):
    """A profile whose methods learn from three keys, as for a model that comes with no aligner."""
    write_category(tmp_path / "taught" / "key", "key", kinds=("crack",), good=2, bad=1)
    settings = load_profile("mini").model_copy(update={"development": (str(tmp_path / "taught"),)})
    (tmp_path / "plan.json").write_text(settings.model_dump_json())
    monkeypatch.setattr("zsadlib.detectors.alfa.Aligner.committed", lambda *_: None)
    monkeypatch.setattr(methods, "FITTED", tmp_path / "fitted")
    return tmp_path / "plan.json"


@pytest.mark.parametrize("method", ["alfa", "words+self-similarity"])
def test_a_saved_inspector_reads_what_it_read_whatever_becomes_of_its_bank(method, plan, bolts, own_bank, tmp_path):
    asked = {"method": method, "profile": plan, "bank": "mine", "views": "whole"}
    bank, _ = own_bank("bolt", "bolt with a crack"), own_bank("key", "bent key")  # some methods learn with its words
    inspector = Inspector("bolt", threshold=0.4, **asked)
    inspector.save(tmp_path / "bolt.zsad")
    before = inspector(bolts["test"])
    assert inspector.sentences.abnormal[-1] == "bolt with a crack"
    own_bank("bolt", "rusty bolt")
    again = Inspector("bolt", threshold=0.4, **asked)
    assert again.identity() != inspector.identity(), "what was found with other sentences is not resumed"
    for _ in ("recorded again", "gone"):
        loaded = Inspector.load(tmp_path / "bolt.zsad")
        assert loaded.notes == [] and loaded.sentences == inspector.sentences
        assert loaded.identity() == inspector.identity()
        pd.testing.assert_frame_equal(loaded(bolts["test"]).table, before.table)
        bank.unlink(missing_ok=True)


def test_what_changes_a_score_changes_the_identity(bolts, monkeypatch):
    one, other = Inspector("bolt", views="whole"), Inspector("bolt", views="whole")
    assert one.identity() == other.identity()
    other.detector.aligner.matrix[0, 0] += 1
    assert one.identity() != other.identity(), "what the method has learned"
    before, asked = one.identity(), []
    monkeypatch.setattr(inspection, "source_hash", lambda *modules: asked.extend(modules))
    assert one.identity() != before and asked == ["zsadlib.detectors.alfa", "zsadlib.inspection.inspector"]


def test_a_loaded_inspector_learns_nothing_again(plan, tmp_path, monkeypatch):
    inspector = Inspector("bolt", profile=plan, views="whole")
    inspector.save(tmp_path / "bolt.zsad")
    monkeypatch.setattr(methods, "FITTED", tmp_path / "another machine")
    monkeypatch.setattr(Alfa, "fit", lambda *_: pytest.fail("it learned again"))
    loaded = Inspector.load(tmp_path / "bolt.zsad")
    assert torch.equal(loaded.detector.aligner.matrix, inspector.detector.aligner.matrix)


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
    file.write_text(json.dumps({"normal": words["normal_words"], "abnormal": words["abnormal_words"]}))
    quoted = Inspector('5" pipe \\ left', prompts=file, views="whole")  # a name that JSON would have to escape
    assert quoted.sentences.abnormal == ['5" pipe \\ left with a crack', 'cracked 5" pipe \\ left']


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


def test_the_transparency_of_a_mask_of_the_region_says_nothing(tmp_path):
    _, mask = scene(0)
    alike = np.repeat(mask[..., None] * np.uint8(255), 4, 2)  # what is black is transparent too, as painters save it
    Image.fromarray(alike).save(tmp_path / "mask.png")
    assert np.array_equal(Region(tmp_path / "mask.png").mask, mask)


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


def test_heat_maps_in_another_folder_are_another_call(bolts, tmp_path, inspector):
    images, wanted, out = photographs(bolts["test"]), Wanted(False, False, False, print), tmp_path / "scores.csv"
    with Partial(out, inspector, images, wanted, maps=tmp_path / "maps"):
        pass
    for other in (None, tmp_path / "others"):
        with pytest.raises(ValueError, match="is of another call"):
            Partial(out, inspector, images, wanted, True, other)
    Partial(out, inspector, images, wanted, True, tmp_path / "others" / ".." / "maps")


def test_a_set_that_is_judged_as_a_whole_is_judged_anew_after_a_stop(bolts, tmp_path):
    images, wanted, out = photographs(bolts["test"]), Wanted(False, False, False), tmp_path / "scores.csv"
    inspector = Inspector("bolt", method="musc")
    straight = [finding.image_score for finding in inspector.inspect(images, wanted)]
    for left in (6, 1):
        with Partial(out, inspector, images, wanted) as partial:
            for finding in list(inspector.inspect(images, wanted))[:-left]:
                partial.add(finding)
        with Partial(out, inspector, images, wanted, resume=True) as partial:
            for finding in inspector.inspect(partial.missing, wanted):
                partial.add(finding)
            assert [finding.image_score for finding in partial.findings()] == straight
            partial.done()
    assert list(tmp_path.iterdir()) == []


# ------------------------------------------------------------------------------------------------- what is refused


def test_a_call_that_does_not_fit_together_says_what_to_do(bolts):
    for arguments, message in (
        ({"method": "magic"}, "unknown method 'magic'; choose one of clip-ac"),
        ({"method": "patchcore"}, "needs support images"),
        ({"method": "clip-ac", "normal": bolts["normal"]}, "zero-shot only"),
        ({"method": "musc", "normal": bolts["normal"]}, "judges a folder as a whole"),
        ({"views": "many"}, "unknown views 'many'; choose"),
        ({"bank": "nobody"}, "no prompt bank of 'nobody'"),
        ({"bank": "strong", "method": "winclip"}, "winclip reads no prompt bank"),
        ({"bank": "strong", "method": "patchcore", "normal": bolts["normal"]}, "patchcore reads no prompt bank"),
        ({"bank": "strong", "abnormal_words": ["bent {}"]}, "give one of them"),
        ({"profile": "huge"}, "unknown profile"),
    ):
        with pytest.raises(ValueError, match=message):
            Inspector("bolt", **arguments)
    assert Inspector("bolt", normal=bolts["normal"], bank="strong").method == "alfa"  # as with sentences


def test_a_folder_can_be_judged_as_a_whole(bolts):
    result = Inspector("bolt", method="musc")(bolts["test"])
    assert result.table.image_score.notna().all() and result.maps[0].shape == (192, 192)
    report = result.scale
    assert report[0] == 0 and 0 < report[1] <= 1


def test_batches_of_photographs_give_the_scores_of_single_ones(bolts, inspector):
    several, single = inspector(bolts["test"]), Inspector("bolt", batch_size=1, views="whole")(bolts["test"])
    assert np.allclose(several.table.image_score, single.table.image_score, atol=1e-5)
    assert torch.equal(torch.tensor(several.maps[0]).isfinite(), torch.ones(192, 192, dtype=torch.bool))


@pytest.mark.parametrize("method", ["alfa", "musc"])
def test_few_photographs_are_in_memory_at_a_time_however_many_are_asked_for(method, bolts, monkeypatch):
    """One that is read beside the model, and one whose heat map is written: each may have 89 million pixels."""
    loaded, alive, load = [], [], photos.load_image

    def watched(path):
        image = load(path)
        loaded.append(weakref.ref(image))
        alive.append(sum(one() is not None for one in loaded))
        return image

    monkeypatch.setattr(photos, "load_image", watched)
    images = [photos.Photograph(str(path)) for path in sorted(bolts["test"].rglob("*.png")) * 5]
    inspector, written = Inspector("bolt", method=method, views="whole", batch_size=16), []
    wanted = Wanted(each=lambda photograph, anomaly_map: written.append((photograph.load().size, anomaly_map.shape)))
    found = list(inspector.inspect(images, wanted))
    assert len(found) == len(written) == 60 and set(written) == {((96, 96), (192, 192))}
    assert all(one.card["thumbnail"] and one.card["map"] for one in found)
    assert max(alive) <= 2


def test_a_photograph_that_goes_before_its_heat_map_is_written_keeps_its_score(bolts, tmp_path, inspector):
    shutil.copytree(bolts["test"] / "crack", tmp_path / "crack")

    def gone(photograph, anomaly_map):
        Path(photograph.path).unlink()
        photograph.load()

    found = list(inspector.inspect(photographs(tmp_path), Wanted(each=gone)))
    assert [one.image_score for one in found] == [
        one.image_score for one in inspector.inspect(photographs(bolts["test"] / "crack"))
    ]
    assert all("does not exist" in one.error and one.card for one in found)
