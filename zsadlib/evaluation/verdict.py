"""A verdict without labels, and whether the score can be read as a probability.

The F1-max of published tables picks its threshold with the labels of the test images. Here are thresholds that a user can
have: from the prompts and the image alone (``half``), or from the unlabelled scores of a batch (``otsu``, ``mixture``,
``two_groups``). Which one a profile uses was decided on development categories, with the seen test
categories in view (notebook 8). (All are this project's; the paper reports
none.) ``batches`` simulates scores of good images only, on which a rule that sees groups everywhere gives itself away.
"""

import numpy as np
from scipy import stats
from scipy.special import expit, logit
from sklearn.metrics import precision_recall_curve
from sklearn.mixture import GaussianMixture

BINS = 10
SMALLEST_BATCH = 8
ENOUGH = 20  # images: in fewer, one group falls apart too often by chance
APART = 4.5  # standard deviations
# Of the log odds of good images, for ``batches``: symmetric and skewed, with light tails and heavy ones.
SHAPES = {
    "Gaussian": stats.norm, "uniform": stats.uniform, "skewed to the right": stats.skewnorm(4),
    "skewed to the left": stats.skewnorm(-4), "exponential": stats.expon, "lognormal": stats.lognorm(1),
    "Student t, 4": stats.t(4), "Student t, 3": stats.t(3), "Student t, 2": stats.t(2),
}  # fmt: skip


def logits(scores):
    """Log odds of scores in [0, 1], clipped to +-13.8."""
    return logit(np.clip(np.asarray(scores, np.float64), 1e-6, 1 - 1e-6))


def half(scores):
    """0.5: the image is closer to the abnormal prompts than to the normal ones. Needs no other image."""
    return 0.5


def otsu(scores):
    """The cut of the batch's logits that leaves the least variance within its two parts (Otsu, 1979)."""
    x = np.sort(logits(scores))
    if x[0] == x[-1]:
        return 0.5
    n = np.arange(1, x.size)
    left, total = np.cumsum(x)[:-1], x.sum()
    between = (left / n - (total - left) / (x.size - n)) ** 2 * n * (x.size - n)
    best = int(np.argmax(between))
    return float(expit((x[best] + x[best + 1]) / 2))


def mixture(scores):
    """Where two Gaussians of equal variance, fitted to the batch's logits, are equally likely; ``half`` where one fits better.

    The Bayesian information criterion decides between one and two. One group that is skewed or has heavy tails looks like two to
    it, so batches without any defect are cut as well (notebook 8). Fewer than ``SMALLEST_BATCH`` images are left to ``half``.
    """
    x = logits(scores)[:, None]
    if len(x) < SMALLEST_BATCH:
        return half(scores)
    one, two = (GaussianMixture(k, covariance_type="tied", random_state=0, n_init=3).fit(x) for k in (1, 2))
    if one.bic(x) <= two.bic(x):
        return half(scores)
    low, high = np.argsort(two.means_[:, 0])
    middle, apart = two.means_[:, 0].mean(), two.means_[high, 0] - two.means_[low, 0]
    prior = np.log(two.weights_[low] / two.weights_[high])
    return float(expit(middle + two.covariances_[0, 0] * prior / apart))


def two_groups(scores):
    """Otsu's cut where the batch shows two groups beyond doubt, else ``half``.

    Beyond doubt means three things: there are ``ENOUGH`` images; the prompts see the two groups on different sides, as the mean
    log odds of the lower part are below 0 and those of the upper above, so that the cut moves only stragglers; and the means
    are more than ``APART`` standard deviations within the parts away from each other. Every batch can be cut, and the parts
    of one group already differ: halves of a Gaussian by 2.6, of a uniform distribution by 3.5. (This project's own; the
    distance is the D of Ashman, Bird and Zepf, 1994, here of parts rather than of fitted Gaussians.)
    """
    x = logits(scores)
    if x.size < ENOUGH:
        return half(scores)
    cut = otsu(scores)
    low, high = x[x < logit(cut)], x[x >= logit(cut)]
    if not low.size or not high.size or not low.mean() < 0 < high.mean():
        return half(scores)
    within = np.sqrt((low.var() * low.size + high.var() * high.size) / x.size)
    return cut if high.mean() - low.mean() > APART * within else half(scores)


THRESHOLDS = {f.__name__: f for f in (half, otsu, mixture, two_groups)}


def batches(n, draws, above=0.02, seed=0):
    """Simulated batches without a defect, to see what a rule makes of them: yields the name of a shape and ``n`` scores.

    The log odds of each of ``SHAPES`` have the quartiles' distance of a standard Gaussian, and lie so that a share ``above`` of
    good images is above 0.5: that is what ``half`` would call abnormal. There are ``draws`` batches of each shape.
    """
    rng = np.random.default_rng(seed)
    for name, shape in SHAPES.items():
        place, spread = shape.ppf(1 - above), (shape.ppf(0.75) - shape.ppf(0.25)) / 1.349
        for _ in range(draws):
            yield name, expit((shape.rvs(size=n, random_state=rng) - place) / spread)


def oracle(labels, scores):
    """The threshold of F1-max: it needs the labels, so it is a ceiling and not a verdict."""
    precision, recall, cuts = precision_recall_curve(labels, scores)
    return float(cuts[np.argmax(2 * precision * recall / np.maximum(precision + recall, 1e-12))])


def verdict_metrics(labels, scores, threshold):
    """Accuracy, F1, and the shares of missed defects and of false alarms at a threshold (abnormal: score >= threshold).

    NaN where there is nothing to count: F1 and missed without a defect, false alarms without a normal image.
    """
    labels, said = np.asarray(labels).astype(bool), np.asarray(scores) >= threshold
    hits, defects, normal = int((said & labels).sum()), int(labels.sum()), int((~labels).sum())
    return {
        "accuracy": float((said == labels).mean()),
        "f1": 2 * hits / int(said.sum() + defects) if defects else float("nan"),
        "missed": 1 - hits / defects if defects else float("nan"),
        "false_alarms": int((said & ~labels).sum()) / normal if normal else float("nan"),
    }


def reliability(labels, scores, bins=BINS):
    """Mean score, observed share of defects and number of images in ``bins`` equal intervals of [0, 1]: three arrays."""
    labels, scores = np.asarray(labels, float), np.asarray(scores, float)
    place = np.minimum((scores * bins).astype(int), bins - 1)
    number = np.bincount(place, minlength=bins)
    divide = np.maximum(number, 1)
    return np.bincount(place, scores, bins) / divide, np.bincount(place, labels, bins) / divide, number


def expected_calibration_error(labels, scores, bins=BINS):
    """Mean distance between score and observed share of defects over the bins, weighted by images: [0, 1].

    The expected calibration error of Guo et al. (2017), taken of P(abnormal) rather than of the winning class.
    """
    predicted, observed, number = reliability(labels, scores, bins)
    return float((np.abs(predicted - observed) * number).sum() / number.sum())
