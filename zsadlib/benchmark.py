"""Methods times categories: resumable units of work, and the tidy table that they make."""

import hashlib
import json
import time
from collections import defaultdict
from copy import copy
from dataclasses import asdict, dataclass, replace
from functools import cache
from pathlib import Path

import numpy as np
import pandas as pd
from tqdm.auto import tqdm

from zsadlib import detectors, store
from zsadlib.aligner import RIDGE, Aligner, Upsampled, to_map
from zsadlib.backbones import Encoded, load_backbone
from zsadlib.datasets import load_image, load_mask, load_split
from zsadlib.embedded import NAME, WEIGHTS
from zsadlib.files import CACHE, replacing, sha256
from zsadlib.metrics import PIXELS, Truth, image_metrics, pixel_metrics
from zsadlib.prompts import load_bank

COLUMNS = ["method", "sees", "dataset", "category", "shots", "seed", "metric", "value"]
EMBEDDED_ALIGNER = WEIGHTS.with_name(f"{NAME}-aligner.safetensors")
UNITS = CACHE / "units"
ALIGNERS = CACHE / "aligners"


def batches(backbone, paths):
    """Preprocessed images (up to ``backbone.batch_size``, 3, size, size) of the files, in order."""
    for start in range(0, len(paths), backbone.batch_size):
        yield backbone.preprocess([load_image(p) for p in paths[start : start + backbone.batch_size]])


def profile_backbone(profile):
    """The backbone that a profile names."""
    backbone = load_backbone(
        profile.backbone, profile.pretrained, profile.device, profile.dry_run, profile.image_size, profile.precision
    )
    backbone.batch_size = profile.batch_size
    return backbone


@cache
def profile_aligner(profile, backbone):
    """The aligner of a profile: the committed one where it fits, else fitted on unlabelled development images, and kept."""
    if profile.backbone == NAME and profile.pretrained == "embedded":
        aligner = Aligner.load(EMBEDDED_ALIGNER)
        if aligner.about["window"] == profile.aligner_window and aligner.about["weights_sha256"] == sha256(WEIGHTS):
            return aligner
    step = 50 if profile.dry_run else 4
    paths = [sample.path for c in load_split(profile.development) for sample in c.test[::step]]
    about = [backbone.fingerprint, profile.aligner_window, RIDGE, *map(store.digest, paths)]
    kept = ALIGNERS / f"{_hash(about)}.safetensors"
    if not kept.is_file():
        fit_aligner(backbone, paths, profile.aligner_window).save(kept, window=profile.aligner_window)
    return Aligner.load(kept)


def fit_aligner(backbone, paths, k, **options):
    """``Aligner.fit`` on image files."""
    return Aligner.fit(backbone, store.encode_batches(backbone, paths, (k,)), k, **options)


def _hash(about):
    return hashlib.sha256(json.dumps(about, sort_keys=True).encode()).hexdigest()


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


def build_detectors(units, profile, backbone):
    """``build_detector`` for every method among the units: dict of method -> ``Detector``."""
    return {method: build_detector(method, profile, backbone) for method in dict.fromkeys(u.method for u in units)}


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


def truth_of(category, size):
    """``metrics.Truth`` of all test images, a mask at a time."""
    return Truth(load_mask(s, size)[None] for s in category.test)


def encode_category(backbone, category, window_sizes=(), layers=(), values=()):
    """``Encoded`` of all test images of a category, in order."""
    return store.encode(backbone, [s.path for s in category.test], window_sizes, layers, values)


def score_category(prepared, category):
    """A category's test images by several methods, every image read once and none kept: only the scores grow with the set.

    A transductive method needs the whole set at a time, and gets it.

    Args:
        prepared: dict of anything -> prepared ``Detector``, all of one backbone.

    Returns:
        dict of the same keys -> image scores (n,), patch scores (n, grid * grid), in the order of the images.
    """
    backbone = next(iter(prepared.values())).backbone
    sizes, layers = _needs(prepared.values())
    whole = {key: [] for key, detector in prepared.items() if detector.transductive}
    found, end = {}, 0
    for encoded in store.encode_batches(backbone, [s.path for s in category.test], sizes, layers):
        start, end = end, end + len(encoded.image)
        for key, detector in prepared.items():
            own = encoded.only(detector.window_sizes, detector.layers)
            if key in whole:
                whole[key].append(own)
                continue
            scores = detector.score(own)
            if key not in found:  # room for all: what stays between large tensors that go would fragment the memory
                found[key] = tuple(one.new_empty(len(category.test), *one.shape[1:]) for one in scores)
            for room, one in zip(found[key], scores, strict=True):
                room[start:end] = one
    return found | {key: prepared[key].score(Encoded.join(parts)) for key, parts in whole.items()}


def predict_category(detector, category):
    """Scores (n,) float64 and maps (n, size, size) float32 of a category's test images, in order."""
    scores, patches = score_category({None: detector}, category)[None]
    return scores.double().numpy(), to_map(patches, detector.map_size).numpy()


def measure(category, scores, patches, truth=None):
    """Image metrics, and with ``truth`` pixel metrics: dict of metric -> value in [0, 1].

    Args:
        scores: (n,). patches: (n, grid * grid). truth: ``metrics.Truth`` of the same images, at the size of the maps.
    """
    values = image_metrics(category.labels, scores.double().numpy())
    if truth is not None:
        values |= pixel_metrics(truth, Upsampled(patches, truth.shape[0]))
    return values


@cache
def _code():
    """Hash of the sources that a score or a metric passes through: a changed line makes every kept unit void."""
    here = Path(__file__).parent
    names = ("aligner", "benchmark", "metrics", "prompts", "scoring", "store")  # the others are in the fingerprint
    return _hash(
        [sha256(path) for path in [*(here / f"{n}.py" for n in names), *sorted((here / "detectors").glob("*.py"))]]
    )


def _pictures(category):
    """A category's files: contents, kinds and order."""
    test = [(s.kind, store.digest(s.path), s.mask_path and store.digest(s.mask_path)) for s in category.test]
    return [[store.digest(path) for path in category.train], test]


def unit_file(unit, detector, category):
    """Where a unit's result is kept: named by a hash of all that it depends on."""
    banks = [load_bank(bank, category.noun).model_dump_json() for bank in getattr(detector, "banks", ())]
    about = {
        "unit": asdict(unit), "settings": detector.settings(), "map_size": detector.map_size, "noun": category.noun,
        "backbone": detector.backbone.fingerprint, "pictures": _pictures(category), "banks": banks, "code": _code(),
    }  # fmt: skip
    name = _hash(about)
    return UNITS / name[:2] / f"{name}.json"


def keep(file, result):
    """Write a unit's result (JSON data) where ``unit_file`` says, whole or not at all."""
    with replacing(file) as temporary:
        temporary.write_text(json.dumps(result))


def complete(category, units, built, files):
    """The units of one category: yields each with its result, kept from an earlier run or computed and kept now.

    Args:
        built: dict of method -> ``Detector``. files: dict of unit -> where it is kept; a unit that is not there is not kept.
    """
    done = [unit for unit in units if unit in files and files[unit].is_file()]
    for unit in done:
        yield unit, json.loads(files[unit].read_text())
    for unit, result in _run([unit for unit in units if unit not in done], built, category):
        if unit in files:
            keep(files[unit], result)
        yield unit, result


def check(categories):
    """ValueError where a category has not both classes."""
    for category in categories:
        if len(set(category.labels)) < 2:
            raise ValueError(f"{category.name} has only one class in test/; metrics need good and defective images")


def evaluate(profile, backbone, categories, units, built=None):
    """Every unit on every category: a tidy DataFrame with ``COLUMNS``, values in [0, 1].

    Each unit is kept when it is done, so that a stopped run goes on where it was and a changed setting runs again only what
    depends on it.

    Args:
        units: such as ``zero_shot(profile)``. built: dict of method -> ``Detector`` for methods that are not the profile's
            (a class of your own); they are run each time. The others are built by ``build_detector``.

    Raises:
        ValueError: a category has only one class, or too few training images for the shots.
    """
    check(categories)
    own = built or {}
    built = build_detectors([unit for unit in units if unit.method not in own], profile, backbone) | own
    rows = []
    with tqdm(total=len(units) * len(categories), desc="benchmark", unit="unit") as progress:
        for category in categories:
            progress.set_postfix_str(category.name, refresh=False)
            files = {unit: unit_file(unit, built[unit.method], category) for unit in units if unit.method not in own}
            done = {}
            for unit, result in complete(category, units, built, files):
                done[unit] = result["metrics"]
                progress.update()
            for unit in units:
                sees = "support images" if unit.shots else built[unit.method].sees
                key = (unit.method, sees, category.dataset, category.name, unit.shots, unit.seed)
                rows += [(*key, metric, value) for metric, value in done[unit].items()]
    return pd.DataFrame(rows, columns=COLUMNS)


def _needs(methods):
    """Window sizes and layers that some detectors need together."""
    methods = list(methods)
    return tuple(
        tuple(sorted({k for method in methods for k in getattr(method, name)})) for name in ("window_sizes", "layers")
    )


def _run(units, built, category):
    """Compute units of one category, those of one draw together: yields each with its result (JSON data)."""
    sizes = {built[unit.method].map_size for unit in units} if category.has_masks else ()
    truth = {size: truth_of(category, size) for size in sizes}
    by_draw = defaultdict(list)
    for unit in units:
        by_draw[unit.seed if unit.shots else None].append(unit)
    for seed, drawn in by_draw.items():
        prepared, support = {}, None
        if seed is not None:
            paths = draw_support(category, max(unit.shots for unit in drawn), seed)
            needs = _needs(built[unit.method] for unit in drawn)
            backbone = built[drawn[0].method].backbone  # one by one: their last bits must not depend on the draw
            support = Encoded.join(store.encode_batches(backbone, paths, *needs, size=1))
        for unit in drawn:
            few = support[: unit.shots] if unit.shots else None
            prepared[unit] = copy(built[unit.method]).prepare(category.noun, few)
        for unit, (scores, patches) in score_category(prepared, category).items():
            values = measure(category, scores, patches, truth.get(prepared[unit].map_size))
            about = {"unit": asdict(unit), "dataset": category.dataset, "category": category.name}
            yield unit, about | {"metrics": values, "scores": scores.tolist()}


SIZES = (1, 4, 8)  # copies of a few images on which the cost of scoring is measured


def estimate(profile, backbone, categories, images):
    """What a full run of both benchmarks would cost here, extrapolated from a few images.

    Args:
        categories: small ones, to measure on. images: set -> list of the number of test images of its categories.

    Returns:
        DataFrame: set, images, units, hours, gigabytes (of the largest category; the model and Python come on top).
    """
    units = zero_shot(profile) + few_shot(profile)
    built = build_detectors(units, profile, backbone)
    sizes, layers = _needs(built.values())
    encoding, held, took = [], 0, defaultdict(lambda: defaultdict(list))
    for category in categories:
        n, began = len(category.test), time.perf_counter()
        paths = [s.path for s in category.test]
        encoded = Encoded.join(backbone.encode(b, sizes, layers) for b in batches(backbone, paths))
        encoding.append((time.perf_counter() - began) / n)
        whole = any(detector.transductive for detector in built.values())
        tensors = [encoded.image, encoded.patches, *encoded.layers.values()] if whole else []
        held = 2 * sum(t.nbytes for t in tensors) / n  # twice while they are joined
        for method, detector in built.items():
            detector.prepare(category.noun, encoded[:1] if method in profile.few_shot else None)
            for times in SIZES:
                many = np.tile(np.arange(n), times)
                labelled = replace(category, test=category.test * times)
                truth = truth_of(labelled, profile.map_size)
                began = time.perf_counter()
                measure(labelled, *detector.score(encoded[many]), truth)
                took[method][times * n].append(time.perf_counter() - began)
    costs = {
        method: np.polyfit(list(by_n), [np.mean(t) for t in by_n.values()], 2 if built[method].transductive else 1)
        for method, by_n in took.items()
    }
    rows = []
    for name, counts in images.items():
        total, support = sum(counts), len(counts) * max(profile.shots, default=0) * profile.draws
        seconds = np.mean(encoding) * (total + support)
        seconds += sum(max(0.0, np.polyval(costs[unit.method], n)) for unit in units for n in counts)
        sorting = 12 * min(PIXELS, max(counts) * profile.map_size**2)  # bytes
        gigabytes = (max(counts) * held + sorting) / 1e9
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
