"""How good is a prompt bank? Measures of cross-semantic ambiguity, before any image is scored and with images.

A prompt is *ambiguous on the text side* if it lies on the wrong side of the axis that the static states span, and *for an
image* if its similarity falls where the normal and the abnormal similarity intervals overlap. That overlap grows with the
number of prompts, as every range does; ``prompt_auroc`` and what follows from it compares pairs of prompts and does not.
(The paper names the phenomenon; these measures are this project's.)
"""

import numpy as np
import pandas as pd
import torch
from scipy.stats import rankdata
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import StratifiedKFold, cross_val_predict
from sklearn.preprocessing import SplineTransformer

from zsadlib.evaluation import bootstrap
from zsadlib.evaluation.verdict import logits

TIE = 1e-6  # similarities closer than this are equal: one sentence on both sides differs by float32's rounding
FOLDS, KNOTS = 5, 4
ERRORS = [
    "base", "images", "wrong", "log_loss", "gain", "gain_low", "gain_high", "auroc", "auroc_with", "coefficient", "low", "high",
]  # fmt: skip
RIDGE = 100.0  # scikit-learn's C: weak, there only to keep coefficients finite where classes separate


def prompt_table(ensemble):
    """One row per prompt: side, prompt, position on the axis, own_side, nearest opposite prompt and its similarity."""
    rows = []
    sides = [
        ("normal", ensemble.normal, ensemble.t_normal, ensemble.abnormal, ensemble.t_abnormal),
        ("abnormal", ensemble.abnormal, ensemble.t_abnormal, ensemble.normal, ensemble.t_normal),
    ]
    for side, prompts, t, others, t_other in sides:
        position = ensemble.side(t)
        nearest = (t @ t_other.T).max(1)
        for i, prompt in enumerate(prompts):
            place = float(position[i])
            rows.append(
                {
                    "side": side,
                    "prompt": prompt,
                    "position": place,
                    "own_side": (place > 0) == (side == "abnormal"),
                    "nearest_opposite": others[int(nearest.indices[i])],
                    "similarity": float(nearest.values[i]),
                }
            )
    return pd.DataFrame(rows)


def diversity(t):
    """1 - mean pairwise cosine of the prompts of a side (n, dim): 0 for copies of one sentence."""
    n = len(t)
    return float(1 - ((t @ t.T).sum() - n) / (n * (n - 1))) if n > 1 else 0.0


def overlap_rate(image, ensemble):
    """Share of prompts, averaged over images (batch, dim), whose similarity lies in the interval intersection: [0, 1]."""
    s_normal, s_abnormal = image @ ensemble.t_normal.T, image @ ensemble.t_abnormal.T
    low = torch.maximum(s_normal.amin(1), s_abnormal.amin(1))[:, None]
    high = torch.minimum(s_normal.amax(1), s_abnormal.amax(1))[:, None]
    s = torch.cat([s_normal, s_abnormal], 1)
    return float(((s >= low) & (s <= high)).float().mean())


def measures(ensemble, image=None):
    """Measures of one category's bank, all in [0, 1] but ``prompts``: a dict.

    side_accuracy: share of prompts on their own side. ambiguity: share of prompts in the interval overlap, averaged over
    the images (None without images). diversity: mean of both sides'. nearest_opposite: mean similarity of a prompt to the
    closest prompt of the other side.
    """
    table = prompt_table(ensemble)
    return {
        "prompts": len(table),
        "side_accuracy": float(table.own_side.mean()),
        "ambiguity": None if image is None else overlap_rate(image, ensemble),
        "diversity": (diversity(ensemble.t_normal) + diversity(ensemble.t_abnormal)) / 2,
        "nearest_opposite": float(table.similarity.mean()),
    }


def why(row):
    """The reason, in words, that a row of ``prompt_table`` may be ambiguous."""
    if not row.own_side:
        wrong = "abnormal" if row.side == "normal" else "normal"
        return f"written as {row.side}, lies on the {wrong} side"
    other = "abnormal" if row.side == "normal" else "normal"
    return f"closest {other} one ({row.similarity:.2f}): “{row.nearest_opposite}”"


# ------------------------------------------------------------------------------------------- pairs of prompts, one image


def prompt_auroc(image, ensemble):
    """Per image, P(a random abnormal prompt is more similar to it than a random normal one), ties counted half.

    The AUROC of an image's similarities to the prompts, the prompts' sides being the labels (Mann-Whitney; also called the
    probability of superiority). It is a mean over pairs: copies of all prompts do not change it, and more prompts of the same
    kind do not change what it is expected to be. (Source: this project's own.)

    Args:
        image: (batch, dim) L2-normalised image embeddings.

    Returns:
        (batch,) float in [0, 1]: 1 where every abnormal prompt fits better than every normal one.
    """
    s_normal, s_abnormal = image @ ensemble.t_normal.T, image @ ensemble.t_abnormal.T
    over = s_abnormal[:, :, None] - s_normal[:, None]
    return (torch.where(over.abs() <= TIE, 0, over).sign().mean((1, 2)) + 1) / 2


def side_confusion(image, ensemble, labels):
    """Per image, P(a random pair of a normal and an abnormal prompt is ordered against the label), ties counted half.

    Where the image is abnormal: that the normal prompt is the more similar one, 1 - ``prompt_auroc``; where it is normal,
    ``prompt_auroc``. (Source: this project's own.)

    Args:
        image: (batch, dim). labels: (batch,), 1 = abnormal.

    Returns:
        (batch,) float in [0, 1]: 0 without any confusion, 0.5 where the sides say nothing of the image, 1 all wrong.
    """
    auroc = prompt_auroc(image, ensemble)
    return torch.where(torch.as_tensor(np.asarray(labels).astype(bool)), 1 - auroc, auroc)


def confusion_draws(image, ensemble, labels, name, n=bootstrap.DRAWS):
    """Mean ``side_confusion`` of one category on every resample of its images: (n + 1,), the first of the images as they are.

    The mean of both classes' means: a prompt set that prefers one side for every image has 0.5, however many images are
    abnormal. Draws of several banks are paired, for ``bootstrap.difference``. (Source: this project's own.)

    Args:
        image: (batch, dim). labels: (batch,), 1 = abnormal. name: of the category, as in ``bootstrap.counts``.
    """
    labels = np.asarray(labels).astype(bool)
    drawn, confusion = bootstrap.counts(labels, name, n), side_confusion(image, ensemble, labels).double().numpy()
    return np.mean([drawn[:, side] @ confusion[side] / side.sum() for side in (labels, ~labels)], axis=0)


def image_ambiguity(image, ensemble):
    """How little a bank's sides agree on an image, label unseen: 1 - |2 P - 1| with P = ``prompt_auroc``, (batch,) in [0, 1].

    This is 2 min(P, 1 - P): twice the chance that a random pair of prompts speaks against what most pairs say. 0 where all
    pairs agree, 1 where as many say normal as abnormal. Which side wins does not matter, as it must not for a measure of
    doubt, and any other such measure (the entropy of P) orders images in the same way. Between banks, match their sizes
    (``controls.subsample``): with few prompts P is rough, and roughness looks like agreement. ``side_confusion`` has no such
    bias. (Source: this project's own.)
    """
    return 1 - (2 * prompt_auroc(image, ensemble) - 1).abs()


# ------------------------------------------------------------------------------------------------------- wrong verdicts


def _standard(x):
    """Mean 0 and standard deviation 1; a constant stays one."""
    x = np.asarray(x, float)
    return (x - x.mean()) / (x.std() or 1)


def _bases(table):
    """What is known of a verdict without ambiguity: dict of name -> (images, columns)."""
    distance = np.abs(logits(table.score) - logits(table.threshold))
    said = (table.score >= table.threshold).to_numpy()[:, None]
    ranks = rankdata(distance)[:, None] / len(table)
    curve = SplineTransformer(KNOTS).fit_transform(ranks)
    category = pd.get_dummies(table.category, drop_first=True).to_numpy(float)
    distance = _standard(distance)[:, None]
    return {"distance": distance, "score": np.hstack([distance, curve * said, curve * ~said, category])}


def predicts_errors(table, n=bootstrap.DRAWS, seed=0):
    """Does an image's ambiguity predict a wrong verdict beyond what the score itself says of its doubt?

    Logistic regression of wrong verdicts (abnormal: score >= threshold) on a base alone and with ambiguity added. Two bases:
    "distance" is |logit(score) - logit(threshold)|. "score" is all that the score can say: that distance, a curve of its rank
    for each verdict (cubic spline), and each category's own rate of errors. Ambiguity follows the score closely and may gain
    over the first by bending a straight line; only what it gains over the second is its own. It enters as what a linear fit
    on the base leaves of it: the coefficient stays the same, but where nothing is left none is made up. The regressions have
    a weak ridge (``RIDGE``). (Source: this project's own.)

    Args:
        table: one row per image: category, label (1 = abnormal), score, threshold (both in [0, 1]), ambiguity
            (``image_ambiguity``, or any number). Every category needs both labels. n: resamples. seed: of the folds.

    Returns:
        A table with a row per base: base, images, wrong (their number); log_loss of the base, in nats per image, and ``gain``,
        by how much ambiguity lowers it, both by ``FOLDS``-fold cross-validation; gain_low and gain_high; auroc of predicting
        wrong verdicts with the base, and auroc_with ambiguity, cross-validated; ``coefficient`` of ambiguity in log odds per
        standard deviation, fitted to all images; low and high. Intervals are 95 % over ``bootstrap.counts`` of the images
        in each category; that of the gain takes the cross-validated predictions as they are. Where fewer than ``FOLDS``
        verdicts are wrong, or right, nothing can be fitted, and all but base, images and wrong is missing (NaN).
    """
    wrong = ((table.score >= table.threshold) != table.label.astype(bool)).to_numpy()
    if not FOLDS <= wrong.sum() <= wrong.size - FOLDS:
        counted = {"base": ["distance", "score"], "images": wrong.size, "wrong": int(wrong.sum())}
        return pd.DataFrame(counted).reindex(columns=ERRORS)
    drawn = np.empty((n + 1, wrong.size), int)
    for name, places in table.reset_index(drop=True).groupby("category").groups.items():
        drawn[:, places] = bootstrap.counts(table.label.to_numpy()[places], name, n)
    # a second-order solver: it converges to the last digits, and what ambiguity adds may be as small as what others leave
    model = LogisticRegression(C=RIDGE, solver="newton-cholesky")
    folds = StratifiedKFold(FOLDS, shuffle=True, random_state=seed)

    def predicted(columns):
        chance = cross_val_predict(model, columns, wrong, cv=folds, method="predict_proba")
        return chance[:, 1], -np.log(chance[np.arange(wrong.size), wrong.astype(int)])

    rows, doubt = [], _standard(table.ambiguity)
    for name, base in _bases(table).items():
        known = LinearRegression().fit(base, doubt).predict(base)
        full = np.hstack([base, (doubt - known)[:, None]])
        (chance, loss), (chance_with, loss_with) = predicted(base), predicted(full)
        gain_low, gain, gain_high = bootstrap.interval([drawn @ (loss - loss_with) / wrong.size])
        fitted = [model.fit(full, wrong, sample_weight=weights).coef_[0, -1] for weights in drawn]
        low, coefficient, high = bootstrap.interval([fitted])
        rows.append(
            {"base": name, "images": wrong.size, "wrong": int(wrong.sum()), "log_loss": loss.mean(), "gain": gain}
            | {"gain_low": gain_low, "gain_high": gain_high, "auroc": roc_auc_score(wrong, chance)}
            | {"auroc_with": roc_auc_score(wrong, chance_with), "coefficient": coefficient, "low": low, "high": high}
        )
    return pd.DataFrame(rows, columns=ERRORS)
