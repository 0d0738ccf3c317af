"""Methods times categories: the tidy table that their units make."""

import pandas as pd
from tqdm.auto import tqdm

from zsadlib import detectors
from zsadlib.detectors.base import Sees, said
from zsadlib.study.methods import build_detectors, refuse_what_taught, taught
from zsadlib.study.tables import COLUMNS
from zsadlib.study.units import Unit, complete, unit_file


def zero_shot(profile):
    """The profile's units without support images."""
    return [Unit(method, 0, profile.seed) for method in profile.methods]


def on_development(profile):
    """``zero_shot`` without the methods that learn from labels of the development categories: they must not be scored there."""
    learned = {Sees.OTHER_LABELS, Sees.OTHER_MASKS}
    return [unit for unit in zero_shot(profile) if not learned & detectors.method(unit.method).sees]


def few_shot(profile):
    """The profile's few-shot units: every method, number of shots and draw of the support images."""
    seeds = range(profile.seed, profile.seed + profile.draws)
    return [Unit(method, shots, seed) for method in profile.few_shot for shots in profile.shots for seed in seeds]


def check(categories):
    """ValueError where a category has not both classes."""
    for category in categories:
        if len(set(category.labels)) < 2:
            raise ValueError(f"{category.name} has only one class in test/; metrics need good and defective images")


def _results(profile, backbone, categories, units, own):
    """Yields each (category, unit, what the method sees, result) in order, computed or kept."""
    check(categories)
    for name in dict.fromkeys(unit.method for unit in units):
        refuse_what_taught(own.get(name) or detectors.method(name), profile, categories)
    built = build_detectors([unit for unit in units if unit.method not in own], profile, backbone)
    built |= {method: taught(detector, profile, keep=False) for method, detector in own.items()}
    with tqdm(total=len(units) * len(categories), desc="benchmark", unit="unit") as progress:
        for category in categories:
            progress.set_postfix_str(category.name, refresh=False)
            files = {unit: unit_file(unit, built[unit.method], category) for unit in units if unit.method not in own}
            done = {}
            for unit, result in complete(category, units, built, files):
                done[unit] = result
                progress.update()
            for unit in units:
                sees = built[unit.method].sees | ({Sees.NORMALS} if unit.shots else set())
                yield category, unit, said(sees), done[unit]


def evaluate(profile, backbone, categories, units, built=None):
    """Every unit on every category: a tidy DataFrame with ``COLUMNS``, values in [0, 1].

    Each unit is kept when it is done, so that a stopped run goes on where it was and a changed setting runs again only what
    depends on it.

    Args:
        units: such as ``zero_shot(profile)``. built: dict of method -> ``Detector`` for methods that are not the profile's
            (a class of your own); they are run each time. The others are built by ``build_detector``.

    Raises:
        ValueError: a category has only one class, or too few training images for the shots, or it taught a method.
    """
    rows = []
    for category, unit, sees, result in _results(profile, backbone, categories, units, built or {}):
        key = (unit.method, sees, category.dataset, category.name, unit.shots, unit.seed)
        rows += [(*key, metric, value) for metric, value in result["metrics"].items()]
    return pd.DataFrame(rows, columns=COLUMNS)


def image_scores(profile, backbone, categories, units):
    """The score of every image by every unit, so that others can test differences in pairs: a tidy DataFrame.

    Columns: method, dataset, category, image (its path below ``test``, kind first), label (1 = defective), shots, seed,
    image_score. Units that ``evaluate`` has computed are not computed again.
    """
    parts = []
    for category, unit, _, result in _results(profile, backbone, categories, units, {}):
        images = [f"{sample.kind}/{sample.path.name}" for sample in category.test]
        about = {"method": unit.method, "dataset": category.dataset, "category": category.name}
        about |= {"image": images, "label": category.labels, "shots": unit.shots, "seed": unit.seed}
        parts.append(pd.DataFrame(about | {"image_score": result["scores"]}))
    return pd.concat(parts, ignore_index=True)
