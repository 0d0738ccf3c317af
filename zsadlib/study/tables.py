"""Tables out: means, spreads, Markdown, CSV. Every table is rounded here, once, and README and notebooks show the same frame."""

import gzip
from pathlib import Path

import pandas as pd

from zsadlib.files import ROOT, marked, replacing

COLUMNS = ["method", "sees", "dataset", "category", "shots", "seed", "metric", "value"]


def summary(table, metrics=("image_auroc", "pixel_auroc", "pixel_aupro")):
    """Mean over categories (and draws), in per cent: one row per (dataset, method, shots), one column per metric."""
    table = table[table.metric.isin(metrics)]
    index = ["dataset", "method", "sees", "shots"]
    means = table.pivot_table(index=index, columns="metric", values="value", sort=False)
    return (100 * means).reindex(columns=[m for m in metrics if m in means.columns]).round(1)


def spread(table, metrics=("image_auroc", "pixel_auroc", "pixel_aupro")):
    """Standard deviation, over the draws of support images, of the mean over categories, in points."""
    index = ["dataset", "method", "sees", "shots"]
    table = table[table.metric.isin(metrics)]
    per_draw = table.groupby([*index, "metric", "seed"], sort=False).value.mean()
    deviation = 100 * per_draw.groupby([*index, "metric"], sort=False).std()
    return deviation.unstack("metric").reindex(columns=list(metrics)).round(1)


def reported(table):
    """The summary that is quoted: without the development categories, on which choices were made."""
    return summary(table[~table.dataset.str.contains("development")])


def markdown(frame):
    """A frame as a Markdown table, for the README."""
    lines = [list(frame.columns), ["---"] * frame.shape[1]]
    lines += [["" if pd.isna(v) else str(v) for v in row] for row in frame.itertuples(index=False)]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def save_table(table, folder, name):
    """Write a table as CSV into a results folder, 6 significant digits."""
    with replacing(Path(folder) / f"{name}.csv") as temporary:
        marked(table, folder).to_csv(temporary, index=False, float_format="%.6g")


def save_scores(scores, folder, name="scores"):
    """Write ``benchmark.image_scores`` as a compressed CSV into a results folder, 6 significant digits."""
    text = marked(scores, folder).to_csv(index=False, float_format="%.6g")
    with replacing(Path(folder) / f"{name}.csv.gz") as temporary:
        temporary.write_bytes(
            gzip.compress(text.encode(), mtime=0)
        )  # neither date nor name: the same scores, the same bytes


def publish_readme(results):
    """Put the frame that notebook 5 shows and saves (``summary.csv``) between the README's two markers."""
    readme, table = ROOT / "README.md", pd.read_csv(results / "summary.csv")
    start, end = "<!-- results -->\n", "<!-- /results -->"
    before, rest = readme.read_text().split(start)
    with replacing(readme) as temporary:
        temporary.write_text(f"{before}{start}{markdown(table)}\n{end}{rest.split(end)[1]}")
