"""How good a score is: image and pixel AUROC, AP and F1-max, and exact AUPRO.

All are in [0, 1], higher is better, and ties are handled exactly. F1-max picks its threshold with the labels: it is an
oracle, not a verdict.
"""

import numpy as np
from scipy import ndimage

EIGHT_NEIGHBOURS = np.ones((3, 3), int)


def binary_metrics(labels, scores):
    """AUROC, average precision and F1-max from one sort.

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
    if not np.isfinite(scores).all():
        raise ValueError("scores contain NaN or infinity; every score must be finite")
    positives, n = int(labels.sum()), labels.size
    if positives in (0, n):
        raise ValueError(f"all {n} labels are {'abnormal' if positives else 'normal'}; a metric needs both classes")
    order = np.argsort(-scores, kind="stable")
    ranked = scores[order]
    last = np.append(np.flatnonzero(ranked[1:] != ranked[:-1]), n - 1)  # last place of each group of ties
    tp = np.cumsum(labels[order])[last].astype(np.float64)
    fp = last + 1 - tp
    tp0, fp0 = np.append(0, tp), np.append(0, fp)
    auroc = np.sum(np.diff(fp0) * (tp0[1:] + tp0[:-1]) / 2) / (positives * (n - positives))
    precision = tp / (tp + fp)
    return {
        "auroc": float(auroc),
        "ap": float(np.sum(np.diff(tp0) * precision) / positives),
        "f1max": float(np.max(2 * tp / (tp + fp + positives))),
    }


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
    masks, maps = np.asarray(masks, bool), np.asarray(maps)
    if masks.shape != maps.shape:
        raise ValueError(f"masks {masks.shape} and maps {maps.shape} differ in shape")
    if not masks.any() or masks.all():
        raise ValueError("AUPRO needs defective and normal pixels")
    background = np.sort(maps[~masks])
    weights = np.zeros(int(masks.sum()))
    scores, regions, start = [], 0, 0
    for mask, anomaly_map in zip(masks, maps, strict=True):
        if not mask.any():
            continue
        label, count = ndimage.label(mask, EIGHT_NEIGHBOURS)
        inside = label[mask]
        weights[start : start + inside.size] = (1 / np.bincount(inside, minlength=count + 1)[1:])[inside - 1]
        scores.append(anomaly_map[mask])
        regions, start = regions + count, start + inside.size
    scores = np.concatenate(scores)
    total = background.size
    low = (total - np.searchsorted(background, scores, "right")) / total
    high = (total - np.searchsorted(background, scores, "left")) / total
    width = np.maximum(high - low, 1e-300)
    area = np.where(high <= limit, limit - (low + high) / 2, np.maximum(limit - low, 0) ** 2 / (2 * width))
    return float(np.sum(weights * area) / regions / limit)


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


def pixel_metrics(masks, maps):
    """pixel_auroc, pixel_ap, pixel_f1max and pixel_aupro of maps (n, size, size) against masks of the same shape."""
    values = {f"pixel_{name}": value for name, value in binary_metrics(masks, maps).items()}
    return values | {"pixel_aupro": aupro(masks, maps)}
