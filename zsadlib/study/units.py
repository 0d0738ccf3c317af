"""Units of work: one method on one category with one draw of support images; computed once, and kept."""

import json
from collections import defaultdict
from copy import copy
from dataclasses import asdict, dataclass

import numpy as np

from zsadlib.datasets.images import load_mask
from zsadlib.evaluation.metrics import Truth, image_metrics, pixel_metrics
from zsadlib.files import CACHE, replacing
from zsadlib.models import store
from zsadlib.models.aligner import Upsampled
from zsadlib.models.encoded import Encoded, needs_of
from zsadlib.prompts.banks import load_bank
from zsadlib.provenance import json_hash, libraries, source_hash, versions

UNITS = CACHE / "units"


@dataclass(frozen=True, order=True)
class Unit:
    """What is computed, kept and, after a stop, not computed again: one method on one category with one draw of images."""

    method: str
    shots: int = 0
    seed: int = 0


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


def encode_category(backbone, category, needs=()):
    """``Encoded`` of all test images of a category, in order."""
    return store.encode(backbone, [s.path for s in category.test], needs)


def score_category(prepared, category):
    """A category's test images by several methods, every image read once and none kept: only the scores grow with the set.

    A transductive method needs the whole set at a time, and gets it.

    Args:
        prepared: dict of anything -> prepared ``Detector``, all of one backbone.

    Returns:
        dict of the same keys -> image scores (n,) and patch scores (n, grid * grid) or None, in the order of the images.
    """
    backbone = next(iter(prepared.values())).backbone
    whole = {key: [] for key, detector in prepared.items() if detector.transductive}
    found, end = {}, 0
    for encoded in store.encode_batches(backbone, [s.path for s in category.test], needs_of(prepared.values())):
        start, end = end, end + len(encoded.image)
        for key, detector in prepared.items():
            own = encoded.only(detector.needs)
            if key in whole:
                whole[key].append(own)
                continue
            scores = detector.score(own)
            parts = scores.image, scores.map
            if key not in found:  # room for all: what stays between large tensors that go would fragment the memory
                found[key] = tuple(p if p is None else p.new_empty(len(category.test), *p.shape[1:]) for p in parts)
            for room, one in zip(found[key], parts, strict=True):
                if one is not None:
                    room[start:end] = one
    for key, parts in whole.items():
        scores = prepared[key].score(Encoded.join(parts))
        found[key] = scores.image, scores.map
    return found


def measure(category, scores, patches=None, truth=None):
    """Image metrics, and with patch scores and ``truth`` pixel metrics: dict of metric -> value in [0, 1].

    Args:
        scores: (n,). patches: (n, grid * grid). truth: ``metrics.Truth`` of the same images, at the size of the maps.
    """
    values = image_metrics(category.labels, scores.double().numpy())
    if truth is not None and patches is not None:
        values |= pixel_metrics(truth, Upsampled(patches, truth.shape[0]))
    return values


def pictures(category):
    """A category's files: contents, kinds, how masks are read, and order; not where they are."""
    masks = [s.mask_path and (store.digest(s.mask_path), s.palette) for s in category.test]
    test = [(s.kind, store.digest(s.path), mask) for s, mask in zip(category.test, masks, strict=True)]
    return [[store.digest(path) for path in category.train], test]


def weights_hash(weights):
    """Hash of what a method has learned: dict of name -> tensor."""
    return json_hash({name: store.tensor_digest(tensor) for name, tensor in sorted(weights.items())})


def class_name(detector):
    """The full name of a detector's class, for keys: one module may hold several."""
    return f"{type(detector).__module__}.{type(detector).__qualname__}"


def unit_file(unit, detector, category):
    """Where a unit's result is kept: named by a hash of all that it depends on, source code and libraries included."""
    banks = [load_bank(bank, category.noun).model_dump_json() for bank in detector.banks]
    made_by = type(detector).__module__, "zsadlib.study.units"
    about = {
        "unit": asdict(unit), "class": class_name(detector), "settings": detector.settings(),
        "learned": weights_hash(detector.weights()), "map_size": detector.map_size, "noun": category.noun,
        "backbone": detector.backbone.fingerprint, "pictures": pictures(category), "banks": banks,
        "code": source_hash(*made_by), "versions": versions(*libraries(*made_by)),
    }  # fmt: skip
    name = json_hash(about)
    return UNITS / name[:2] / f"{name}.json"


def keep(file, result):
    """Write a unit's result (JSON data) where ``unit_file`` says, whole or not at all."""
    with replacing(file) as temporary:
        temporary.write_text(json.dumps(result))


def kept(file):
    """A unit's result, or None where it is missing or not what ``keep`` wrote: then it is computed again."""
    try:
        result = json.loads(file.read_text())
        metrics, scores = result["metrics"], result["scores"]
        numbers = all(isinstance(value, float) for value in (*metrics.values(), *scores))
        return result if metrics and numbers and isinstance(scores, list) else None
    except (OSError, ValueError, TypeError, LookupError, AttributeError):
        return None


def complete(category, units, built, files):
    """The units of one category: yields each with its result, kept from an earlier run or computed and kept now.

    Args:
        built: dict of method -> ``Detector``. files: dict of unit -> where it is kept; a unit that is not there is not kept.
    """
    done = {unit: result for unit in units if unit in files and (result := kept(files[unit])) is not None}
    yield from done.items()
    for unit, result in _run([unit for unit in units if unit not in done], built, category):
        if unit in files:
            keep(files[unit], result)
        yield unit, result


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
            needs = needs_of(built[unit.method] for unit in drawn)
            backbone = built[drawn[0].method].backbone  # one by one: their last bits must not depend on the draw
            support = Encoded.join(store.encode_batches(backbone, paths, needs, size=1))
        for unit in drawn:
            few = support[: unit.shots] if unit.shots else None
            prepared[unit] = copy(built[unit.method]).prepare(category.noun, few)
        for unit, (scores, patches) in score_category(prepared, category).items():
            values = measure(category, scores, patches, truth.get(prepared[unit].map_size))
            about = {"unit": asdict(unit), "dataset": category.dataset, "category": category.name}
            yield unit, about | {"metrics": values, "scores": scores.tolist()}
