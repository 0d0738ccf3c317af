"""The wordless baseline, and its sum with the words, against slow readings of their definitions."""

from copy import copy
from dataclasses import replace

import numpy as np
import pytest
import torch
from conftest import write_category
from PIL import Image
from safetensors.torch import load_file
from typer.testing import CliRunner

from zsadlib import datasets, profiles
from zsadlib.cli import app
from zsadlib.detectors.alfa import Alfa
from zsadlib.detectors.base import said
from zsadlib.detectors.self_similarity import SelfSimilarity
from zsadlib.detectors.words_and_self_similarity import WEIGHT, WordsAndSelfSimilarity
from zsadlib.models import encoded as need
from zsadlib.models import loading
from zsadlib.models.encoded import Encoded
from zsadlib.prompts import banks
from zsadlib.study import benchmark, methods, units

SUM = "words+self-similarity"


def slow_oddness(levels, neighbours=(1, 3, 9, 27)):
    """One image's oddness (places, channels) by loops, of a list of feature maps (side, side, channels)."""
    columns = []
    for level in levels:
        side = len(level)
        units = level / np.linalg.norm(level, axis=-1, keepdims=True)
        near = []
        for row, column in np.ndindex(side, side):
            far = [at for at in np.ndindex(side, side) if max(abs(at[0] - row), abs(at[1] - column)) > 1]
            near.append(sorted((float(units[at] @ units[row, column]) for at in far), reverse=True))
        columns += [[1 - np.mean(alike[:k]) for alike in near] for k in neighbours]
    return np.array(columns).T


@pytest.fixture(scope="module")
def clip_vit():
    """open_clip's own ViT family with random weights, which only a dry run may use: 7 x 7 places."""
    return loading.load_backbone("ViT-S-32-alt", pretrained=None, allow_random=True)


@pytest.fixture(scope="module")
def categories(tmp_path_factory):
    """Two small categories that teach, of unequal size."""
    root = tmp_path_factory.mktemp("lessons")
    write_category(root / "key", "key", good=4, bad=2)
    write_category(root / "bolt", "bolt", good=6, bad=2)
    return datasets.load_split([str(root)])


@pytest.fixture(scope="module")
def words(backbone):
    """ALFA with the static prompts and the committed aligner."""
    return Alfa.from_profile(profile(), backbone)


@pytest.fixture(scope="module")
def fitted(backbone, words, categories):
    return WordsAndSelfSimilarity(backbone, words).fit(categories)


def profile(**sets):
    return profiles.load_profile("mini").model_copy(update=sets | {"bank": "static", "static": False})


@pytest.fixture
def plan(tmp_path, monkeypatch):
    """A profile that learns from keys and is tested on bolts, with empty caches."""
    monkeypatch.setattr(units, "UNITS", tmp_path / "units")
    monkeypatch.setattr(methods, "FITTED", tmp_path / "fitted")
    write_category(tmp_path / "taught" / "key", "key", good=3, bad=2)
    write_category(tmp_path / "tested" / "bolt", "bolt", good=3, bad=2)
    return profile(development=(str(tmp_path / "taught"),), test=(str(tmp_path / "tested"),))


# ------------------------------------------------------------------------------------------------------------- wordless


def test_a_clip_model_is_asked_for_its_patch_tokens_as_one_level(clip_vit):
    batch = torch.randn(2, 3, clip_vit.image_size, clip_vit.image_size, generator=torch.Generator().manual_seed(0))
    encoded = clip_vit.encode(batch, need.oddness())
    found = encoded.extra["oddness", 0]
    assert found.shape == (2, clip_vit.grid**2, 4)
    for image, tokens in zip(found, encoded.patches, strict=True):
        level = tokens.double().unflatten(0, (clip_vit.grid, clip_vit.grid)).numpy()
        assert np.allclose(image, slow_oddness([level]), atol=1e-5)


def test_an_embedded_model_is_asked_for_its_frozen_levels(backbone, batch):
    found = backbone.encode(batch, need.oddness()).extra["oddness", 0]
    stem = backbone.visual.trunk.patch_embed.backbone
    with torch.no_grad():
        whole = stem(batch)
    fine, middle, coarse, own = whole.double().permute(0, 2, 3, 1).split([96, 40, 112, whole.shape[1] - 248], -1)
    assert found.shape == (3, 225, 12)
    assert np.allclose(found[1], slow_oddness([fine[1].numpy(), middle[1].numpy(), coarse[1].numpy()]), atol=1e-4)
    mean, std = (buffer[0, 248:, 0, 0] for buffer in (stem.mean, stem.std))
    assert torch.allclose(
        found.double(), (own[..., :12] * std + mean).flatten(1, 2), atol=1e-4
    )  # what the stem says itself
    before = stem.mean.clone()
    stem.mean[:, 0] += 1  # the levels are standardised before they are compared
    moved = backbone.encode(batch, need.oddness()).extra["oddness", 0]
    stem.mean.copy_(before)
    assert not torch.allclose(moved[..., :4], found[..., :4], atol=1e-3)
    assert torch.allclose(moved[..., 4:], found[..., 4:], atol=1e-6)


def test_the_score_is_the_mean_channel_and_the_images_that_of_its_oddest_places(backbone, batch, clip_vit):
    encoded = backbone.encode(batch, need.oddness())
    scores = SelfSimilarity(backbone).prepare("bolt").score(encoded)
    expected = encoded.extra["oddness", 0].double().numpy().mean(-1)
    assert np.allclose(scores.map, expected, atol=1e-6) and 0 <= scores.map.min() and scores.map.max() <= 2
    assert np.allclose(scores.image, np.sort(expected)[:, -5:].mean(1), atol=1e-6)
    few = clip_vit.encode(torch.randn(1, 3, clip_vit.image_size, clip_vit.image_size), need.oddness())
    scores = SelfSimilarity(clip_vit).prepare("bolt").score(few)
    assert torch.equal(scores.image, scores.map.amax(1))  # one of 49


@pytest.mark.parametrize(("row", "column"), [(2, 11), (7, 7), (12, 4)])
def test_one_odd_place_is_where_the_maximum_is(row, column, backbone):
    stripes = np.full((120, 120, 3), 90, np.uint8)
    stripes[:, ::4] = 140
    odd = stripes.copy()
    odd[8 * row : 8 * row + 8, 8 * column : 8 * column + 8] = (220, 30, 30)
    batch = backbone.preprocess([Image.fromarray(picture) for picture in (stripes, odd)])
    scores, maps = SelfSimilarity(backbone, backbone.grid).prepare("stripes").predict(batch)
    found = divmod(int(maps[1].argmax()), backbone.grid)
    assert max(abs(found[0] - row), abs(found[1] - column)) <= 1  # a stride of 16 pixels blurs it by half a place
    assert scores[1] > scores[0] + 0.1


def test_no_support_images(backbone, batch, fitted):
    support = backbone.encode(batch[:1], need.oddness())
    for detector in (SelfSimilarity(backbone), copy(fitted)):
        with pytest.raises(ValueError, match=f"{detector.name.replace('+', '.')} is zero-shot only"):
            detector.prepare("bolt", support)


# --------------------------------------------------------------------------------------------------------- with the words


def readings(backbone, words, category, normal=True):
    """Log odds of the words and oddness of a category's pictures, one at a time: images, then places, (n, ...) float64."""
    prepared, found = copy(words).prepare(category.noun), []
    for sample in category.test:
        if normal and sample.label:
            continue
        encoded = backbone.encode(backbone.preprocess([datasets.load_image(sample.path)]), need.oddness())
        scores, places = prepared.score(encoded), encoded.extra["oddness", 0][0].double().numpy().mean(-1)
        p, q = scores.image.double().numpy(), scores.map[0].double().numpy()
        found.append((np.log(p[0] / (1 - p[0])), np.sort(places)[-5:].mean(), np.log(q / (1 - q)), places))
    return [np.array(column) for column in zip(*found, strict=True)]


def test_what_is_learned_are_moments_of_normal_pictures_within_each_category(backbone, words, categories, fitted):
    each = [readings(backbone, words, category) for category in categories]
    assert [len(one[0]) for one in each] == [6, 4]
    expected = [
        [np.sqrt(np.mean([e[i].var() for e in each])), np.mean([e[i + 1].mean() for e in each]),
         np.sqrt(np.mean([e[i + 1].var() for e in each]))]
        for i in (0, 2)
    ]  # fmt: skip
    assert np.allclose(fitted.normals, expected, rtol=1e-3)
    good = [replace(category, test=tuple(s for s in category.test if not s.label)) for category in categories]
    again = WordsAndSelfSimilarity(backbone, words).fit(good)  # the defective ones had no say
    assert torch.allclose(again.normals, fitted.normals, rtol=1e-4)


def test_the_sum_ranks_as_two_standardised_scores_do(backbone, words, fitted, tiny_category):
    category = datasets.read_category(tiny_category)
    log_odds, odd, place_odds, places = readings(backbone, words, category, normal=False)
    (s, m, d), (ps, pm, pd) = fitted.normals.double().numpy()
    images = (log_odds / s + WEIGHT * (odd - m) / d, place_odds / ps + WEIGHT * (places - pm) / pd)
    found = units.score_category({None: copy(fitted).prepare(category.noun)}, category)[None]
    scores, patches = (part.double().numpy() for part in found)
    assert scores.argsort().tolist() == images[0].argsort().tolist() != log_odds.argsort().tolist()
    assert np.allclose(np.log(scores / (1 - scores)), s * images[0], atol=1e-3)
    assert np.allclose(np.log(patches / (1 - patches)), ps * images[1], atol=0.02)
    assert 0 <= patches.min() and patches.max() <= 1


def test_average_oddness_leaves_the_words_their_probability(backbone, words, fitted, batch):
    encoded, alfa = backbone.encode(batch), copy(words).prepare("bolt")
    for row, part in enumerate(("image", "map")):
        usual = torch.full((3, 225, 12), float(fitted.normals[row, 1]))
        made = Encoded(encoded.image, encoded.patches, {("oddness", 0): usual})
        ours, theirs = (getattr(one.score(made), part) for one in (copy(fitted).prepare("bolt"), alfa))
        assert torch.allclose(ours.float(), theirs, atol=1e-5)
        more = Encoded(encoded.image, encoded.patches, {("oddness", 0): usual + fitted.normals[row, 2]})
        odds = torch.logit(getattr(copy(fitted).prepare("bolt").score(more), part).double())
        assert torch.allclose(odds - torch.logit(ours.double()), WEIGHT * fitted.normals[row, 0].double(), atol=1e-3)


def test_images_of_an_odd_object_do_not_tie(backbone, fitted, batch):
    encoded, (s, m, d) = backbone.encode(batch[:1]), fitted.normals[0]
    usual = torch.full((2, 225, 12), float(m + 25 * d / (WEIGHT * s)))  # log odds of about 25 and a little more
    usual[1] += d
    twice = Encoded(encoded.image.expand(2, -1), encoded.patches.expand(2, -1, -1), {("oddness", 0): usual})
    first, second = copy(fitted).prepare("bolt").score(twice).image
    assert first < second < 1 and first.float() == second.float() == 1


def test_what_was_learned_is_kept_and_given_back(plan, backbone, batch):
    learned = methods.build_detector(SUM, plan, backbone)
    (file,) = methods.FITTED.iterdir()
    assert set(load_file(file)) == {"aligner", "normals"} == set(learned.weights())
    new = WordsAndSelfSimilarity.from_profile(plan, backbone)
    assert new.words.aligner is not None and new.weights() == {}  # a committed aligner alone has learned nothing here
    new.words.aligner = None
    new.load_weights(load_file(file))
    for one, two in zip(learned.prepare("bolt").predict(batch), new.prepare("bolt").predict(batch), strict=True):
        assert torch.equal(one, two)


def test_words_without_an_aligner_get_one(backbone, categories):
    bare = WordsAndSelfSimilarity(backbone, Alfa(backbone, None)).fit(categories)
    alone = Alfa(backbone, None).fit(categories)
    assert torch.equal(bare.weights()["aligner"], alone.aligner.matrix)


def test_it_learns_again_where_answers_or_the_aligner_changed(plan, backbone, monkeypatch, tmp_path):
    monkeypatch.setattr(banks, "OWN", tmp_path / "own")
    mixed = plan.model_copy(update={"bank": "gemma-3-270m", "static": True})

    def settings(which=mixed):
        return WordsAndSelfSimilarity.from_profile(which, backbone).fit_settings()

    seen = [settings(plan), settings()]
    assert settings() == seen[-1]
    bank = banks.load_bank("gemma-3-270m", "key")
    bank.answers.normal.append("a key of a new kind")
    banks.save_bank(bank)
    seen.append(settings())
    other = WordsAndSelfSimilarity.from_profile(mixed, backbone)
    other.words.aligner.matrix = other.words.aligner.matrix + 1e-3
    seen.append(other.fit_settings())
    assert all(one != two for i, one in enumerate(seen) for two in seen[:i])


def test_a_unit_is_named_by_the_answers_that_it_reads_and_how(fitted, categories, monkeypatch, tmp_path):
    monkeypatch.setattr(banks, "OWN", tmp_path / "own")
    mixed = copy(fitted)
    mixed.words = copy(fitted.words)
    mixed.words.banks = ("gemma-3-270m",)
    read = copy(mixed)
    read.words = copy(mixed.words)
    read.words.reading = "mean"
    names = [units.unit_file(units.Unit(SUM), one, categories[0]).name for one in (fitted, mixed, read)]
    bank = banks.load_bank("gemma-3-270m", categories[0].noun)
    bank.answers.normal.append("one of a new kind")
    banks.save_bank(bank)
    assert len({*names, units.unit_file(units.Unit(SUM), mixed, categories[0]).name}) == 4


def test_it_is_never_scored_on_what_taught_it(plan, backbone):
    taught, tested = (datasets.load_split(names) for names in (plan.development, plan.test))
    with pytest.raises(ValueError, match="self-similarity learned from key and cannot be scored on it"):
        methods.refuse_what_taught(WordsAndSelfSimilarity, plan, taught)
    asked = [units.Unit(SUM), units.Unit("self-similarity")]
    with pytest.raises(ValueError, match="self-similarity learned from key"):
        benchmark.evaluate(plan, backbone, taught, asked)
    table = benchmark.evaluate(plan, backbone, tested, asked)
    assert set(table.sees) == {"pictures of other categories + labels of other categories", "nothing"}
    assert {"image_auroc", "pixel_auroc", "pixel_aupro"} <= set(table.metric) and table.value.between(0, 1).all()
    methods.refuse_what_taught(SelfSimilarity, plan, taught)  # nothing taught it


def test_one_normal_picture_is_enough_and_none_is_not(backbone, words, categories, batch):
    one = replace(categories[0], test=tuple(s for s in categories[0].test if not s.label)[:1])
    none = replace(categories[0], test=tuple(sample for sample in categories[0].test if sample.label))
    assert len(one.test) == 1 and len(none.test) == 4
    alone = WordsAndSelfSimilarity(backbone, words).fit([one, none])
    assert all(bool(scores.isfinite().all()) for scores in alone.prepare("bolt").predict(batch))
    with pytest.raises(ValueError, match="learns from normal pictures of other categories, and there is none"):
        WordsAndSelfSimilarity(backbone, words).fit([none])


def test_copies_are_prepared_each_for_its_own_object(fitted):
    bolt, key = (copy(fitted).prepare(noun) for noun in ("bolt", "key"))
    assert bolt.words.ensemble.normal[0] == "bolt" and key.words.ensemble.normal[0] == "key"
    assert not hasattr(fitted.words, "ensemble")


def test_both_are_listed_with_what_they_see():
    listed = CliRunner().invoke(app, ["methods"]).output.splitlines()
    for cls in (SelfSimilarity, WordsAndSelfSimilarity):
        assert [line for line in listed if line.startswith(f"{cls.name:10} sees {said(cls.sees)}: ")]
