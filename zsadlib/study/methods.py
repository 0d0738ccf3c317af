"""A method ready to be prepared: built from a profile, taught where it learns, and never scored on what taught it."""

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from zsadlib import detectors
from zsadlib.datasets.catalogue import load_split
from zsadlib.detectors.base import LEARNED, Sees
from zsadlib.files import CACHE, replacing
from zsadlib.models import store
from zsadlib.models.aligner import to_map
from zsadlib.provenance import json_hash, libraries, source_hash, versions
from zsadlib.study.units import class_name, pictures, score_category

FITTED = CACHE / "fitted"
APART = {"miniad-development", "miniad-seen-test", "textile", "mvtec-ad", "visa"}  # sets that share no picture


def build_detector(method, profile, backbone, weights=None):
    """A method by its name in the tables, with the profile's settings, taught if it learns.

    Args:
        weights: what it learned before (``Detector.weights``), to be taken instead of learning.

    Raises:
        ValueError: there is no such method, or the weights are not its own.
    """
    return taught(detectors.method(method).from_profile(profile, backbone), profile, weights=weights)


def build_detectors(units, profile, backbone):
    """``build_detector`` for every method among the units: dict of method -> ``Detector``."""
    return {method: build_detector(method, profile, backbone) for method in dict.fromkeys(u.method for u in units)}


def lessons(profile):
    """The categories that teach: the profile's development sets (a few of their images in a dry run)."""
    return load_split(profile.development, 2 if profile.dry_run else 0)


def taught(detector, profile, keep=True, weights=None):
    """A detector that has learned what it learns (``Detector.fit``), now or in an earlier run.

    What it learned is kept under a hash of the categories that taught it, its class, source code and settings, the backbone, and
    the versions of the libraries; with ``keep=False`` (a class that is being written) it learns each time.

    Args:
        weights: dict of name -> tensor, to be taken instead; nothing is learned then, nor kept.

    Raises:
        ValueError: the weights are not its own.
    """
    if weights:
        try:
            return detector.load_weights(weights)
        except (LookupError, ValueError, RuntimeError) as error:
            why = f"{type(error).__name__}: {' '.join(str(error).split())}"
            raise ValueError(
                f"{detector.name} cannot take the weights that were given ({why}); give what its own weights() returned, or "
                "leave them out and it learns"
            ) from error
    if not detector.sees & LEARNED or detector.weights():
        return detector
    categories = lessons(profile)
    if not keep:
        return detector.fit(categories)
    made_by, learned_from = type(detector).__module__, [(c.dataset, c.name, c.noun, pictures(c)) for c in categories]
    about = {
        "method": detector.name, "class": class_name(detector), "settings": detector.fit_settings(), "needs": detector.needs,
        "categories": learned_from, "backbone": detector.backbone.fingerprint, "code": source_hash(made_by),
        "versions": versions(*libraries(made_by)),
    }  # fmt: skip
    file = FITTED / f"{json_hash(about)}.safetensors"
    try:
        return detector.load_weights(load_file(file))
    except (OSError, SafetensorError, LookupError, ValueError, RuntimeError):  # not there, or damaged: learn
        detector.fit(categories)
    with replacing(file) as temporary:
        save_file({name: tensor.contiguous() for name, tensor in detector.weights().items()}, temporary)
    return detector


def _held(categories):
    """Hashes of all test pictures of some categories."""
    return {store.digest(sample.path) for category in categories for sample in category.test}


def _apart(profile):
    """Whether names alone tell that no picture is in development and in test sets: a part of a set is in both where the set is,
    and a folder may hold anything."""
    development, test = (
        {name.partition(":")[0] for name in names} for names in (profile.development, profile.reported)
    )
    return development | test <= APART and not development & test


def refuse_what_taught(method, profile, categories):
    """ValueError where a method would be scored on pictures that teach it, wherever they lie and whatever their set is called.

    Only unlabelled pictures of the development sets may be both, where no test set holds them, too. What the sets hold is read
    only where their names leave it open.

    Args:
        method: a ``Detector`` or its class: this can be told before anything is learned.
    """
    learned = method.sees & LEARNED
    without_labels = learned == {Sees.OTHER_PICTURES}
    if not learned or (without_labels and _apart(profile)):
        return
    known = _held(lessons(profile))
    if without_labels and known & _held(categories):
        known &= _held(load_split(profile.reported))
    for category in categories:
        if known & _held([category]):
            raise ValueError(
                f"{method.name} learned from {category.name} and cannot be scored on it; score other categories, or name "
                "other sets under 'development' in the profile"
            )


def profile_aligner(profile, backbone):
    """The aligner of a profile: the committed one where it fits, else fitted on unlabelled development images, and kept."""
    return build_detector("alfa", profile, backbone).aligner


def predict_category(detector, category):
    """Scores (n,) float64 and maps (n, size, size) float32 of a category's test images, in order; no maps (None) where the
    method finds no places."""
    scores, patches = score_category({None: detector}, category)[None]
    return scores.double().numpy(), None if patches is None else to_map(patches, detector.map_size).numpy()
