"""The verdict without labels that cuts a batch only where it shows two groups beyond doubt."""

import itertools
from collections import defaultdict

import numpy as np
import pytest
from scipy.special import expit, logit

from zsadlib.evaluation import verdict
from zsadlib.evaluation.verdict import batches, two_groups


def alarms(rule, n, draws, above=0.02, shapes=tuple(verdict.SHAPES)):
    """Mean shares of good images that a rule, and ``half``, call abnormal in simulated batches: dict of shape -> two shares."""
    found = defaultdict(list)
    for name, scores in batches(n, draws, above):
        if name in shapes:
            found[name].append([(scores >= rule(scores)).mean(), (scores >= 0.5).mean()])
    return {name: np.mean(shares, 0) for name, shares in found.items()}


def planted(good, bad, low=-2.0, high=2.0, spread=0.5, seed=0):
    """Scores and labels of two groups, Gaussian in log odds."""
    rng = np.random.default_rng(seed)
    x = np.concatenate([rng.normal(low, spread, good), rng.normal(high, spread, bad)])
    return expit(x), np.repeat([0, 1], [good, bad])


# ------------------------------------------------------------------------------------------------ batches without a defect


@pytest.mark.parametrize("n", [8, 20, 40, 200])
def test_good_images_of_any_shape_are_left_alone(n):
    for name, (share, halfs) in alarms(two_groups, n, 200).items():
        assert share < 0.1 and share < halfs + 0.01, name


@pytest.mark.parametrize("above", [0.1, 0.3, 0.5])
def test_good_images_that_the_prompts_misjudge_are_not_judged_worse(above):
    for name, (share, halfs) in alarms(two_groups, 40, 100, above).items():
        assert share < halfs + 0.05, name


def test_the_other_rules_cut_one_group_in_two_where_its_tails_are_heavy():
    """So the two tests above can fail."""
    mixed = alarms(verdict.mixture, 100, 5, shapes=("Student t, 3", "skewed to the left"))
    assert len(mixed) == 2 and min(share for share, _ in mixed.values()) > 0.2
    assert min(share for share, _ in alarms(verdict.otsu, 100, 20).values()) > 0.1


def test_the_parts_of_one_flat_group_are_no_two_groups():
    flat = expit(np.linspace(-3, 3, 101))
    assert two_groups(flat) == 0.5
    x = logit(np.append(flat, flat))
    low, high = x[x < 0], x[x >= 0]
    assert (high.mean() - low.mean()) / low.std() == pytest.approx(12**0.5, rel=0.02) and 12**0.5 < verdict.APART


def test_two_groups_of_good_images_are_both_good_and_of_bad_ones_both_bad():
    scores, _ = planted(40, 20, -6, -1.5, 0.3)
    assert verdict.mixture(scores) < 0.1  # it would call a third of them abnormal
    assert two_groups(scores) == two_groups(1 - scores) == 0.5


def test_simulated_batches_lie_where_they_say_and_come_again():
    drawn = list(batches(500, 4, 0.1, seed=3))
    assert {name: sum(one == name for one, _ in drawn) for name in verdict.SHAPES} == dict.fromkeys(verdict.SHAPES, 4)
    again = list(batches(500, 4, 0.1, seed=3))
    assert all((a == b).all() for (_, a), (_, b) in zip(drawn, again, strict=True))
    for name in verdict.SHAPES:
        x = logit(np.concatenate([scores for one, scores in drawn if one == name]))
        assert (x >= 0).mean() == pytest.approx(0.1, abs=0.03), name
        assert np.subtract(*np.quantile(x, [0.75, 0.25])) == pytest.approx(1.349, rel=0.1), name


# ------------------------------------------------------------------------------------------------ batches with defects


@pytest.mark.parametrize(("good", "bad"), [(19, 1), (57, 3), (60, 30), (20, 20), (8, 32)])
@pytest.mark.parametrize("by", [-1.8, -0.5, 0.5, 1.8])
def test_two_clear_groups_are_cut_between_them(good, bad, by):
    scores, labels = planted(good, bad, -2 + by, 2 + by)
    assert scores[labels == 0].max() < two_groups(scores) < scores[labels == 1].min()


@pytest.mark.parametrize("by", [-1.8, 1.8])
def test_the_cut_is_right_where_half_goes_through_a_group(by):
    scores, labels = planted(60, 30, -2 + by, 2 + by)
    own, halfs = (verdict.verdict_metrics(labels, scores, cut)["accuracy"] for cut in (two_groups(scores), 0.5))
    assert own == 1 and halfs < 0.9


@pytest.mark.parametrize("share", [0.05, 0.2, 0.5])
def test_hardly_more_defects_are_missed_than_by_half(share):
    rng, missed = np.random.default_rng(0), []
    for low, high, n in list(itertools.product((-4, -2, -0.5), (0, 1, 2), (20, 40, 200))) * 10:
        bad = round(share * n)
        good_ones, bad_ones = rng.normal(low, 0.8, n - bad), high + 1.2 * rng.standard_t(4, bad)
        cut = two_groups(expit(np.append(good_ones, bad_ones)))
        missed.append([(expit(bad_ones) < cut).mean(), (bad_ones < 0).mean()])
    own, halfs = np.mean(missed, 0)
    assert own < halfs + 0.05


def test_groups_that_overlap_are_left_to_half():
    scores, _ = planted(60, 30, -1.5, 1.5, 1.0)
    assert two_groups(scores) == 0.5 and verdict.mixture(scores) != 0.5


# ------------------------------------------------------------------------------------------------ sanity


def test_the_cut_follows_scale_and_mirror_and_forgets_the_order():
    scores, _ = planted(40, 20, -2.5, 1.0)
    cut = logit(two_groups(scores))
    assert cut < -0.3
    for scale in (0.3, 1.7):
        assert logit(two_groups(expit(scale * logit(scores)))) == pytest.approx(scale * cut)
    assert logit(two_groups(1 - scores)) == pytest.approx(-cut)
    assert two_groups(np.random.default_rng(0).permutation(scores)) == pytest.approx(expit(cut), abs=1e-12)
    assert two_groups(scores.tolist()) == two_groups(scores)


def test_more_distance_never_takes_a_cut_away():
    found = [two_groups(planted(30, 15, -distance, distance, 0.8)[0]) != 0.5 for distance in np.linspace(0.2, 5, 25)]
    assert found == sorted(found) and found[-1] and not found[0]


def test_small_batches_go_to_half():
    scores, _ = planted(15, 15, -3, 1)
    assert two_groups(scores) < 0.4
    few = scores[5 : 5 + verdict.ENOUGH]
    assert two_groups(few) < 0.4 and two_groups(few[:-1]) == 0.5
    assert two_groups([0.1, 0.9]) == two_groups([0.7]) == two_groups([]) == 0.5


@pytest.mark.filterwarnings("error")
def test_equal_and_extreme_scores_give_a_finite_threshold():
    for value in (0.0, 0.2, 0.5, 0.8, 1.0):
        assert two_groups([value] * 30) == 0.5
    assert two_groups([np.nextafter(0.5, 0)] * 15 + [np.nextafter(0.5, 1)] * 15) == 0.5
    assert 0.1 < two_groups([0.1] * 20 + [0.7] * 10) < 0.7  # no spread within: as far apart as can be
    assert 0.1 < two_groups([0.0] * 20 + [1.0] * 10) < 0.9
    rng = np.random.default_rng(0)
    for _ in range(300):
        scores = rng.choice(np.round(rng.beta(0.3, 0.3, 5), 2), rng.integers(1, 60))
        assert 0 < two_groups(scores) < 1
