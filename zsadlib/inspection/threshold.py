"""The threshold of a verdict from normal photographs: each is scored by a memory of the others (conformal prediction, Vovk)."""

import math

FALSE_ALARMS = 0.05
FOLDS = 5
DIGITS = 6


def shown(score):
    """A score, or a threshold, as tables show it; verdicts compare what is shown."""
    return round(score, DIGITS)


def leave_out(parts, score):
    """Scores of normal photographs, each by a memory in which it is not.

    Its like may be in the memory: photographs of one piece, taken in a row, are left out in different turns. Their scores, and
    the threshold, are then those of pieces that the memory knows.

    Args:
        parts: (n) one thing per photograph, n > 1. score: function of (those in the memory, those left out) -> their scores.

    Returns:
        list of n scores, in no order. Parts are left out in ``FOLDS`` turns, or one by one where there are fewer.
    """
    folds = min(FOLDS, len(parts))
    scores = []
    for fold in range(folds):
        scores += score([p for i, p in enumerate(parts) if i % folds != fold], parts[fold::folds])
    return scores


def of_normals(scores, false_alarms=FALSE_ALARMS):
    """The threshold that a new normal photograph reaches with a chance of at most ``false_alarms``, as far as scores tell.

    With n scores the k-th smallest is exceeded by a new one with a chance of (n + 1 - k) / (n + 1), so few normals cannot
    promise a small share: then it is the largest of them, and the share that it stands for is returned. The threshold is the
    next number above it that a table can show.

    Args:
        scores: of left-out normals (n,). false_alarms: in (0, 1).

    Returns:
        threshold (abnormal: score >= it), and the chance of a false alarm that it stands for.

    Raises:
        ValueError: ``false_alarms`` is out of range.
    """
    if not 0 < false_alarms < 1:
        raise ValueError(
            f"a share of false alarms of {false_alarms} is out of range; choose one between 0 and 1, such as 0.05"
        )
    n = len(scores)
    k = min(n, math.ceil((n + 1) * (1 - false_alarms)))
    return shown(shown(sorted(scores)[k - 1]) + 10**-DIGITS), (n + 1 - k) / (n + 1)
