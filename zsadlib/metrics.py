"""How good a score is: image and pixel AUROC, AP and F1-max, and exact AUPRO.

All are in [0, 1], higher is better, and ties are handled exactly. F1-max picks its threshold with the labels: it is an
oracle, not a verdict.

All follow from one idea: normal scores are many and abnormal ones few, so both are sorted alone, and each abnormal score is
looked up among the normal ones. Between two abnormal scores no threshold raises recall, so AP and F1-max need no other.
"""

from dataclasses import dataclass

import numpy as np
from scipy import ndimage

EIGHT_NEIGHBOURS = np.ones((3, 3), int)


@dataclass(frozen=True)
class Ranked:
    """Abnormal scores among normal ones: ``scores`` (abnormal,) ascending, ``order`` that sorts them, and for each how many of
    the ``normal`` normal scores lie ``above`` it and how many are ``tied`` with it."""

    scores: np.ndarray
    order: np.ndarray
    above: np.ndarray
    tied: np.ndarray
    normal: int


def rank(normal, abnormal):
    """Look abnormal scores up among normal ones: ``Ranked``.

    Raises:
        ValueError: one class is empty, or a score is not finite.
    """
    if not (len(normal) and len(abnormal)):
        kind = "abnormal" if len(abnormal) else "normal"
        raise ValueError(f"all {len(normal) + len(abnormal)} labels are {kind}; a metric needs both classes")
    if not (np.isfinite(normal).all() and np.isfinite(abnormal).all()):
        raise ValueError("scores contain NaN or infinity; every score must be finite")
    normal, order = np.sort(normal), np.argsort(abnormal, kind="stable")
    scores = abnormal[order]
    low, high = (np.searchsorted(normal, scores, side) for side in ("left", "right"))
    return Ranked(scores, order, len(normal) - high, high - low, len(normal))


def _binary(ranked):
    positives, last = len(ranked.scores), np.append(np.flatnonzero(np.diff(ranked.scores)) + 1, len(ranked.scores))
    first = np.append(0, last[:-1])  # of each group of equal abnormal scores
    above, tied = ranked.above[first], ranked.tied[first]
    beaten = 2 * (ranked.normal - above - tied) + tied  # twice the normal scores below, a tie counting one half
    tp, fp = (positives - first).astype(float), (above + tied).astype(float)
    return {
        "auroc": int(np.sum((last - first) * beaten)) / (2 * positives * ranked.normal),
        "ap": float(np.sum((last - first) * (tp / (tp + fp))) / positives),
        "f1max": float(np.max(2 * tp / (tp + fp + positives))),
    }


def binary_metrics(labels, scores):
    """AUROC, average precision and F1-max.

    Args:
        labels: (n,) bool or 0/1, 1 = abnormal. scores: (n,), higher = more abnormal; finite.

    Returns:
        dict with "auroc", "ap", "f1max"; as scikit-learn's ``roc_auc_score``, ``average_precision_score`` and the maximum
        of F1 over ``precision_recall_curve``.

    Raises:
        ValueError: only one class is present, shapes differ, or a score is not finite.
    """
    labels, scores = np.asarray(labels).ravel().astype(bool), np.asarray(scores).ravel()
    if labels.shape != scores.shape:
        raise ValueError(f"{labels.size} labels but {scores.size} scores; give one score per label")
    return _binary(rank(scores[~labels], scores[labels]))


def region_shares(mask):
    """For each defective pixel of one mask 1 / (pixels of its 8-connected region), and the number of regions."""
    label, count = ndimage.label(mask, EIGHT_NEIGHBOURS)
    inside = label[mask]
    return (1 / np.bincount(inside, minlength=count + 1)[1:])[inside - 1], count


def region_weights(masks):
    """What each defective pixel counts in AUPRO: 1 / (pixels of its 8-connected region x regions); (defective pixels,)."""
    masks = np.asarray(masks, bool)
    weights, regions = [], 0
    for mask in masks[masks.any((1, 2))]:
        shares, count = region_shares(mask)
        weights.append(shares)
        regions += count
    if not regions or masks.all():
        raise ValueError("AUPRO needs defective and normal pixels")
    return np.concatenate(weights) / regions


def _aupro(ranked, weights, limit):
    low, high = ranked.above / ranked.normal, (ranked.above + ranked.tied) / ranked.normal
    width = np.maximum(high - low, 1e-300)
    area = np.where(high <= limit, limit - (low + high) / 2, np.maximum(limit - low, 0) ** 2 / (2 * width))
    return float(np.sum(weights[ranked.order] * area) / limit)


def aupro(masks, maps, limit=0.3):
    """Area under the per-region-overlap curve up to a false-positive rate of ``limit``, divided by ``limit``. Exact.

    Regions are 8-connected. With N background pixels, a foreground pixel of score s enters the curve at a
    false-positive rate in [#background > s, #background >= s] / N; a region of r pixels of R regions gives it the weight
    1 / (r R). No threshold grid, so the value depends on the ranking only.

    Args:
        masks: (n, height, width) bool. maps: (n, height, width), higher = more abnormal. limit: in (0, 1].

    Raises:
        ValueError: there is no defective pixel or no normal one, or shapes differ.
    """
    return pixel_metrics(masks, maps, limit=limit)["pixel_aupro"]


def aupro_200(masks, maps, limit=0.3):
    """AUPRO on 200 equally spaced thresholds, as most published code computes it; for comparison with its numbers only.

    It is not invariant to monotone changes of the scores: one outlier pixel stretches the grid.
    """
    masks, maps = np.asarray(masks, bool), np.asarray(maps)
    labels = [ndimage.label(mask, EIGHT_NEIGHBOURS) for mask in masks]
    regions = [(i, label == r) for i, (label, count) in enumerate(labels) for r in range(1, count + 1)]
    fpr, pro = [], []
    for threshold in np.linspace(maps.min(), maps.max(), 200):
        above = maps > threshold
        fpr.append(above[~masks].mean())
        pro.append(np.mean([above[i][region].mean() for i, region in regions]))
    fpr, pro = np.array(fpr), np.array(pro)
    keep = fpr <= limit
    order = np.argsort(fpr[keep])
    return float(np.trapezoid(pro[keep][order], fpr[keep][order] / fpr[keep].max()))


def image_metrics(labels, scores):
    """``binary_metrics`` under the names of the tables: image_auroc, image_ap, image_f1max."""
    return {f"image_{name}": value for name, value in binary_metrics(labels, scores).items()}


def pixel_metrics(masks, maps, weights=None, limit=0.3):
    """pixel_auroc, pixel_ap, pixel_f1max and pixel_aupro of maps (n, size, size) against masks of the same shape.

    ``weights``: ``region_weights(masks)``, where many maps are measured against the same masks.
    """
    masks, maps = np.asarray(masks, bool), np.asarray(maps)
    if masks.shape != maps.shape:
        raise ValueError(f"masks {masks.shape} and maps {maps.shape} differ in shape")
    weights = region_weights(masks) if weights is None else weights
    ranked = rank(maps[~masks], maps[masks])
    values = {f"pixel_{name}": value for name, value in _binary(ranked).items()}
    return values | {"pixel_aupro": _aupro(ranked, weights, limit)}
