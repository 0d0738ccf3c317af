"""Bootstrap, verdicts and calibration against slow readings of their definitions."""

import numpy as np
import pytest
from sklearn.metrics import accuracy_score, f1_score, roc_auc_score

from zsadlib.evaluation import bootstrap, metrics, verdict


@pytest.fixture
def category():
    """Labels, image scores, masks and maps of twelve small images."""
    rng = np.random.default_rng(3)
    labels = np.repeat([0, 1], 6)
    masks = np.zeros((12, 24, 24), bool)
    for i in range(6, 12):
        row, column = rng.integers(2, 14, 2)
        masks[i, row : row + rng.integers(2, 8), column : column + rng.integers(2, 8)] = True
        masks[i, 0, 0] = i % 2
    maps = rng.normal(size=masks.shape) + 1.2 * masks + 0.5 * rng.normal(size=(12, 1, 1))
    return labels, np.round(rng.normal(size=12) + labels, 1), masks, maps.astype(np.float32)


def test_draws_are_the_metric_on_resampled_images(category):
    labels, scores, masks, maps = category
    drawn = bootstrap.counts(labels, "bolt", 5)
    image = bootstrap.image_draws(labels, scores, "bolt", 5)
    pixel = bootstrap.pixel_draws(labels, masks, maps, "bolt", n=5)
    for row in range(6):
        chosen = np.repeat(np.arange(12), drawn[row])
        assert labels[chosen].sum() == 6 and chosen.size == 12
        assert image[row] == pytest.approx(roc_auc_score(labels[chosen], scores[chosen]), abs=1e-12)
        exact = metrics.pixel_metrics(masks[chosen], maps[chosen])
        for name, draws in pixel.items():
            assert draws[row] == pytest.approx(exact[name], abs=3e-3), name
    assert (drawn[0] == 1).all() and len({tuple(r) for r in drawn}) == 6


def test_categories_are_drawn_independently_and_need_both_classes():
    labels = np.repeat([0, 1], 30)
    a, b = (bootstrap.counts(labels, name) for name in ("bolt", "key"))
    assert (a == bootstrap.counts(labels, "bolt")).all()
    assert abs(np.corrcoef(a[1:].ravel(), b[1:].ravel())[0, 1]) < 0.05
    with pytest.raises(ValueError, match="one class"):
        bootstrap.image_draws([1, 1], [0.1, 0.2], "bolt")


def test_an_interval_surrounds_the_mean_and_shrinks_with_more_images():
    rng, widths = np.random.default_rng(0), []
    for n in (30, 480):
        sets = [(y, np.round(rng.normal(size=2 * n) + y, 1)) for y in [np.repeat([0, 1], n)] * 3]
        low, value, high = bootstrap.interval([bootstrap.image_draws(*s, str(i)) for i, s in enumerate(sets)])
        assert value == pytest.approx(np.mean([roc_auc_score(*s) for s in sets]), abs=1e-12) and low < value < high
        widths.append(high - low)
    assert widths[1] < widths[0] / 2


def test_paired_differences_are_narrower_than_unpaired_ones_and_count_signs():
    rng = np.random.default_rng(0)
    base, better = [], []
    for name, sign in zip("abcd", (1, 1, 1, -1), strict=True):
        y = np.repeat([0, 1], 60)
        hard = rng.normal(size=120) * 2 + y
        base.append(bootstrap.image_draws(y, hard, name))
        better.append(bootstrap.image_draws(y, hard + sign * 0.4 * y + 0.1 * rng.normal(size=120), name))
    found = bootstrap.difference(base, better)
    assert found["up"] == 3 and found["of"] == 4 and found["low"] < found["gain"] < found["high"]
    low, _, high = bootstrap.interval(base)
    assert found["high"] - found["low"] < 0.5 * (high - low)
    assert bootstrap.difference(base, base) == {"gain": 0, "low": 0, "high": 0, "up": 0, "of": 4}


def _batch(normal, abnormal, seed=0):
    rng = np.random.default_rng(seed)
    logits = np.concatenate([rng.normal(-2, 0.5, normal), rng.normal(1.0, 0.5, abnormal)])
    return 1 / (1 + np.exp(-logits)), np.repeat([0, 1], [normal, abnormal])


@pytest.mark.parametrize("name", ["otsu", "mixture"])
def test_a_batch_of_two_groups_is_cut_between_them(name):
    scores, labels = _batch(60, 30)
    found = verdict.verdict_metrics(labels, scores, verdict.THRESHOLDS[name](scores))
    assert found["accuracy"] > 0.98


def test_a_batch_without_defects_is_not_cut_in_two_by_the_mixture():
    scores, labels = _batch(60, 0)
    assert verdict.mixture(scores) == 0.5 and verdict.mixture(scores[:3]) == 0.5
    found = verdict.verdict_metrics(labels, scores, verdict.otsu(scores))
    assert found["false_alarms"] > 0.2  # what otsu would do
    assert np.isnan(found["missed"]) and np.isnan(found["f1"])  # nothing could be missed
    assert np.isnan(verdict.verdict_metrics([1, 1], [0.2, 0.8], 0.5)["false_alarms"])
    assert verdict.otsu([0.3, 0.3]) == 0.5 and verdict.mixture([0.3] * 10) == 0.5  # ten copies of one photograph


def test_the_mixture_cuts_where_both_groups_are_equally_likely_however_rare_one_is():
    from scipy.special import logit
    from scipy.stats import norm

    rng = np.random.default_rng(0)
    x = np.concatenate([rng.normal(-2, 0.5, 970), rng.normal(0.5, 0.5, 30)])
    cut = logit(verdict.mixture(1 / (1 + np.exp(-x))))
    fitted = verdict.GaussianMixture(2, covariance_type="tied", random_state=0, n_init=3).fit(x[:, None])
    spread = np.sqrt(fitted.covariances_[0, 0])
    likely = [w * norm.pdf(cut, m, spread) for w, m in zip(fitted.weights_, fitted.means_[:, 0], strict=True)]
    assert likely[0] == pytest.approx(likely[1], rel=1e-6) and -0.7 < cut < 0.4


def test_otsu_leaves_the_least_variance_within():
    scores, _ = _batch(20, 7, 4)
    x = np.log(scores / (1 - scores))
    within = {t: sum(part.var() * part.size for part in (x[x < t], x[x >= t]) if part.size) for t in np.sort(x)[1:]}
    cut = np.log(verdict.otsu(scores) / (1 - verdict.otsu(scores)))
    assert ((x >= cut) == (x >= min(within, key=within.get))).all()


def test_verdict_metrics_are_scikit_learns():
    rng = np.random.default_rng(1)
    labels, scores = rng.integers(0, 2, 50), rng.random(50)
    found = verdict.verdict_metrics(labels, scores, 0.4)
    assert found["accuracy"] == pytest.approx(accuracy_score(labels, scores >= 0.4))
    assert found["f1"] == pytest.approx(f1_score(labels, scores >= 0.4))
    assert found["missed"] == pytest.approx((scores < 0.4)[labels == 1].mean())
    assert found["false_alarms"] == pytest.approx((scores >= 0.4)[labels == 0].mean())


def test_a_calibrated_score_has_no_calibration_error_and_a_bold_one_has():
    rng = np.random.default_rng(0)
    truth = rng.random(200_000)
    labels = rng.random(truth.size) < truth
    assert verdict.expected_calibration_error(labels, truth) < 0.01
    assert verdict.expected_calibration_error([1, 0, 1, 0], [0.95, 0.95, 0.95, 0.95]) == pytest.approx(0.45)
    predicted, observed, number = verdict.reliability([0, 1, 1], [0.0, 1.0, 0.95])
    assert number.tolist() == [1, *[0] * 8, 2] and observed[-1] == 1 and predicted[-1] == pytest.approx(0.975)
