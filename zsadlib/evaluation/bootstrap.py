"""Is a difference real? Paired bootstrap over images, and sign counts over categories.

Every method is scored on the same resamples: images are drawn with replacement within each category and class, and a
method's *draws* are its metric on each of them. ``draws[0]`` is the metric on the images as they are. Differences of draws
are paired, so what makes an image hard for all methods cancels out. Categories are taken as they are: an interval speaks of
other images of these categories, not of other categories (the sign counts do, weakly).
"""

import numpy as np

from zsadlib.evaluation.metrics import region_shares

DRAWS = 400
BINS = 1000  # score levels of the pixel metrics' draws: finer than their own noise


def counts(labels, name, n=DRAWS):
    """How often each image is drawn: (n + 1, images), the first row all ones. Sizes of both classes are kept.

    Args:
        labels: (images,), 1 = abnormal. name: of the category; it seeds the draws, so that all methods share them and no two
            categories do.

    Raises:
        ValueError: only one class is present.
    """
    labels, rng = np.asarray(labels).astype(bool), np.random.default_rng(list(name.encode()))
    if len(set(labels.tolist())) < 2:
        raise ValueError(f"all {labels.size} images of '{name}' are of one class; a bootstrap of AUROC needs both")
    drawn = np.ones((n + 1, labels.size), np.int64)
    for side in (labels, ~labels):
        size = int(side.sum())
        drawn[1:, side] = rng.multinomial(size, np.full(size, 1 / size), n)
    return drawn


def image_draws(labels, scores, name, n=DRAWS):
    """Image AUROC of one category on every resample: (n + 1,)."""
    labels, scores = np.asarray(labels).astype(bool), np.asarray(scores)
    drawn = counts(labels, name, n).astype(float)
    abnormal, normal = scores[labels][:, None], scores[~labels][None]
    wins = (abnormal > normal) + 0.5 * (abnormal == normal)
    return np.einsum("da,an,dn->d", drawn[:, labels], wins, drawn[:, ~labels], optimize=True) / wins.size


def _histograms(masks, maps):
    """Per image and score level, highest first: background pixels, defective pixels, and regions (each of weight one)."""
    ordered = np.sort(maps, axis=None)
    edges = np.unique(ordered[np.linspace(0, ordered.size - 1, BINS + 1)[1:-1].round().astype(int)])
    size = edges.size + 1
    background, defective, regions, number = [], [], [], []
    for mask, values in zip(masks, maps, strict=True):
        shares, count = region_shares(mask)
        at = edges.size - np.searchsorted(edges, values[mask])
        lower = np.searchsorted(
            np.sort(values[~mask]), edges, "right"
        )  # how many are at most this: they are many, edges few
        background.append(np.diff(lower, prepend=0, append=(~mask).sum())[::-1])
        defective.append(np.bincount(at, minlength=size))
        regions.append(np.bincount(at, shares, minlength=size))
        number.append(count)
    return [np.stack(h).astype(float) for h in (background, defective, regions)] + [np.array(number, float)]


def pixel_draws(labels, masks, maps, name, limit=0.3, n=DRAWS):
    """Pixel AUROC and AUPRO of one category on every resample of its images.

    Scores are binned to ``BINS`` quantile levels, and pixels of one level count as tied: the first draw differs from the
    exact metric by about 1e-3, the same way for all draws.

    Args:
        labels: (images,). masks: (images, height, width) bool. maps: same shape. name: of the category.
        limit: false-positive rate of AUPRO.

    Returns:
        dict with "pixel_auroc" and "pixel_aupro", each (n + 1,).
    """
    drawn = counts(labels, name, n).astype(float)
    background, defective, regions, number = _histograms(np.asarray(masks, bool), np.asarray(maps))

    def curve(histogram):
        total = np.cumsum(drawn @ histogram, 1)
        return np.pad(total, ((0, 0), (1, 0)))

    fpr, tpr, pro = curve(background), curve(defective), curve(regions)
    fpr, tpr, pro = fpr / fpr[:, -1:], tpr / tpr[:, -1:], pro / (drawn @ number)[:, None]
    auroc = np.sum(np.diff(fpr) * (tpr[:, 1:] + tpr[:, :-1]) / 2, 1)
    below, width = np.minimum(fpr, limit), np.maximum(np.diff(fpr), 1e-12)
    share = np.diff(below) / width  # how much of each step lies left of the limit
    height = pro[:, :-1] + np.diff(pro) * share / 2
    return {"pixel_auroc": auroc, "pixel_aupro": np.sum(np.diff(below) * height, 1) / limit}


def interval(draws, level=0.95):
    """Mean over categories and its percentile interval: low, value, high. ``draws``: (categories, n + 1)."""
    means = np.mean(np.asarray(draws), 0)
    low, high = np.quantile(means[1:], [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(means[0]), float(high)


def bounds(draws, level=0.95):
    """``interval`` as the columns of a table: a dict of value, low and high."""
    low, value, high = interval(draws, level)
    return {"value": value, "low": low, "high": high}


def difference(base, other, level=0.95):
    """What ``other`` gains over ``base``: a dict with the mean difference, its interval, and in how many categories it is up.

    Args:
        base, other: (categories, n + 1) draws of the same categories, made with the same names on the same images.
    """
    gain = np.asarray(other) - np.asarray(base)
    low, value, high = interval(gain, level)
    return {"gain": value, "low": low, "high": high, "up": int((gain[:, 0] > 0).sum()), "of": len(gain)}
