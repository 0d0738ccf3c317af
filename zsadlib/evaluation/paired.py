"""Means with intervals, and differences in pairs, from a table of image scores (``study.image_scores``, ``scores.csv.gz``)."""

import numpy as np
import pandas as pd

from zsadlib.evaluation import bootstrap


def auroc_draws(scores):
    """Bootstrap draws of image AUROC: dict of (dataset, method, shots) -> (categories, draws + 1), categories in one order.

    Where a method was run with several draws of support images, its AUROC is their mean on each resample.

    Args:
        scores: columns method, dataset, category, shots, seed, label, image_score; the images of a category in one order.
    """
    found = {}
    for (dataset, method, shots), group in scores.groupby(["dataset", "method", "shots"], sort=False):
        found[dataset, method, shots] = np.stack(
            [
                np.mean([bootstrap.image_draws(one.label, one.image_score, name) for _, one in own.groupby("seed")], 0)
                for name, own in group.groupby("category")
            ]
        )
    return found


def means(scores):
    """Mean image AUROC over categories with its 95 % interval: columns dataset, method, shots, image_auroc, low, high."""
    rows = []
    for key, draws in auroc_draws(scores).items():
        low, value, high = bootstrap.interval(draws)
        rows.append((*key, value, low, high))
    return pd.DataFrame(rows, columns=["dataset", "method", "shots", "image_auroc", "low", "high"])


def differences(scores, base, shots=None):
    """What every method gains over the method ``base`` on the same images: columns dataset, method, shots and those of
    ``bootstrap.difference``.

    Args:
        shots: of ``base``; None compares at the same number of shots, and methods without such a partner are left out.
    """
    draws, rows = auroc_draws(scores), []
    for (dataset, method, own), other in draws.items():
        start = draws.get((dataset, base, own if shots is None else shots))
        if start is not None and start is not other:
            rows.append({"dataset": dataset, "method": method, "shots": own} | bootstrap.difference(start, other))
    return pd.DataFrame(rows)


def outcome(low, high):
    """What an interval of a difference says: "helps", "hurts", or "no difference seen" where zero is inside."""
    return "helps" if low > 0 else "hurts" if high < 0 else "no difference seen"


def tally(gains):
    """How many differences of a table (columns low, high) have each ``outcome``, in words."""
    outcomes = [outcome(row.low, row.high) for row in gains.itertuples()]
    return ", ".join(f"{name}: {outcomes.count(name)}" for name in ("helps", "no difference seen", "hurts"))


def sentence(what, gain):
    """A difference in words: ``what``, its value and interval in points, in how many categories it is up, and the verdict.

    Args:
        gain: a mapping with gain, low, high (shares of one), up and of, such as ``bootstrap.difference`` gives.
    """
    value, low, high = (100 * gain[key] for key in ("gain", "low", "high"))
    said = outcome(gain["low"], gain["high"])
    return f"{what}: {value:+.1f} [{low:+.1f}, {high:+.1f}], up in {gain['up']} of {gain['of']} categories: {said}"
