"""Methods times categories: resumable units of work, and the tidy table that they make."""

import hashlib
import json
import time
from collections import defaultdict
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path

import numpy as np
import pandas as pd
from tqdm.auto import tqdm

from zsadlib import detectors, store
from zsadlib.aligner import Aligner, to_map
from zsadlib.backbones import Encoded, load_backbone
from zsadlib.datasets import load_image, load_mask, load_split
from zsadlib.embedded import NAME, WEIGHTS
from zsadlib.files import CACHE, replacing, sha256
from zsadlib.metrics import image_metrics, pixel_metrics, region_weights
from zsadlib.prompts import load_bank

COLUMNS = ["method", "sees", "dataset", "category", "shots", "seed", "metric", "value"]
EMBEDDED_ALIGNER = WEIGHTS.with_name(f"{NAME}-aligner.safetensors")
UNITS = CACHE / "units"


def batches(backbone, paths, batch_size):
    """Preprocessed images (up to ``batch_size``, 3, size, size) of the files, in order."""
    for start in range(0, len(paths), batch_size):
        yield backbone.preprocess([load_image(p) for p in paths[start : start + batch_size]])


def profile_backbone(profile):
    """The backbone that a profile names."""
    return load_backbone(
        profile.backbone, profile.pretrained, profile.device, profile.dry_run, profile.image_size, profile.precision
    )


@cache
def profile_aligner(profile, backbone):
    """The aligner of a profile: the committed one where it fits, else fitted on unlabelled development images."""
    if profile.backbone == NAME and profile.pretrained == "embedded":
        aligner = Aligner.load(EMBEDDED_ALIGNER)
        if aligner.about["window"] == profile.aligner_window and aligner.about["weights_sha256"] == sha256(WEIGHTS):
            return aligner
    step = 50 if profile.dry_run else 4
    paths = [sample.path for c in load_split(profile.development) for sample in c.test[::step]]
    return fit_aligner(backbone, paths, profile.aligner_window)


def fit_aligner(backbone, paths, k, batch_size=16, **options):
    """``Aligner.fit`` on image files."""
    parts = [paths[start : start + batch_size] for start in range(0, len(paths), batch_size)]
    encoded = (store.encode(backbone, part, batch_size, (k,)) for part in tqdm(parts, "aligner", leave=False))
    return Aligner.fit(backbone, encoded, k, **options)


def build_detector(method, profile, backbone, aligner=None):
    """A detector by its name in the tables, with the profile's settings."""
    if method not in detectors.METHODS:
        raise ValueError(f"unknown method '{method}'; choose one of {', '.join(detectors.METHODS)}")
    build, size = detectors.METHODS[method], profile.map_size
    if method == "alfa":
        return build(backbone, aligner or profile_aligner(profile, backbone), profile.banks, profile.reading, size)
    if method in ("winclip", "winclip+"):
        return build(backbone, size, profile.window_sizes)
    if method in ("patchcore", "musc"):
        return build(backbone, size, profile.layers)
    return build(backbone, size)


@dataclass(frozen=True, order=True)
class Unit:
    """What is computed, kept and, after a stop, not computed again: one method on one category with one draw of images."""

    method: str
    shots: int = 0
    seed: int = 0


def zero_shot(profile):
    """The profile's units without support images."""
    return [Unit(method, 0, profile.seed) for method in profile.methods]


def few_shot(profile):
    """The profile's few-shot units: every method, number of shots and draw of the support images."""
    seeds = range(profile.seed, profile.seed + profile.draws)
    return [Unit(method, shots, seed) for method in profile.few_shot for shots in profile.shots for seed in seeds]


def draw_support(category, shots, seed):
    """``shots`` normal training images (paths), drawn by ``seed``; a larger draw contains the smaller one.

    Raises:
        ValueError: the category has fewer.
    """
    if shots > len(category.train):
        raise ValueError(f"{category.name} has {len(category.train)} images in train/good; {shots} shots are too many")
    order = np.random.default_rng(seed).permutation(len(category.train))
    return [category.train[i] for i in order[:shots]]


def masks_of(category, size):
    """Ground truth of all test images, bool (n, size, size)."""
    return np.stack([load_mask(s, size) for s in category.test])


def encode_category(backbone, category, batch_size=16, window_sizes=(), layers=()):
    """``Encoded`` of all test images of a category, in order: for studies that score the same images many times."""
    return store.encode(backbone, [s.path for s in category.test], batch_size, window_sizes, layers)


def predict_category(detector, category, batch_size=16):
    """Scores (n,) float64 and maps (n, size, size) float32 of a category's test images, in order."""
    encoded = encode_category(detector.backbone, category, batch_size, detector.window_sizes, detector.layers)
    scores, patches = detector.score(encoded)
    return scores.double().numpy(), to_map(patches, detector.map_size).numpy()


def measure(category, scores, patches, masks=None, weights=None):
    """Image metrics, and with ``masks`` (n, size, size) pixel metrics: dict of metric -> value in [0, 1].

    Args:
        scores: (n,). patches: (n, grid * grid). weights: ``metrics.region_weights(masks)``, to compute them once.
    """
    values = image_metrics(category.labels, scores.double().numpy())
    if masks is not None:
        values |= pixel_metrics(masks, to_map(patches, masks.shape[-1]).numpy(), weights)
    return values


@cache
def _code():
    """Hash of the sources that a score or a metric passes through: a changed line makes every kept unit void."""
    here, names = (
        Path(__file__).parent,
        ("aligner", "backbones", "datasets", "embedded", "metrics", "prompts", "scoring"),
    )
    files = [Path(__file__), *(here / f"{name}.py" for name in names), *sorted((here / "detectors").glob("*.py"))]
    return hashlib.sha256("".join(map(sha256, files)).encode()).hexdigest()


@cache
def _pictures(category):
    """Hash of a category's files: contents, kinds and order."""
    lines = [sha256(path) for path in category.train]
    lines += [f"{s.kind} {sha256(s.path)} {s.mask_path and sha256(s.mask_path)}" for s in category.test]
    return hashlib.sha256("\n".join(map(str, lines)).encode()).hexdigest()


def unit_file(unit, detector, category):
    """Where a unit's result is kept: named by a hash of all that it depends on."""
    banks = [load_bank(bank, category.noun).model_dump_json() for bank in getattr(detector, "banks", ())]
    about = {
        "unit": asdict(unit), "settings": detector.settings(), "map_size": detector.map_size, "noun": category.noun,
        "backbone": detector.backbone.fingerprint, "pictures": _pictures(category), "banks": banks, "code": _code(),
    }  # fmt: skip
    name = hashlib.sha256(json.dumps(about, sort_keys=True).encode()).hexdigest()
    return UNITS / name[:2] / f"{name}.json"


def evaluate(profile, backbone, categories, units, built=None):
    """Every unit on every category: a tidy DataFrame with ``COLUMNS``, values in [0, 1].

    A category's images are encoded once for all units; each unit is kept when it is done, so that a stopped run goes on where
    it was and a changed setting runs again only what depends on it.

    Args:
        units: such as ``zero_shot(profile)``. built: dict of method -> ``Detector`` for methods that are not the profile's
            (a class of your own); the others are built by ``build_detector``.

    Raises:
        ValueError: a category has only one class, or too few training images for the shots.
    """
    for category in categories:
        if len(set(category.labels)) < 2:
            raise ValueError(f"{category.name} has only one class in test/; metrics need good and defective images")
    built = dict(built or {})
    for method in dict.fromkeys(unit.method for unit in units):
        if method not in built:
            built[method] = build_detector(method, profile, backbone)
    rows = []
    with tqdm(total=len(units) * len(categories), desc="benchmark", unit="unit") as progress:
        for category in categories:
            files = {unit: unit_file(unit, built[unit.method], category) for unit in units}
            missing = [unit for unit, file in files.items() if not file.is_file()]
            progress.set_postfix_str(category.name, refresh=False)
            progress.update(len(units) - len(missing))
            for _ in _run(missing, built, category, backbone, profile.batch_size, files):
                progress.update()
            for unit, file in files.items():
                sees = "support images" if unit.shots else built[unit.method].sees
                key = (unit.method, sees, category.dataset, category.name, unit.shots, unit.seed)
                rows += [(*key, metric, value) for metric, value in json.loads(file.read_text())["metrics"].items()]
    return pd.DataFrame(rows, columns=COLUMNS)


def _needs(methods):
    """Window sizes and layers that some detectors need together."""
    methods = list(methods)
    return (sorted({k for method in methods for k in getattr(method, name)}) for name in ("window_sizes", "layers"))


def _run(units, built, category, backbone, batch_size, files):
    """Compute units of one category and keep each; yields them as they are done."""
    if not units:
        return
    sizes, layers = _needs(built[unit.method] for unit in units)
    encoded = encode_category(backbone, category, batch_size, sizes, layers)
    masks = masks_of(category, built[units[0].method].map_size) if category.has_masks else None
    weights = region_weights(masks) if category.has_masks else None
    by_draw = defaultdict(list)
    for unit in units:
        by_draw[unit.seed if unit.shots else None].append(unit)
    for seed, drawn in by_draw.items():
        if seed is not None:
            paths = draw_support(category, max(unit.shots for unit in drawn), seed)
            support = store.encode(backbone, paths, batch_size, sizes, layers)
        for unit in drawn:
            detector = built[unit.method].prepare(category.noun, support[: unit.shots] if unit.shots else None)
            scores, patches = detector.score(encoded)
            found = {"unit": asdict(unit), "dataset": category.dataset, "category": category.name}
            found |= {"metrics": measure(category, scores, patches, masks, weights), "scores": scores.tolist()}
            with replacing(files[unit]) as temporary:
                temporary.write_text(json.dumps(found))
            yield unit


def estimate(profile, backbone, categories, images):
    """What a full run of both benchmarks would cost here, extrapolated from a few images.

    Args:
        categories: small ones, to measure on. images: set -> list of the number of test images of its categories.

    Returns:
        DataFrame: set, images, units, hours, gigabytes (of the largest category; the model and Python come on top).
    """
    units = zero_shot(profile) + few_shot(profile)
    built = {method: build_detector(method, profile, backbone) for method in {unit.method for unit in units}}
    sizes, layers = _needs(built.values())
    encoding, scoring_, pairs, held = [], dict.fromkeys(built, 0.0), 0.0, 0
    for category in categories:
        n, began = len(category.test), time.perf_counter()
        paths = [s.path for s in category.test]
        encoded = Encoded.join(backbone.encode(b, sizes, layers) for b in batches(backbone, paths, profile.batch_size))
        encoding.append((time.perf_counter() - began) / n)
        tensors = [encoded.image, encoded.patches, *encoded.windows.values(), *encoded.layers.values()]
        held = sum(t.nbytes for t in tensors) / n
        masks = masks_of(category, profile.map_size)
        for method, detector in built.items():
            detector.prepare(category.noun, encoded[:1] if method in profile.few_shot else None)
            began = time.perf_counter()
            measure(category, *detector.score(encoded), masks)
            took = time.perf_counter() - began
            if detector.sees == "the unlabelled test set":
                pairs += took / n**2 / len(categories)
            else:
                scoring_[method] += took / n / len(categories)
    rows, pixel = [], 40 * profile.map_size**2  # bytes a pixel of a map costs while it is sorted
    for name, counts in images.items():
        total, support = sum(counts), len(counts) * max(profile.shots, default=0) * profile.draws
        seconds = np.mean(encoding) * (total + support) + pairs * sum(n**2 for n in counts)
        seconds += sum(scoring_[unit.method] * total for unit in units)
        gigabytes = max(counts) * (held + pixel) / 1e9
        row = {"set": name, "images": total, "units": len(units) * len(counts)}
        rows.append(row | {"hours": seconds / 3600, "gigabytes": gigabytes})
    return pd.DataFrame(rows)


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
    """The summary that may be quoted: without the development categories, on which choices were made."""
    return summary(table[~table.dataset.str.contains("development")])


def markdown(table):
    """A summary as a Markdown table, for the README."""
    flat = table.reset_index()
    lines = [list(flat.columns), ["---"] * flat.shape[1]]
    lines += [["" if pd.isna(v) else str(v) for v in row] for row in flat.itertuples(index=False)]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)
