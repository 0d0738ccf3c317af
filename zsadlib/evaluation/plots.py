"""Figures. Every function draws on matplotlib axes and returns the figure; one heat-map scale serves all images shown."""

import textwrap
import unicodedata

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib_inline.backend_inline import set_matplotlib_formats
from PIL import Image
from sklearn.decomposition import PCA

from zsadlib.files import is_dry_run, replacing

SIDES = {"normal": "#2a6f97", "abnormal": "#c1121f"}
DPI = 80


def use_style():
    """One look for all notebooks, in which a text from outside is no formula and no markup, in a table either."""
    sns.set_theme(style="whitegrid", context="notebook", font_scale=0.85)
    set_matplotlib_formats("jpeg", pil_kwargs={"quality": 88})  # photographs as PNG would make notebooks huge
    plt.rcParams.update({"figure.dpi": DPI, "savefig.dpi": 150, "figure.constrained_layout.use": True})
    pd.set_option("display.html.use_mathjax", False)
    pd.set_option("styler.html.mathjax", False)


def literal(text):
    """Text from outside (prompts, names of categories and files) as matplotlib draws it character by character.

    Between two dollar signs matplotlib would read a formula, and fail where it is none. Control characters and changes of
    direction are left out.
    """
    shown = "".join(c for c in str(text) if c == "\n" or unicodedata.category(c)[0] != "C")
    return shown.replace("$", r"\$")


def _literal(table, *columns):
    """A table with the texts of some columns as ``literal``."""
    texts = [name for name in columns if not pd.api.types.is_numeric_dtype(table[name])]
    return table.assign(**{name: table[name].map(literal) for name in texts})


def save(figure, folder, name):
    """Write a figure as PNG into ``folder``/figures and return it, so that a cell ends by showing it."""
    if is_dry_run(folder):
        figure.text(
            0.5, 0.5, "DRY RUN: random weights", size=20, color="red", alpha=0.5, ha="center", va="center", rotation=20
        )
    folder = folder / "figures"
    folder.mkdir(parents=True, exist_ok=True)
    figure.savefig(folder / f"{name}.png", metadata={"Software": None})
    return figure


def _finished(figure):
    """Close a figure, so that a notebook shows it once: where a cell ends with it."""
    plt.close(figure)
    return figure


def _square(image, size):
    return np.asarray(image.convert("RGB").resize((size, size), Image.BICUBIC))


def pictures(images, titles=None, columns=6, size=192, width=1.7):
    """A grid of PIL images."""
    rows = -(-len(images) // columns)
    figure, axes = plt.subplots(rows, columns, figsize=(columns * width, rows * (width + 0.2)), squeeze=False)
    for axis in axes.ravel():
        axis.axis("off")
    for i, (axis, image) in enumerate(zip(axes.ravel(), images, strict=False)):
        axis.imshow(_square(image, size))
        if titles is not None:
            axis.set_title(literal(titles[i]), fontsize=9)
    return _finished(figure)


def _overlay(axis, picture, heat, low, high, mask=None):
    """A heat map over the grey picture (size, size, 3), the mask outlined in white; returns what a colour bar needs."""
    axis.imshow(picture.mean(2), cmap="gray", vmin=0, vmax=255)
    shown = axis.imshow(heat, cmap="turbo", alpha=0.6, vmin=low, vmax=high)
    if mask is not None and mask.any():
        axis.contour(mask, [0.5], colors="white", linewidths=1)
    return shown


def heat_maps(images, columns, scale=None, masks=None, width=1.7, names=None):
    """Images beside their anomaly maps, one row an image, one column a method, one colour scale for all.

    Args:
        images: PIL images. columns: dict of column title -> maps (n, size, size). scale: (low, high); None spans the
            1st to the 99.9th percentile of all maps.
        masks: (n, size, size) bool or None; outlined in white. names: one per image.
    """
    stack = np.concatenate([np.asarray(m).ravel() for m in columns.values()])
    low, high = scale or np.percentile(stack, [1, 99.9])
    n, size = len(images), np.asarray(next(iter(columns.values()))).shape[-1]
    figure, axes = plt.subplots(
        n, len(columns) + 1, figsize=((len(columns) + 1) * width + 0.6, n * (width + 0.15)), squeeze=False
    )
    shown = None
    for i, image in enumerate(images):
        picture = _square(image, size)
        axes[i, 0].imshow(picture)
        if i == 0:
            axes[0, 0].set_title("image", fontsize=9)
        for axis, (title, maps) in zip(axes[i, 1:], columns.items(), strict=True):
            shown = _overlay(axis, picture, maps[i], low, high, masks[i] if masks is not None else None)
            if i == 0:
                axis.set_title(literal(title), fontsize=9)
    for axis, name in zip(axes[:, 0], names or [], strict=False):
        axis.set_ylabel(literal(name), fontsize=9)
    for axis in axes.ravel():
        axis.set_xticks([])
        axis.set_yticks([])
        axis.grid(False)
        for spine in axis.spines.values():
            spine.set_visible(False)
    figure.colorbar(shown, ax=axes, shrink=0.6, label="P(abnormal)")
    return _finished(figure)


def qualitative(rows, width=1.25):
    """Image pairs beside their maps, one row a category with a colour scale of its own (the paper's Fig. 5 idea).

    Args:
        rows: (title, PIL images, dict of method -> maps (images, size, size), masks) per category; masks are outlined in white.
            Two images are taken for a normal and a defective one.
    """
    methods, count = list(rows[0][2]), len(rows[0][1])
    columns = count * (1 + len(methods))
    figure, axes = plt.subplots(len(rows), columns, figsize=(columns * width, len(rows) * (width + 0.2)), squeeze=False)
    for line, (title, images, maps, masks) in zip(axes, rows, strict=True):
        low, high = np.percentile(np.concatenate([m.ravel() for m in maps.values()]), [1, 99.9])
        for axis in line:
            axis.set(xticks=[], yticks=[])
            sns.despine(ax=axis, left=True, bottom=True)
        line[0].set_ylabel(literal(f"{title}\n{low:.2f} to {high:.2f}"), fontsize=8)
        for i, (image, mask) in enumerate(zip(images, masks, strict=True)):
            picture, place = _square(image, len(mask)), i * (1 + len(methods))
            line[place].imshow(picture)
            for axis, method in zip(line[place + 1 :], methods, strict=False):
                _overlay(axis, picture, maps[method][i], low, high, mask)
    pictures = ["normal", "defective"] if count == 2 else [f"image {i + 1}" for i in range(count)]
    for axis, title in zip(axes[0], [name for p in pictures for name in (p, *methods)], strict=True):
        axis.set_title(literal(title), fontsize=8)
    return _finished(figure)


def over_shots(table, metrics, width=3.4):
    """Metrics over the number of support images, one row a metric, one panel a set; bars span the draws.

    Args:
        table: tidy, with columns dataset, line, shots, seed, metric, value (in [0, 1], shown in per cent).
    """
    names = {metric: group for metric, group in table.groupby("metric") if metric in metrics}
    panels = [(metric, name, part) for metric in metrics for name, part in names[metric].groupby("dataset", sort=False)]
    figure, axes = plt.subplots(1, len(panels), figsize=(width * len(panels), 2.8), squeeze=False)
    for plot, (metric, name, part) in zip(axes[0], panels, strict=True):
        sns.lineplot(
            _literal(part.assign(value=100 * part.value), "line"), x="shots", y="value", hue="line", marker="o", ax=plot,
            err_style="bars", errorbar=lambda v: (v.min(), v.max()), legend=plot is axes[0, -1],
        )  # fmt: skip
        plot.set(title=literal(name), ylabel=f"{metric.replace('_', ' ')} (%)", xticks=sorted(part.shots.unique()))
    sns.move_legend(axes[0, -1], "upper left", bbox_to_anchor=(1, 1), title=None)
    return _finished(figure)


def semantic_space(ensemble, title=None):
    """Prompts of a category in the plane of the static axis and the first other component (Fig. 4 idea).

    Horizontal: position on the normal -> abnormal axis; a prompt across zero is on the wrong side. Vertical: first
    principal component (scikit-learn) of what is left.
    """
    text = np.concatenate([ensemble.t_normal.numpy(), ensemble.t_abnormal.numpy()])
    axis, middle = ensemble.axis.numpy(), ensemble.midpoint.numpy()
    across = (text - middle) @ axis
    rest = text - middle - across[:, None] * axis
    up = PCA(1, random_state=0).fit(rest)
    side = ["normal"] * len(ensemble.normal) + ["abnormal"] * len(ensemble.abnormal)
    figure, plot = plt.subplots(figsize=(5.2, 4))
    plot.axvline(0, color="0.4", lw=1, ls="--")
    sns.scatterplot(x=across, y=up.transform(rest)[:, 0], hue=side, palette=SIDES, s=45, ax=plot, edgecolor="white")
    plot.set_xlabel("normal  ←  position on the static axis  →  abnormal")
    plot.set_ylabel("first other component")
    plot.legend(title="written as", loc="best")
    plot.set_title(literal(title or ""))
    return _finished(figure)


def similarity_intervals(image, ensemble, rows, titles, width=3.2):
    """For chosen images, the similarities to every normal and abnormal prompt and their intervals (Fig. 3 idea).

    Args:
        image: (batch, dim) image embeddings. rows: indices of the images to show. titles: one per shown image.
    """
    figure, axes = plt.subplots(1, len(rows), figsize=(len(rows) * width, 2.4), sharex=True, squeeze=False)
    for plot, row, title in zip(axes[0], rows, titles, strict=True):
        values = {
            "normal": (image[row] @ ensemble.t_normal.T).numpy(),
            "abnormal": (image[row] @ ensemble.t_abnormal.T).numpy(),
        }
        for y, (side, s) in enumerate(values.items()):
            plot.hlines(y, s.min(), s.max(), color=SIDES[side], lw=8, alpha=0.25)
            plot.plot(s, np.full(len(s), y), "o", ms=4, color=SIDES[side])
        low, high = max(map(np.min, values.values())), min(map(np.max, values.values()))
        if low < high:
            plot.axvspan(low, high, color="0.5", alpha=0.2, label="overlap")
        plot.set_yticks([0, 1], ["normal", "abnormal"])
        plot.set_ylim(-0.6, 1.6)
        plot.set_title(literal(title), fontsize=9)
        plot.set_xlabel("cosine similarity")
    return _finished(figure)


def bars(table, x, y, hue, ylabel, figsize=(8, 3.2), limits=(0, 100)):
    """Grouped bars of a tidy table, values in per cent."""
    names = table[x].nunique()
    figure, plot = plt.subplots(figsize=(max(figsize[0], 0.45 * names), figsize[1]))
    table = _literal(table.assign(**{y: 100 * table[y]}), x, hue)
    sns.barplot(table, x=x, y=y, hue=hue, errorbar=None, ax=plot, alpha=0.85)
    plot.set_ylim(*limits)
    plot.set_ylabel(ylabel)
    plot.set_xlabel("")
    plot.tick_params(axis="x", rotation=30 if names > 12 else 0)
    sns.move_legend(plot, "upper left", bbox_to_anchor=(1, 1), title=None)
    return _finished(figure)


def gains(table, label, xlabel, width=6.5):
    """Differences with their intervals, one row each (a forest plot), in points.

    Args:
        table: columns gain, low, high (in [0, 1]), up, of (as from ``bootstrap.difference``) and ``label``.
    """
    figure, plot = plt.subplots(figsize=(width, 0.9 + 0.27 * len(table)))
    place = np.arange(len(table))[::-1]
    sure = (table.low > 0) | (table.high < 0)
    colours = np.where(~sure, "0.55", np.where(table.gain > 0, SIDES["normal"], SIDES["abnormal"]))
    for y, row, shade in zip(place, table.itertuples(), colours, strict=True):
        plot.plot([100 * row.low, 100 * row.high], [y, y], color=shade, lw=2)
        plot.plot(100 * row.gain, y, "o", color=shade, ms=5)
        if table.of.max() > 1:
            plot.annotate(f"{row.up}/{row.of}", (1.01, y), xycoords=("axes fraction", "data"), fontsize=8, va="center")
    plot.axvline(0, color="0.3", lw=1)
    plot.set_yticks(place, table[label].map(literal))
    plot.set_ylim(-0.7, len(table) - 0.3)
    plot.set_xlabel(xlabel)
    if table.of.max() > 1:
        plot.set_title("right margin: categories with a gain", fontsize=8, loc="right")
    return _finished(figure)


def dots(table, label, hue, xlabel, width=6.5, at=None):
    """Values with their 95 % intervals in per cent: one row per ``label``, one colour per ``hue``.

    Args:
        table: columns ``label``, ``hue``, value, low, high (in [0, 1]). at: where to draw a dashed line, such as chance.
    """
    rows, groups = list(dict.fromkeys(table[label])), list(dict.fromkeys(table[hue]))
    figure, plot = plt.subplots(figsize=(width, 0.9 + len(rows) * (0.16 + 0.13 * len(groups))))
    for i, (group, shade) in enumerate(zip(groups, sns.color_palette("colorblind", len(groups)), strict=True)):
        part = table[table[hue] == group]
        y = [-rows.index(name) - (i - (len(groups) - 1) / 2) * 0.75 / len(groups) for name in part[label]]
        plot.hlines(y, 100 * part.low, 100 * part.high, color=shade, lw=1.5)
        plot.plot(100 * part.value, y, "o", color=shade, ms=4, label=literal(group))
    if at is not None:
        plot.axvline(100 * at, color="0.4", lw=1, ls="--")
    plot.set_yticks([-i for i in range(len(rows))], [literal(name) for name in rows])
    plot.set_ylim(-len(rows) + 0.45, 0.55)
    plot.set_xlabel(xlabel)
    plot.legend(loc="upper left", bbox_to_anchor=(1, 1))
    return _finished(figure)


def curves(table, x, hue, ylabel, y="value", panels=False, width=3.2):
    """Values (in [0, 1], shown in per cent) over a knob on a logarithmic axis: one line per ``hue``, or one panel each."""
    groups = list(table.groupby(hue, sort=False))
    count = len(groups) if panels else 1
    figure, axes = plt.subplots(1, count, figsize=(width * max(count, 1.6), 2.6), squeeze=False, sharey=True)
    for i, (name, group) in enumerate(groups):
        plot = axes[0, i if panels else 0]
        plot.plot(group[x], 100 * group[y], "o-", ms=4, label=literal(name))
        plot.set_xscale("log")
        plot.set_xticks(group[x], [f"{v:g}" for v in group[x]], fontsize=8)
        plot.minorticks_off()
        plot.set_xlabel(literal(name) if panels else x)
    axes[0, 0].set_ylabel(ylabel)
    if not panels:
        axes[0, 0].legend()
    return _finished(figure)


def reasons(images, titles, maps, explained, masks, width=2.0):
    """Images, the map of the verdict once, and the prompts that decided it with their weights.

    Args:
        images: PIL images. titles: one per image. maps: (images, size, size) in [0, 1]; masks: the same, bool; outlined in white.
        explained: per image a list of dicts with prompt, side and weight, as from ``Alfa.explain``.
    """
    figure, axes = plt.subplots(
        len(images), 3, figsize=(width * 3.7, len(images) * (width + 0.25)), squeeze=False, width_ratios=[1, 1, 1.3]
    )
    for axis in axes.ravel():
        axis.axis("off")
    for row, image, title, heat, found, mask in zip(axes, images, titles, maps, explained, masks, strict=True):
        picture = _square(image, mask.shape[-1])
        row[0].imshow(picture)
        row[0].set_title(literal(title), fontsize=9)
        shown = _overlay(row[1], picture, heat, 0, 1, mask)
        row[1].set_title("P(abnormal)", fontsize=9)
        lines = [f"{r['side']}, weight {r['weight']:.2f}:\n{textwrap.fill(r['prompt'], 34)}" for r in found]
        row[2].text(0, 0.5, literal("\n\n".join(lines)), va="center", fontsize=9, transform=row[2].transAxes)
    figure.colorbar(shown, ax=axes[:, 1], shrink=0.6)
    return _finished(figure)


def differences(table, label, limit=15):
    """A table of signed differences in points as a coloured grid, rows and columns as in ``table``."""
    figure, plot = plt.subplots(figsize=(1.6 + 0.85 * table.shape[1], 0.7 + 0.27 * len(table)))
    sns.heatmap(
        table.rename(index=literal, columns=literal), cmap="RdBu", vmin=-limit, vmax=limit, annot=True, fmt="+.1f",
        annot_kws={"size": 8}, ax=plot, cbar_kws={"label": label},
    )  # fmt: skip
    plot.set(xlabel="", ylabel="")
    return _finished(figure)


def reliability_diagram(curves, width=3.4):
    """Observed share of defects over the mean score, one panel each; the diagonal is a calibrated score.

    Args:
        curves: dict of title -> (predicted, observed, number), as from ``verdict.reliability``.
    """
    figure, axes = plt.subplots(1, len(curves), figsize=(width * len(curves), width), squeeze=False, sharey=True)
    for plot, (title, (predicted, observed, number)) in zip(axes[0], curves.items(), strict=True):
        used = number > 0
        plot.plot([0, 1], [0, 1], color="0.5", lw=1, ls="--")
        plot.plot(predicted[used], observed[used], "-", color=SIDES["normal"], lw=1)
        plot.scatter(predicted[used], observed[used], s=8 + 250 * number[used] / number.sum(), color=SIDES["normal"])
        plot.set(xlim=(-0.03, 1.03), ylim=(-0.03, 1.03), xlabel="mean image score", aspect="equal")
        plot.set_title(literal(title), fontsize=9)
    axes[0, 0].set_ylabel("observed share of defects")
    return _finished(figure)


def save_overlay(image, anomaly_map, path, scale=(0, 1)):
    """Write an image with its anomaly map over it (``scale``: its coldest and warmest value) as PNG, at the image's own size."""
    anomaly_map = np.float32((anomaly_map - scale[0]) / max(scale[1] - scale[0], 1e-9)).clip(0, 1)
    heat = plt.get_cmap("turbo")(np.asarray(Image.fromarray(anomaly_map).resize(image.size, Image.BILINEAR)))[..., :3]
    mixed = 0.5 * np.asarray(image.convert("RGB"), np.float32) / 255 + 0.5 * heat
    with replacing(path) as temporary:
        Image.fromarray(np.rint(np.clip(mixed, 0, 1) * 255).astype(np.uint8)).save(temporary)
