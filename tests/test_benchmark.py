"""Units that resume, methods against slow readings of their definitions, and published numbers beside ours."""

import json
import types
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import write_category
from torch.nn import functional as F

from zsadlib import datasets, profiles
from zsadlib.detectors import musc
from zsadlib.detectors.base import Detector, Scores, Sees
from zsadlib.detectors.patchcore import PatchCore
from zsadlib.evaluation import published
from zsadlib.models import store
from zsadlib.models.encoded import Encoded, needs_of
from zsadlib.study import benchmark, methods, tables, units


@pytest.fixture
def settings(monkeypatch, tmp_path):
    monkeypatch.setattr(units, "UNITS", tmp_path / "units")
    return profiles.load_profile("mini").model_copy(update={"bank": "static", "draws": 2, "shots": (1, 2)})


@pytest.fixture
def bolts(tiny_category):
    return datasets.read_category(tiny_category, "bolt", "drawn")


def kept():
    return {p: p.stat().st_mtime_ns for p in units.UNITS.rglob("*.json")}


# ------------------------------------------------------------------------------------------------- units that resume


def test_a_killed_benchmark_goes_on_and_ends_as_if_nothing_had_happened(
    settings, backbone, bolts, monkeypatch, tmp_path
):
    asked = benchmark.zero_shot(settings) + benchmark.few_shot(settings)
    original, calls = units.measure, []

    def dies(*args):
        calls.append(args)
        if len(calls) > 5:
            raise KeyboardInterrupt
        return original(*args)

    monkeypatch.setattr(units, "measure", dies)
    with pytest.raises(KeyboardInterrupt):
        benchmark.evaluate(settings, backbone, [bolts], asked)
    before = kept()
    assert len(before) == 5
    monkeypatch.setattr(units, "measure", original)
    table = benchmark.evaluate(settings, backbone, [bolts], asked)
    after = kept()
    assert len(after) == len(asked) and all(after[p] == before[p] for p in before)
    assert len(table) == 7 * len(asked) and table.groupby(["method", "shots", "seed"]).size().eq(7).all()
    monkeypatch.setattr(units, "UNITS", tmp_path / "straight")
    pd.testing.assert_frame_equal(table, benchmark.evaluate(settings, backbone, [bolts], asked))


def test_published_scores_give_the_published_metrics(settings, backbone, bolts, tmp_path):
    asked = [units.Unit("clip-ac"), units.Unit("patchcore", 1, 0), units.Unit("patchcore", 1, 1)]
    table = benchmark.evaluate(settings, backbone, [bolts], asked)
    before = kept()
    scores = benchmark.image_scores(settings, backbone, [bolts], asked)
    assert kept() == before  # nothing was computed again
    for name in ("a", "b"):
        tables.save_scores(scores, tmp_path, name)
    assert (tmp_path / "a.csv.gz").read_bytes() == (tmp_path / "b.csv.gz").read_bytes()
    read = pd.read_csv(tmp_path / "a.csv.gz")
    assert len(read) == len(asked) * len(bolts.test) and read.image.nunique() == len(bolts.test)
    assert (read.label == ~read.image.str.startswith("good/")).all()
    for (method, shots, seed), group in read.groupby(["method", "shots", "seed"]):
        row = table[(table.method == method) & (table.shots == shots) & (table.seed == seed)].set_index("metric").value
        wins = [
            (a > b) + (a == b) / 2
            for a in group.image_score[group.label == 1]
            for b in group.image_score[group.label == 0]
        ]
        assert np.mean(wins) == pytest.approx(row.image_auroc, abs=1e-6)


def test_a_change_runs_again_what_it_touches_and_nothing_else(settings, backbone, bolts, tmp_path):
    asked = benchmark.zero_shot(settings) + [units.Unit("patchcore", 1)]
    benchmark.evaluate(settings, backbone, [bolts], asked)
    before = kept()

    def new(profile=settings, category=bolts):
        benchmark.evaluate(profile, backbone, [category], asked)
        fresh = {json.loads(p.read_text())["unit"]["method"] for p in kept() if p not in before}
        before.update(kept())
        return fresh

    assert new() == set()
    assert new(settings.model_copy(update={"reading": "mean"})) == {"alfa", "words+self-similarity"}
    assert new(settings.model_copy(update={"window_sizes": (2,)})) == {"winclip"}
    assert new(settings.model_copy(update={"layers": (2,)})) == {"patchcore", "musc"}
    assert new(settings.model_copy(update={"batch_size": 3})) == set()
    everything = {unit.method for unit in asked}
    assert new(category=bolts.take(4)) == everything
    assert new(category=replace(bolts, name="key")) == everything
    copied = write_category(tmp_path / "bolt")
    same = datasets.read_category(copied, "bolt", "drawn")
    assert new(category=same) == set()  # the pictures count, not where they are
    mask = next(s.mask_path for s in same.test if s.label)
    mask.write_bytes(next(s.mask_path for s in reversed(same.test) if s.label).read_bytes())
    assert new(category=same) == everything


def test_a_set_in_many_batches_is_scored_as_in_one(settings, backbone, bolts, tmp_path, monkeypatch):
    built = {m: methods.build_detector(m, settings, backbone).prepare("bolt") for m in settings.methods}
    encoded = units.encode_category(backbone, bolts, needs_of(built.values()))
    monkeypatch.setattr(store, "FOLDER", tmp_path / "embeddings")
    monkeypatch.setattr(backbone, "batch_size", 3)
    scored = units.score_category(built, bolts)
    assert set(scored) == set(built) and any(d.transductive for d in built.values())
    for method, detector in built.items():
        whole = detector.score(encoded)
        for found, expected in zip(scored[method], (whole.image, whole.map), strict=True):
            torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


def test_support_images_are_drawn_by_seed_and_nested(bolts, tmp_path):
    data = datasets.read_category(write_category(tmp_path / "bolt", train=9))
    draws = [units.draw_support(data, 4, seed) for seed in range(5)]
    assert len({tuple(d) for d in draws}) == 5 and all(len(set(d)) == 4 for d in draws)
    assert all(units.draw_support(data, 2, seed) == d[:2] for seed, d in enumerate(draws))
    with pytest.raises(ValueError, match="has 2 images in train/good; 3 shots are too many"):
        units.draw_support(bolts, 3, 0)


def test_a_detector_of_ones_own_is_fitted_and_stands_in_the_table(settings, backbone, bolts, tmp_path):
    class Trained(Detector):
        name, sees = "mine", frozenset({Sees.OTHER_PICTURES, Sees.OTHER_LABELS})

        def fit(self, categories):
            encoded = units.encode_category(self.backbone, categories[0])
            labels = torch.from_numpy(categories[0].labels).bool()
            self.direction = F.normalize(encoded.image[labels].mean(0) - encoded.image[~labels].mean(0), dim=0)
            return self

        def prepare(self, category, support=None):
            return self

        def score(self, encoded):
            projected = self.backbone.project(encoded.patches)
            return Scores(torch.sigmoid(encoded.image @ self.direction), torch.sigmoid(projected @ self.direction))

    lessons = write_category(tmp_path / "lessons" / "key", "key")
    plan = settings.model_copy(update={"development": (str(lessons.parent),)})
    table = benchmark.evaluate(plan, backbone, [bolts], [units.Unit("mine")], {"mine": Trained(backbone)})
    assert not kept()  # a class that is being written is run each time
    assert (
        set(table.sees) == {"pictures of other categories + labels of other categories"}
        and table.set_index("metric").value["image_auroc"] > 0.9
    )


# ------------------------------------------------------------------------------ methods against their definitions


def random_encoded(images=11, grid=4, width=6, blocks=(2, 3)):
    generator = torch.Generator().manual_seed(4)
    image = F.normalize(torch.randn(images, 5, generator=generator), dim=-1)
    tokens = {i: torch.randn(images, grid * grid, width, generator=generator) for i in blocks}
    return Encoded(image, tokens[blocks[-1]], {("layers", i): t for i, t in tokens.items()})


def slow_musc(encoded, layers, grid):
    """MuSc read word for word: loops over images, patches and neighbours, in float64."""
    images = len(encoded.image)
    patch_scores = np.zeros((images, grid * grid))
    for layer in layers:
        for r in (1, 3, 5):
            features = np.zeros((images, grid * grid, encoded.extra["layers", layer].shape[-1]))
            for i in range(images):
                raw = encoded.extra["layers", layer][i].double().numpy().reshape(grid, grid, -1)
                raw = (raw - raw.mean()) / np.sqrt(raw.var() + 1e-5)
                for y in range(grid):
                    for x in range(grid):
                        near = [
                            raw[v, u] if 0 <= v < grid and 0 <= u < grid else np.zeros(raw.shape[-1])
                            for v in range(y - r // 2, y + r // 2 + 1)
                            for u in range(x - r // 2, x + r // 2 + 1)
                        ]
                        pooled = np.mean(near, 0)
                        features[i, y * grid + x] = pooled / np.linalg.norm(pooled)
            for i in range(images):
                for m in range(grid * grid):
                    distances = sorted(
                        min(np.linalg.norm(features[i, m] - other) for other in features[j])
                        for j in range(images) if j != i
                    )  # fmt: skip
                    keep = max(1, int((images - 1) * 0.3))
                    patch_scores[i, m] += np.mean(distances[:keep]) / (3 * len(layers))
    raw = patch_scores.max(1)
    scaled, image, final = (raw - raw.min()) / (raw.max() - raw.min()), encoded.image.double().numpy(), []
    for k in (1, 2, 3):
        similarity = image @ image.T
        rescored = []
        for i in range(images):
            nearest = np.argsort(-similarity[i])[:k]
            weight = similarity[i][nearest]
            rescored.append((weight / weight.sum() * scaled[nearest]).sum())
        final.append(rescored)
    return np.mean(final, 0), patch_scores


def test_musc_is_its_definition():
    encoded, layers = random_encoded(), (2, 3)
    detector = musc.MuSc(types.SimpleNamespace(device="cpu"), 8, layers).prepare("bolt")
    found = detector.score(encoded)
    scores, patches = found.image, found.map
    expected, expected_patches = slow_musc(encoded, layers, 4)
    assert np.abs(scores.numpy() - expected).max() < 1e-5 and np.abs(patches.numpy() - expected_patches).max() < 1e-5
    with pytest.raises(ValueError, match="needs two or more"):
        musc.mutual_scores(encoded.extra["layers", 2][:1])
    shuffled = detector.score(encoded[[3, 1, 4, 0, 5, 9, 2, 6, 8, 7, 10]]).image
    assert torch.allclose(shuffled[[3, 1, 6, 0, 2]], scores[:5], atol=1e-5)  # the order of the set does not matter


def test_patchcore_is_the_distance_to_the_nearest_normal_patch():
    encoded = random_encoded()
    detector = PatchCore(None, 8, (2, 3)).prepare("bolt", encoded[:2])
    found = detector.score(encoded)
    scores, patches = found.image, found.map
    features = [F.normalize(encoded.extra["layers", i], dim=-1) for i in (2, 3)]
    joined = F.normalize(torch.cat(features, -1), dim=-1)
    for i in range(11):
        cosine = joined[i] @ joined[:2].flatten(0, 1).T
        assert torch.allclose(patches[i], (1 - cosine.max(1).values) / 2, atol=1e-5)
        assert scores[i] == pytest.approx(float(patches[i].max()))
    assert scores[:2].abs().max() < 1e-5 < scores[2:].min()


# ----------------------------------------------------------------------------------------------- published numbers


def test_published_values_are_found_by_method_shots_backbone_and_set():
    paper, large = profiles.load_profile("paper"), profiles.load_profile("large")
    key = {"backbone": paper.backbone, "image_size": paper.image_size}
    assert published.lookup("winclip", 0, "MVTec AD", "image_auroc", **key) == 91.8
    assert published.lookup("winclip+", 4, "VisA", "image_auroc", **key) == 87.3
    assert published.lookup("musc", 0, "MVTec AD", "image_auroc", **key) > 90
    assert np.isnan(published.lookup("alfa", 0, "MVTec AD", "image_auroc", **key))
    assert np.isnan(published.lookup("clip-ac", 0, "MVTec AD", "image_auroc", **key))
    assert published.lookup("clip-ac", 0, "MVTec AD", "image_auroc", large.backbone, large.image_size) == 71.5
    assert np.isnan(published.lookup("winclip", 0, "MiniAD seen test", "image_auroc", **key))


def test_tables_show_what_is_missing_as_missing(tmp_path):
    rows = [
        ("winclip", "nothing", d, c, 0, 0, "image_auroc", v) for d, c, v in (("VisA", "pcb1", 0.8), ("own", "a_b", 0.9))
    ]
    means = tables.summary(pd.DataFrame(rows, columns=tables.COLUMNS))
    table = published.beside(means, profiles.load_profile("paper"))
    visa, own = (table.xs(d)["image_auroc"].iloc[0] for d in ("VisA", "own"))
    assert (
        visa.ours == 80.0
        and visa.difference == pytest.approx(80.0 - visa.published)
        and own.isna().tolist() == [0, 1, 1]
    )
    published.save(table, tmp_path, "means")
    assert (
        "--" in (tmp_path / "tables/means.tex").read_text()
        and r"\begin{tabular}" in (tmp_path / "tables/means.tex").read_text()
    )
    html = published.coloured(table).to_html()
    assert html.count("–") == 2 and "background-color" in html
