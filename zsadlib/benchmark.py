"""Methods times categories: predictions, and the tidy table of metrics (method, dataset, category, shots, metric, value)."""

from functools import cache

import numpy as np
import pandas as pd
import torch
from tqdm.auto import tqdm

from zsadlib.aligner import Aligner
from zsadlib.backbones import Encoded, load_backbone
from zsadlib.datasets import load_image, load_mask, load_miniad
from zsadlib.detectors import Alfa, ClipAC, WinClip
from zsadlib.embedded import NAME, WEIGHTS
from zsadlib.files import sha256
from zsadlib.metrics import image_metrics, pixel_metrics

COLUMNS = ["method", "dataset", "category", "shots", "metric", "value"]
EMBEDDED_ALIGNER = WEIGHTS.with_name(f"{NAME}-aligner.safetensors")


def batches(backbone, paths, batch_size):
    """Preprocessed images (up to ``batch_size``, 3, size, size) of the files, in order."""
    for start in range(0, len(paths), batch_size):
        yield backbone.preprocess([load_image(p) for p in paths[start : start + batch_size]])


def profile_backbone(profile):
    """The backbone that a profile names."""
    return load_backbone(profile.backbone, profile.pretrained)


@cache
def profile_aligner(profile, backbone):
    """The aligner of a profile: the committed one where it fits, else fitted on unlabelled development images of MiniAD."""
    if profile.backbone == NAME and profile.pretrained == "embedded":
        aligner = Aligner.load(EMBEDDED_ALIGNER)
        if aligner.about["window"] == profile.aligner_window and aligner.about["weights_sha256"] == sha256(WEIGHTS):
            return aligner
    paths = [sample.path for category in load_miniad("development") for sample in category.test[::4]]
    return Aligner.fit(backbone, batches(backbone, paths, profile.batch_size), profile.aligner_window)


def build_detector(method, profile, backbone, aligner=None):
    """A detector by its name in the tables, with the profile's settings."""
    if method == "clip-ac":
        return ClipAC(backbone, profile.map_size)
    if method == "winclip":
        return WinClip(backbone, profile.map_size, profile.window_sizes)
    if method == "alfa":
        aligner = aligner or profile_aligner(profile, backbone)
        return Alfa(backbone, aligner, profile.banks, profile.reading, profile.map_size)
    raise ValueError(f"unknown method '{method}'; choose one of clip-ac, winclip, alfa")


def support_images(category, backbone, shots, seed=0):
    """``shots`` normal training images of a category, drawn by ``seed``, preprocessed; None for zero shots."""
    if not shots:
        return None
    if shots > len(category.train):
        raise ValueError(f"{category.name} has {len(category.train)} images in train/good; {shots} shots are too many")
    chosen = np.random.default_rng(seed).choice(len(category.train), shots, replace=False)
    return backbone.preprocess([load_image(category.train[i]) for i in sorted(chosen)])


@torch.no_grad()
def predict_category(detector, category, batch_size=16):
    """Scores (n,) float64 and maps (n, size, size) float32 of a category's test images, in order."""
    scores, maps = [], []
    for batch in batches(detector.backbone, [s.path for s in category.test], batch_size):
        score, anomaly_map = detector.predict(batch)
        scores.append(score.double().numpy())
        maps.append(anomaly_map.numpy())
    return np.concatenate(scores), np.concatenate(maps)


def encode_category(backbone, category, batch_size=16):
    """``Encoded`` of all test images of a category, in order: for studies that score the same images many times."""
    parts = [backbone.encode(b) for b in batches(backbone, [s.path for s in category.test], batch_size)]
    return Encoded(torch.cat([p.image for p in parts]), torch.cat([p.patches for p in parts]))


def masks_of(category, size):
    """Ground truth of all test images, bool (n, size, size)."""
    return np.stack([load_mask(s, size) for s in category.test])


def rows(detector, category, scores, maps, shots=0):
    """Metrics of one (method, category) as tidy rows; pixel metrics only where there are masks."""
    values = image_metrics(category.labels, scores)
    if category.has_masks:
        values |= pixel_metrics(masks_of(category, maps.shape[-1]), maps)
    key = (detector.name, category.dataset, category.name, shots)
    return [dict(zip(COLUMNS, (*key, metric, value), strict=True)) for metric, value in values.items()]


def evaluate(detectors, categories, batch_size=16, shots=0, seed=0):
    """Every detector on every category: a tidy DataFrame with ``COLUMNS``, values in [0, 1]."""
    for category in categories:
        if len(set(category.labels)) < 2:
            raise ValueError(f"{category.name} has only one class in test/; metrics need good and defective images")
    out = []
    with tqdm(total=len(detectors) * len(categories), desc="benchmark", unit="category") as progress:
        for detector in detectors:
            for category in categories:
                progress.set_postfix_str(f"{detector.name}, {category.name}", refresh=False)
                detector.prepare(category.name, support_images(category, detector.backbone, shots, seed))
                out += rows(detector, category, *predict_category(detector, category, batch_size), shots)
                progress.update()
    return pd.DataFrame(out, columns=COLUMNS)


def summary(table, metrics=("image_auroc", "pixel_auroc", "pixel_aupro")):
    """Mean over categories, in per cent: one row per (dataset, method, shots), one column per metric."""
    table = table[table.metric.isin(metrics)]
    means = table.pivot_table(index=["dataset", "method", "shots"], columns="metric", values="value", sort=False)
    return (100 * means).reindex(columns=[m for m in metrics if m in means.columns]).round(1)


def reported(table):
    """The summary that may be quoted: without the development categories, on which choices were made."""
    return summary(table[~table.dataset.str.contains("development")])


def markdown(table):
    """A summary as a Markdown table, for the README."""
    flat = table.reset_index()
    lines = [list(flat.columns), ["---"] * flat.shape[1]]
    lines += [["" if pd.isna(v) else str(v) for v in row] for row in flat.itertuples(index=False)]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)
