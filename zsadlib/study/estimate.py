"""What a full run would cost on this machine, extrapolated from a few images."""

import time
from collections import defaultdict
from dataclasses import replace

import numpy as np
import pandas as pd

from zsadlib.evaluation.metrics import PIXELS
from zsadlib.models.encoded import Encoded, needs_of
from zsadlib.models.store import batches
from zsadlib.study.benchmark import few_shot, zero_shot
from zsadlib.study.methods import build_detectors
from zsadlib.study.units import measure, truth_of

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
    needs = needs_of(built.values())
    encoding, held, took = [], 0, defaultdict(lambda: defaultdict(list))
    for category in categories:
        n, began = len(category.test), time.perf_counter()
        paths = [s.path for s in category.test]
        encoded = Encoded.join(backbone.encode(batch, needs) for batch in batches(backbone, paths))
        encoding.append((time.perf_counter() - began) / n)
        whole = any(detector.transductive for detector in built.values())
        tensors = [encoded.image, encoded.patches, *encoded.extra.values()] if whole else []
        held = 2 * sum(t.nbytes for t in tensors) / n  # twice while they are joined
        for method, detector in built.items():
            detector.prepare(category.noun, encoded[:1] if method in profile.few_shot else None)
            for times in SIZES:
                many = np.tile(np.arange(n), times)
                labelled = replace(category, test=category.test * times)
                truth = truth_of(labelled, profile.map_size)
                began = time.perf_counter()
                scores = detector.score(encoded[many])
                measure(labelled, scores.image, scores.map, truth)
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
