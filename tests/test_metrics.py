"""Metrics against scikit-learn and against slow readings of their definitions."""

import numpy as np
import pytest
from scipy import ndimage
from sklearn.metrics import average_precision_score, precision_recall_curve, roc_auc_score

from zsadlib.evaluation import metrics


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("levels", [0, 2, 7])
def test_binary_metrics_equal_scikit_learn(seed, levels):
    rng = np.random.default_rng(seed)
    labels = rng.random(200) < rng.uniform(0.05, 0.9)
    scores = rng.normal(size=200) + labels
    if levels:  # heavy ties
        scores = np.round(scores * levels) / levels
    ours = metrics.binary_metrics(labels, scores)
    precision, recall, _ = precision_recall_curve(labels, scores)
    f1 = np.nan_to_num(2 * precision * recall / np.maximum(precision + recall, 1e-300))
    assert ours["auroc"] == pytest.approx(roc_auc_score(labels, scores), abs=1e-12)
    assert ours["ap"] == pytest.approx(average_precision_score(labels, scores), abs=1e-12)
    assert ours["f1max"] == pytest.approx(f1.max(), abs=1e-12)


def slow_aupro(masks, maps, limit):
    """The definition: walk over every distinct score, integrate the mean region overlap over the false-positive rate."""
    points = [(0.0, 0.0)]
    regions = []
    for i, mask in enumerate(masks):
        label, count = ndimage.label(mask, np.ones((3, 3)))
        regions += [(i, label == r) for r in range(1, count + 1)]
    for threshold in sorted(np.unique(maps), reverse=True):
        above = maps >= threshold
        points.append((above[~masks].mean(), np.mean([above[i][region].mean() for i, region in regions])))
    area = 0.0
    for (x0, y0), (x1, y1) in zip(points, points[1:], strict=False):
        if x0 >= limit:
            break
        if x1 > limit:
            y1 = y0 + (y1 - y0) * (limit - x0) / (x1 - x0)
            x1 = limit
        area += (x1 - x0) * (y0 + y1) / 2
    return area / limit


@pytest.mark.parametrize("seed", range(10))
@pytest.mark.parametrize("levels", [0, 4])
def test_aupro_equals_its_definition(seed, levels):
    rng = np.random.default_rng(seed)
    masks = ndimage.gaussian_filter(rng.normal(size=(3, 24, 24)), (0, 2, 2)) > 0.25
    maps = rng.normal(size=masks.shape) + masks
    if levels:
        maps = np.round(maps * levels) / levels
    for limit in (0.05, 0.3, 1.0):
        assert metrics.aupro(masks, maps, limit) == pytest.approx(slow_aupro(masks, maps, limit), abs=1e-9)


@pytest.mark.parametrize("levels", [0, 4])
def test_a_set_that_is_measured_in_parts_gives_the_same(levels, monkeypatch):
    rng = np.random.default_rng(levels)
    masks = ndimage.gaussian_filter(rng.normal(size=(7, 24, 24)), (0, 2, 2)) > 0.25
    masks[2] = False
    maps = rng.normal(size=masks.shape) + masks
    maps = np.round(maps * levels) / levels if levels else maps
    whole = metrics.pixel_metrics(masks, maps)
    monkeypatch.setattr(metrics, "PIXELS", 1200)  # two images, or 75 sums, together
    assert metrics.pixel_metrics(masks, maps) == pytest.approx(whole, abs=1e-12)
    truth = metrics.Truth(masks[i : i + 1] for i in range(7))
    assert np.array_equal(truth[:], masks) and metrics.pixel_metrics(truth, maps) == pytest.approx(whole, abs=1e-12)


@pytest.mark.parametrize(
    "masks, message",
    [
        (np.zeros((0, 4, 4), bool), "at least one image"),
        (np.zeros((4, 4), bool), "height, width"),
        (np.zeros((2, 4, 4), bool), "defective and normal pixels"),
        (np.ones((2, 4, 4), bool), "both classes"),
    ],
)
def test_wrong_masks_are_refused(masks, message):
    with pytest.raises(ValueError, match=message):
        metrics.pixel_metrics(masks, np.zeros(masks.shape))


def test_aupro_depends_on_ranks_only_and_the_200_threshold_one_does_not():
    rng = np.random.default_rng(0)
    masks = np.zeros((2, 32, 32), bool)
    masks[0, 4:9, 4:9] = masks[1, 20:28, 3:9] = True
    maps = rng.random(masks.shape) + masks
    stretched = maps.copy()
    stretched[0, 0, 0] = 1e4
    plain = maps.copy()
    plain[0, 0, 0] = maps.max() + 1e-6
    assert metrics.aupro(masks, stretched) == pytest.approx(metrics.aupro(masks, plain), abs=1e-12)
    assert metrics.aupro(masks, np.exp(maps)) == pytest.approx(metrics.aupro(masks, maps), abs=1e-12)
    assert abs(metrics.aupro_200(masks, stretched) - metrics.aupro_200(masks, plain)) > 0.05
    assert metrics.aupro_200(masks, maps) == pytest.approx(metrics.aupro(masks, maps), abs=0.02)


def test_perfect_maps_score_one_and_diagonal_neighbours_are_one_region():
    masks = np.zeros((1, 8, 8), bool)
    masks[0, [1, 2, 3], [1, 2, 3]] = True
    values = metrics.pixel_metrics(masks, masks.astype(float))
    assert all(v == pytest.approx(1.0) for v in values.values())
    maps = np.zeros((1, 8, 8))
    maps[0, 1, 1] = 1  # one of three pixels of the one region found before any false positive
    found = metrics.aupro(masks, maps, 1.0)
    assert found == pytest.approx((1 / 3 + 1) / 2, abs=1e-9)


@pytest.mark.parametrize(
    ("labels", "scores", "message"),
    [([0, 0], [0.1, 0.2], "both classes"), ([1, 1], [0.1, 0.2], "both classes"), ([0, 1], [0.1, np.nan], "finite"),
     ([0, 1, 1], [0.1, 0.2], "one score per label")],
)  # fmt: skip
def test_wrong_input_is_refused(labels, scores, message):
    with pytest.raises(ValueError, match=message):
        metrics.binary_metrics(labels, scores)
    with pytest.raises(ValueError, match="needs"):
        metrics.aupro(np.zeros((1, 4, 4), bool), np.zeros((1, 4, 4)))
