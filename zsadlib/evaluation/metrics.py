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
PIXELS = 2**22  # that are sorted together


def _slices(number, size=1):
    """Slices of ``number`` things of ``size`` pixels each, that have at most about ``PIXELS`` together."""
    step = max(1, PIXELS // size)
    return [slice(start, start + step) for start in range(0, number, step)]


@dataclass(frozen=True)
class Ranked:
    """Abnormal scores among normal ones: ``scores`` (abnormal,) ascending, ``order`` that sorts them, and for each how many of
    the ``normal`` normal scores lie ``above`` it and how many are ``tied`` with it."""

    scores: np.ndarray
    order: np.ndarray
    above: np.ndarray
    tied: np.ndarray
    normal: int


def rank(normals, abnormal):
    """Look abnormal scores up among normal ones: ``Ranked``.

    Args:
        normals: iterable of arrays, so that normal scores need not be in memory together. abnormal: (abnormal,).

    Raises:
        ValueError: one class is empty, or a score is not finite.
    """
    order = np.argsort(abnormal, kind="stable")
    scores = abnormal[order]
    above, tied, count = np.zeros(len(scores), int), np.zeros(len(scores), int), 0
    finite = np.isfinite(scores).all()
    for part in normals:
        part = np.sort(part)
        finite = finite and np.isfinite(part[-1:]).all() and np.isfinite(part[:1]).all()  # NaN sorts last
        above += len(part)
        above -= (high := np.searchsorted(part, scores, "right"))
        tied += high
        tied -= np.searchsorted(part, scores)
        count += len(part)
    if not (count and len(scores)):
        kind = "abnormal" if len(scores) else "normal"
        raise ValueError(f"all {count + len(scores)} labels are {kind}; a metric needs both classes")
    if not finite:
        raise ValueError("scores contain NaN or infinity; every score must be finite")
    return Ranked(scores, order, above, tied, count)


def _binary(ranked):
    positives, beaten, ap, f1max = len(ranked.scores), 0, 0.0, 0.0
    for rows in _slices(positives, 16):  # in small parts: a dozen temporary arrays
        first = np.searchsorted(ranked.scores, ranked.scores[rows])  # of the abnormal scores equal to each
        above, tied = ranked.above[rows], ranked.tied[rows]
        # twice the normal scores below, a tie counting one half
        beaten += int(np.sum(2 * (ranked.normal - above) - tied))
        tp, fp = positives - first, above + tied
        ap += float(np.sum(tp / (tp + fp)))
        f1max = max(f1max, float(np.max(2 * tp / (tp + fp + positives))))
    return {"auroc": beaten / (2 * positives * ranked.normal), "ap": ap / positives, "f1max": f1max}


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
    return _binary(rank([scores[~labels]], scores[labels]))


def region_shares(mask):
    """For each defective pixel of one mask 1 / (pixels of its 8-connected region), and the number of regions."""
    label, count = ndimage.label(mask, EIGHT_NEIGHBOURS)
    inside = label[mask]
    return (1 / np.bincount(inside, minlength=count + 1)[1:])[inside - 1], count


class Truth:
    """Ground truth of many images in little memory: masks as bits, and what each defective pixel counts in AUPRO.

    Args:
        masks: iterable of bool arrays (n, height, width), such as parts of a set, in order.

    Attributes:
        shape: (height, width). weights: (defective pixels,), 1 / (pixels of its 8-connected region x regions), in order.

    Raises:
        ValueError: there is no mask, or sizes differ.
    """

    def __init__(self, masks):
        self._bits, weights, regions = [], [], 0
        for part in masks:
            for mask in np.asarray(part, bool):
                self.shape = mask.shape if not self._bits else self.shape
                if mask.ndim != 2 or mask.shape != self.shape:
                    raise ValueError(
                        f"masks must be (n, height, width), all of one size; there is one of shape {mask.shape}"
                    )
                self._bits.append(np.packbits(mask))
                if mask.any():
                    shares, count = region_shares(mask)
                    weights.append(shares)
                    regions += count
        if not self._bits:
            raise ValueError("there is no mask; pixel metrics need at least one image")
        self.weights = np.concatenate(weights) / regions if regions else np.zeros(0)

    def __len__(self):
        return len(self._bits)

    def __getitem__(self, rows):
        """Masks (rows, height, width), bool, of a slice."""
        bits, pixels = np.stack(self._bits[rows]), self.shape[0] * self.shape[1]
        return np.unpackbits(bits, axis=1, count=pixels).view(bool).reshape(-1, *self.shape)


def _aupro(ranked, weights, limit):
    total = 0.0
    for rows in _slices(len(ranked.scores), 16):
        low, width = ranked.above[rows] / ranked.normal, ranked.tied[rows] / ranked.normal
        # the share of a tie's step that lies below the limit
        below = np.clip((limit - low) / np.maximum(width, 1e-300), 0, 1)
        total += float(np.sum(weights[ranked.order[rows]] * below * (limit - low - below * width / 2)))
    return total / limit


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
    return pixel_metrics(masks, maps, limit)["pixel_aupro"]


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


def pixel_metrics(masks, maps, limit=0.3):
    """pixel_auroc, pixel_ap, pixel_f1max and pixel_aupro, exact, from one ranking.

    Args:
        masks: (n, height, width) bool, or a ``Truth`` (to find its regions once for many maps). maps: an array of that shape,
            or what gives one for a slice of images (``aligner.Upsampled``), so that not all are in memory at a time.

    Raises:
        ValueError: there is no defective pixel or no normal one, shapes differ, or a score is not finite.
    """
    truth = masks if isinstance(masks, Truth) else Truth([masks])
    if (len(truth), *truth.shape) != tuple(maps.shape):
        raise ValueError(f"masks {(len(truth), *truth.shape)} and maps {tuple(maps.shape)} differ in shape")
    if not len(truth.weights):
        raise ValueError("no mask has a defect; a pixel metric needs defective and normal pixels")
    slices = _slices(len(truth), truth.shape[0] * truth.shape[1])
    abnormal = np.concatenate([np.asarray(maps[rows])[truth[rows]] for rows in slices])
    ranked = rank((np.asarray(maps[rows])[~truth[rows]] for rows in slices), abnormal)
    values = {f"pixel_{name}": value for name, value in _binary(ranked).items()}
    return values | {"pixel_aupro": _aupro(ranked, truth.weights, limit)}
