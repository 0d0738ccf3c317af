"""Published numbers beside ours: ``published-results.csv`` in this folder, and tables that show both and their difference."""

from functools import cache
from pathlib import Path

import pandas as pd

from zsadlib.files import marked, replacing

FILE = Path(__file__).with_name("published-results.csv")
NAMES = {
    "clip-ac": "CLIP-AC",
    "winclip": "WinCLIP",
    "winclip+": "WinCLIP+",
    "alfa": "ALFA",
    "musc": "MuSc",
    "patchcore": "PatchCore",
}
OTHER_BACKBONE = {"PatchCore": "WideResNet-50"}


@cache
def published():
    """All rows: method, setting, backbone, dataset, metric, value (per cent), source."""
    return pd.read_csv(FILE)


def lookup(method, shots, dataset, metric, backbone, image_size):
    """The published value (per cent) of a method on our class of backbone, or NaN where nobody published one.

    PatchCore's is on its own WideResNet-50. "WinCLIP (re-run)" and other re-runs are never taken for the paper's own.
    """
    rows, name = published(), NAMES.get(method)
    setting = rows.setting.str.startswith(f"{shots}-shot" if shots else "zero-shot")
    wanted = OTHER_BACKBONE.get(name, f"{backbone.removesuffix('-quickgelu')}@{image_size}")
    found = rows[setting & (rows.method == name) & (rows.backbone == wanted)]
    found = found[(found.dataset == dataset) & (found.metric == metric)]
    return float(found.value.iloc[0]) if len(found) else float("nan")


def beside(summary, profile, whole=True):
    """A summary (``benchmark.summary``) with, for each metric, the published value and our difference to it, in points.

    ``whole`` is False where only some images were scored: then nothing published can be compared.

    Returns:
        columns (metric, "ours" | "published" | "difference").
    """
    parts = {}
    for metric in summary.columns:
        model = profile.backbone, profile.image_size
        theirs = [lookup(method, shots, dataset, metric, *model) for dataset, method, _, shots in summary.index]
        theirs = pd.Series(theirs if whole and not profile.dry_run else float("nan"), summary.index)
        parts[metric] = pd.DataFrame(
            {"ours": summary[metric], "published": theirs, "difference": summary[metric] - theirs}
        )
    return pd.concat(parts, axis=1)


def coloured(table, limit=10):
    """For a notebook: differences coloured from red (-``limit`` points) to blue, what is missing as a dash."""
    differences = [c for c in table.columns if c[-1] == "difference"] if table.columns.nlevels > 1 else []
    style = table.style.format("{:.1f}", na_rep="–").format("{:+.1f}", na_rep="–", subset=differences)
    style.format_index(escape="html")  # the name of a set is that of a folder
    return style.background_gradient("RdBu", subset=differences, vmin=-limit, vmax=limit).highlight_null("#ffffff00")


def save(table, folder, name):
    """Write a table of per cent values for a paper: ``tables/<name>.csv`` and ``tables/<name>.tex``, one digit, – = missing."""
    table, folder = marked(table, folder), folder / "tables"
    with replacing(folder / f"{name}.csv") as temporary:
        table.to_csv(temporary, float_format="%.1f")
    with replacing(folder / f"{name}.tex") as temporary:
        temporary.write_text(table.to_latex(float_format="%.1f", na_rep="--", escape=True, multicolumn_format="c"))
