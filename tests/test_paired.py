"""Intervals and differences from a table of image scores."""

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import roc_auc_score

from zsadlib.evaluation import bootstrap, paired


def table(methods, categories=("a", "b"), n=60, seeds=(0,), shots=0):
    """Scores of methods; each has a shift (how well it separates) on top of noise that all methods share."""
    rng, rows = np.random.default_rng(0), []
    for category in categories:
        label = np.arange(n) % 2
        noise = rng.normal(size=n)
        for method, shift in methods.items():
            for seed in seeds:
                score = 1 / (1 + np.exp(-(shift * label + noise + 0.01 * seed * rng.normal(size=n))))
                about = {"method": method, "dataset": "drawn", "category": category, "shots": shots, "seed": seed}
                rows.append(pd.DataFrame(about | {"label": label, "image_score": score}))
    return pd.concat(rows, ignore_index=True)


def test_means_are_those_of_scikit_learn_and_lie_in_their_interval():
    scores = table({"weak": 0.5, "strong": 2.0}, seeds=(0, 1, 2))
    found = paired.means(scores).set_index("method")
    for method, group in scores.groupby("method"):
        slow = np.mean([roc_auc_score(g.label, g.image_score) for _, g in group.groupby(["category", "seed"])])
        row = found.loc[method]
        assert row.image_auroc == pytest.approx(slow, abs=1e-12) and row.low < slow < row.high
    assert found.low["strong"] > found.high["weak"]


def test_differences_are_paired_and_of_the_same_shots():
    scores = pd.concat([table({"weak": 0.5, "same": 0.5, "strong": 0.8}), table({"weak": 1.5, "late": 3.0}, shots=2)])
    found = paired.differences(scores, "weak").set_index(["method", "shots"])
    assert set(found.index) == {("same", 0), ("strong", 0), ("late", 2)}
    assert found.loc[("same", 0)][["gain", "low", "high"]].tolist() == [0, 0, 0]  # the same scores: no noise at all
    strong, alone = found.loc[("strong", 0)], paired.means(scores).set_index(["method", "shots"]).loc[("strong", 0)]
    assert strong.low > 0 and strong.high - strong.low < 0.5 * (alone.high - alone.low)
    across = paired.differences(scores, "weak", shots=0)
    assert set(zip(across.method, across.shots, strict=True)) == {("same", 0), ("strong", 0), ("weak", 2), ("late", 2)}
    draws = paired.auroc_draws(scores)
    expected = bootstrap.difference(draws["drawn", "weak", 0], draws["drawn", "late", 2])
    assert across[across.method == "late"].gain.item() == pytest.approx(expected["gain"])


@pytest.mark.parametrize(
    ("low", "high", "said"),
    [
        (0.01, 0.03, "helps"),
        (-0.03, -0.01, "hurts"),
        (-0.01, 0.02, "no difference seen"),
        (0.0, 0.0, "no difference seen"),
    ],
)
def test_a_sentence_says_what_its_interval_says(low, high, said):
    gain = {"gain": (low + high) / 2, "low": low, "high": high, "up": 3, "of": 4}
    text = paired.sentence("a → b", gain)
    assert text.endswith(f"up in 3 of 4 categories: {said}") and f"[{100 * low:+.1f}, {100 * high:+.1f}]" in text


def test_a_tally_counts_every_outcome_once():
    gains = pd.DataFrame({"low": [0.1, -0.1, -0.2, 0.0], "high": [0.2, 0.1, -0.1, 0.1]})
    assert paired.tally(gains) == "helps: 1, no difference seen: 2, hurts: 1"
    assert paired.tally(gains[:0]) == "helps: 0, no difference seen: 0, hurts: 0"
