"""The twins: CLIP's recipe and nothing else, and captions that differ in one thing only."""

import json
import re

import numpy as np
import pytest
import torch
from conftest import stop_at_call
from safetensors.torch import load_file
from torch.nn import functional as F

from zsadlib.datasets import miniad
from zsadlib.datasets.miniad import materials
from zsadlib.models import embedded
from zsadlib.models.loading import load_backbone
from zsadlib.prompts.banks import STATIC_ABNORMAL, STATIC_NORMAL
from zsadlib.training import alt_texts, captions, pictures, scenes, twins
from zsadlib.training.pictures import GROUP, STATES

DOSES = sorted(embedded.DOSES)


def fact(state="good", **others):
    """What the generator knows of a picture that is plain in all."""
    plain = {"object": "button", "colour": "red", "ground": "white", "view": "whole", "film": "colour", "even": True}
    return plain | {"sharp": True, "contrast": "normal", "light": "normal", "state": state} | others


@pytest.fixture(scope="module")
def photographs():
    try:
        return materials.folder()
    except OSError as error:
        pytest.skip(f"no network and no copy of the materials: {error}")


# --------------------------------------------------------------------------------------------------------------- captions


def state_words(state):
    """Regular expression of the words that a caption may use for a state."""
    phrases = alt_texts.NORMAL if state == "good" else [*alt_texts.ABNORMAL, *captions.KINDS[state]]
    return "|".join(".+?".join(re.escape(part.strip()) for part in phrase.split("{}")) for phrase in phrases)


@pytest.mark.parametrize(("state", "share"), [("scratch", 1.0), ("burn", 1.0), ("good", alt_texts.INTACT)])
def test_the_dose_is_the_share_of_captions_that_speak_of_the_state(state, share):
    silent = [alt_texts.caption(0, i, fact(state), 0.0) for i in range(2000)]
    spoken = []
    for dose in DOSES:
        said = [alt_texts.caption(0, i, fact(state), dose) for i in range(2000)]
        changed = np.array([a != b for a, b in zip(said, silent, strict=True)])
        assert changed.mean() == pytest.approx(dose * share, abs=0.03)
        assert all(re.search(state_words(state), said[i]) for i in np.flatnonzero(changed))
        spoken.append(set(np.flatnonzero(changed)))
    assert spoken[0] < spoken[1] < spoken[2]  # who speaks at a small dose speaks at a large one


def test_a_caption_differs_between_doses_in_nothing_but_the_state():
    rng = np.random.default_rng(0)
    for i in range(300):
        kind = STATES[rng.integers(len(STATES))]
        low, high = (alt_texts.caption(1, i, fact(kind), dose) for dose in (0.0, 1.0 if kind != "good" else 2.5))
        words = [word for word in re.findall(r"\w+", low) if word not in ("a", "an", "the", "this")]
        rest = iter(re.findall(r"\w+", high))
        assert all(word in rest for word in words), (low, high)  # in the same order


def test_winclips_static_phrases_were_never_read():
    static = {*STATIC_NORMAL, *STATIC_ABNORMAL}
    assert not static & {*alt_texts.NORMAL, *alt_texts.ABNORMAL}
    for state in ("good", "scratch", "chip"):
        for i in range(500):
            text = alt_texts.caption(2, i, fact(state), 1.0)
            assert not re.search(r"\b(flawless|perfect|unblemished|damaged)\b|with(out)? (flaw|defect|damage)\b", text)


def test_what_the_camera_did_is_what_the_caption_says():
    said = " / ".join(alt_texts.caption(3, i, fact(view="close", light="dark", sharp=False), 0.0) for i in range(300))
    assert "close-up" in said and "dark" in said and "blurry" in said and "red" in said and "plastic" in said
    assert not re.search(r"\b(full|bright|sharp|black and white|monochrome)\b", said)
    grey = " / ".join(alt_texts.caption(3, i, fact(film="grey"), 0.0) for i in range(300))
    assert "monochrome" in grey and "red" not in grey  # nobody sees the colour on a grey photograph
    assert set(alt_texts.MADE_OF) == set(miniad.split_names("training"))


# --------------------------------------------------------------------------------------------------------------- pictures


def test_one_framing_rule_for_damaged_and_intact_pictures(photographs, monkeypatch):
    """Each of the four photographs has a place to keep in view, drawn alike; half show it without its defect."""
    seen = []

    def photograph(rng, image, mask):
        seen.append((image.copy(), mask.copy()))
        return np.zeros((4, 4, 3), np.uint8), {}

    monkeypatch.setattr(scenes, "photograph", photograph)
    for index in range(4):
        seen.clear()
        _, facts = scenes.draw_scene(0, index)
        assert [f["state"] == "good" for f in facts] == [True, True, False, False]
        assert all(mask.any() for _, mask in seen) and len({mask.tobytes() for _, mask in seen}) == GROUP
        (a, _), (b, _), (c, mask), (d, _) = seen
        assert np.array_equal(a, b) and not np.array_equal(a, c) and not np.array_equal(a, d)
        assert np.abs(c - a).mean(2)[mask].mean() > 0.02


def test_the_frame_keeps_the_place_in_view():
    rng, mask = np.random.default_rng(0), np.zeros((100, 100), bool)
    mask[70:90, 60:80] = True
    found = [pictures.framed(rng, mask) for _ in range(200)]
    assert all(mask[window].sum() >= 0.6 * mask.sum() for window, _ in found)
    assert min(share for _, share in found) < 0.4 and max(share for _, share in found) == 1.0


def test_facts_are_true_of_the_pictures(photographs):
    number = 0
    for index in range(12):
        images, facts = scenes.draw_scene(1, index)
        assert len(images) == len(facts) == GROUP
        for image, about in zip(images, facts, strict=True):
            assert image.shape == (embedded.IMAGE_SIZE, embedded.IMAGE_SIZE, 3) and image.dtype == np.uint8
            if about["film"] == "grey":
                number += 1
                assert np.ptp(image.astype(int), axis=2).max() <= 1
            brightness = image.mean() / 255
            assert {"dark": brightness < 0.32, "bright": brightness > 0.63}.get(
                about["light"], 0.28 < brightness < 0.67
            )
            assert json.loads(json.dumps(about)) == about and "mask" not in about
    assert number


def test_colours_have_the_names_that_people_give_them():
    for name, rgb in (
        ("red", (0.8, 0.1, 0.1)),
        ("black", (0.05, 0.06, 0.05)),
        ("blue", (0.1, 0.2, 0.8)),
        ("grey", (0.55, 0.54, 0.55)),
    ):
        assert scenes.colour_name(np.tile(rgb, (50, 1))) == name
    assert scenes.colour_name(np.array([[0.8, 0.1, 0.1]] * 60 + [[0.1, 0.1, 0.9]] * 40)) == "red"  # the median


# --------------------------------------------------------------------------------------------------------------- training


def test_the_loss_is_clips():
    generator = torch.Generator().manual_seed(0)
    image, text = (F.normalize(torch.randn(5, 8, generator=generator), dim=-1) for _ in range(2))
    cosine = (image @ text.T).double().numpy()
    slow = 0
    for i in range(5):
        row, column = np.exp(7 * cosine[i]), np.exp(7 * cosine[:, i])
        slow -= (np.log(row[i] / row.sum()) + np.log(column[i] / column.sum())) / 10
    assert float(twins.contrastive_loss(image, text, 7.0)) == pytest.approx(slow, rel=1e-5)


def test_dropped_patches_leave_the_class_token_and_the_rest():
    backbone = load_backbone(embedded.TWIN, "", allow_random=True)
    features = torch.randn(
        2, embedded.FROZEN_CHANNELS, embedded.GRID, embedded.GRID, generator=torch.Generator().manual_seed(0)
    )
    with torch.no_grad():
        whole = twins.embed_images(backbone.visual, features)
        every = twins.embed_images(backbone.visual, features, torch.arange(embedded.GRID**2))
        some = twins.embed_images(backbone.visual, features, torch.arange(0, embedded.GRID**2, 2))
    assert torch.allclose(whole, every, atol=1e-6) and not torch.allclose(whole, some, atol=1e-4)


def test_a_stopped_training_continues_as_if_it_had_not_been_stopped(tmp_path, photographs, monkeypatch):
    settings = {"scenes": 6, "steps": 4, "whole": 1, "batch": 8, "every": 1}
    monkeypatch.setattr(twins, "TOKENS", 20)
    (tmp_path / "a").mkdir(), (tmp_path / "b").mkdir()
    whole = twins.train(tmp_path / "work", 0.3, tmp_path / "a", **settings)
    (tmp_path / "work" / "twin-state-30.pt").unlink()  # the same pictures, and another start
    calls = stop_at_call(monkeypatch, twins, "contrastive_loss", 3)
    with pytest.raises(KeyboardInterrupt):
        twins.train(tmp_path / "work", 0.3, tmp_path / "b", **settings)
    assert not list((tmp_path / "b").iterdir())
    resumed = twins.train(tmp_path / "work", 0.3, tmp_path / "b", **settings)
    assert len(calls) == 5 and resumed.step.tolist() == [1, 2, 3, 4]  # two steps before the stop, two after
    assert np.allclose(resumed.loss, whole.loss, rtol=1e-3)
    for name in ("zsad-twin-state-30.safetensors", "lite0.safetensors"):
        a, b = (load_file(tmp_path / folder / name) for folder in "ab")
        assert a.keys() == b.keys() and all(torch.allclose(a[k].float(), b[k].float(), atol=2e-3, rtol=1e-2) for k in a)
