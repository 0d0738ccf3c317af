"""What an inspection found, as a table, maps, reasons and a report."""

import pandas as pd

from zsadlib.evaluation.verdict import THRESHOLDS
from zsadlib.inspection import report
from zsadlib.inspection.threshold import shown

COLUMNS = ["path", "image_score", "verdict", "threshold", "error"]


def rows(findings, threshold=None, rule="half"):
    """Rows of the table, with verdicts on what they show: they need the whole batch unless the threshold is given.

    Args:
        findings: list of ``Finding``. threshold: or None for ``rule``, a name in ``verdict.THRESHOLDS``.

    Returns:
        list of dicts (``COLUMNS`` and reasons), and the threshold.
    """
    scored = [one.image_score for one in findings if one.image_score is not None]
    if threshold is None:
        threshold = THRESHOLDS[rule](scored) if scored else 0.5
    threshold, made = shown(threshold), []
    for one in findings:
        score, verdict = one.image_score, ""
        if score is not None:
            score = shown(score)
            verdict = "abnormal" if score >= threshold else "normal"
        row = {"path": one.path, "image_score": score, "verdict": verdict, "threshold": threshold}
        made.append(row | {"error": one.error, "reasons": one.reasons.get(verdict, [])})
    return made, threshold


class Result:
    """What an inspection found.

    Attributes:
        table: DataFrame with path, image_score (higher = more abnormal), verdict, threshold, error: one row a photograph.
        threshold: of the verdict. maps: per photograph the anomaly map (size, size) over the whole upright picture, or None.
        reasons: per photograph a list of dicts with side, prompt, weight, score and where (x, y in pixels, score).
    """

    def __init__(self, findings, threshold, rule, about, scale):
        self._findings = findings
        self._rows, self.threshold = rows(findings, threshold, rule)
        self._about = about(self.threshold)
        self.table = pd.DataFrame(self._rows, columns=COLUMNS)
        self.maps = [one.anomaly_map for one in findings]
        self.reasons = [row["reasons"] for row in self._rows]
        self.scale = scale(self.threshold)

    def report(self, path):
        """Write one self-contained HTML page; returns ``path``."""
        cards = [row | {"card": one.card} for row, one in zip(self._rows, self._findings, strict=True)]
        report.write_report(path, self._about["object"], cards, self.threshold, self._about)
        return path
