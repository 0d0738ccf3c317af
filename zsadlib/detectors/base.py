"""What every method is: it says what it sees and needs; then ``from_profile``, ``fit``, ``prepare``, ``score``."""

from dataclasses import dataclass
from enum import StrEnum
from pathlib import PurePath

import numpy as np
import torch
from torch.nn import functional as F

from zsadlib.models.aligner import Aligner, to_map
from zsadlib.models.store import tensor_digest

MAP_SIZE = 192


class Sees(StrEnum):
    """What a method looks at beside the image that it judges; numbers of methods that see different things must not be compared
    without saying so."""

    OTHER_PICTURES = "pictures of other categories"
    OTHER_LABELS = "labels of other categories"
    OTHER_MASKS = "masks of other categories"
    NORMALS = "normals of the object"
    TEST_SET = "the unlabelled test set"
    VIDEO = "the whole video"


LEARNED = frozenset({Sees.OTHER_PICTURES, Sees.OTHER_LABELS, Sees.OTHER_MASKS})


def said(sees):
    """A set of ``Sees`` as it stands in the tables: "nothing" where it is empty."""
    return " + ".join(flag for flag in Sees if flag in sees) or "nothing"


@dataclass(frozen=True)
class Scores:
    """What a method says of a batch.

    Attributes:
        image: image scores (batch,), higher = more abnormal.
        map: patch scores (batch, grid * grid), or None for a method that finds no places.
        verdict: bool (batch,), for a method that decides by itself, or None. text: one answer per image, or None. Both are for
            whoever calls ``score``: the study, the inspector and the commands read ``image`` and ``map`` only.
    """

    image: torch.Tensor
    map: torch.Tensor | None = None
    verdict: torch.Tensor | None = None
    text: list[str] | None = None

    def maps(self, size):
        """Anomaly maps (batch, size, size), or None."""
        return None if self.map is None else to_map(self.map, size)


def _as_data(value):
    """An attribute as JSON data, what holds tensors by their hashes; TypeError for what is unknown."""
    match value:
        case None | str() | int() | float():
            return value
        case np.bool_() | np.integer() | np.floating():
            return value.item()
        case np.ndarray():
            return _as_data(value.tolist())
        case PurePath():
            return value.as_posix()
        case list() | tuple():
            return [_as_data(one) for one in value]
        case set() | frozenset():
            return sorted((_as_data(one) for one in value), key=repr)
        case dict() if all(isinstance(key, str) for key in value):
            return {key: _as_data(one) for key, one in value.items()}
        case dict():  # JSON would make strings of other keys
            return sorted((_as_data(pair) for pair in value.items()), key=repr)
        case torch.Tensor():
            return tensor_digest(value.detach().cpu())
        case torch.nn.Module():
            return [str(value), _as_data(dict(value.state_dict()))]
        case Aligner():
            return _as_data(value.matrix)
        case Memory():
            return _as_data(value.features)
    raise TypeError(f"something of type {type(value).__name__}")


class Detector:
    """A method, one file each beside this one; ``CONTRIBUTING.md`` has the recipe for a new one.

    Attributes:
        name: in the tables. sees: set of ``Sees``. needs: of the backbone, as pairs (``models.encoded``).
        banks: names of the prompt banks that it reads (``prompts.banks``). Their contents for the object at hand are part of
            the key under which a result is kept, so that a bank that is recorded anew makes it void.
    """

    name = ""
    sees = frozenset()
    needs = ()
    banks = ()

    def __init__(self, backbone, map_size=MAP_SIZE):
        self.backbone, self.map_size = backbone, map_size

    @classmethod
    def from_profile(cls, profile, backbone):
        """The method with a profile's settings."""
        return cls(backbone, profile.map_size)

    @property
    def transductive(self):
        """Whether ``score`` must be given a whole test set, or video, at a time."""
        return bool({Sees.TEST_SET, Sees.VIDEO} & self.sees)

    def settings(self):
        """What its scores depend on beside the images, the backbone and what it learned, as JSON data: a change makes old
        results void. By default every attribute, so that none is forgotten: plain data, paths, arrays, and hashes of tensors
        and of what is made of them. So ``load_weights`` must leave the attributes that ``fit`` leaves.

        Raises:
            TypeError: an attribute holds something else.
        """
        found = {}
        for name, value in vars(self).items():
            if name == "backbone":
                continue
            try:
                found[name] = _as_data(value)
            except TypeError as error:
                raise TypeError(
                    f"attribute '{name}' of {type(self).__name__} holds {error}, of which no key can be made; override "
                    "settings() and return what the scores depend on, as JSON data"
                ) from None
        return found

    # What a method learns, it learns in ``fit``; the runner keeps it and calls ``fit`` only where it is not there yet.

    def fit(self, categories):
        """Learn from categories that are never scored. Most methods learn nothing."""
        return self

    def fit_settings(self):
        """What ``fit`` depends on beside the pictures and the backbone, as JSON data."""
        return self.settings()

    def weights(self):
        """What ``fit`` has learned: dict of name -> tensor, empty where it learned nothing."""
        return {}

    def load_weights(self, weights):
        """Take back what ``weights`` gave."""
        return self

    # One object at a time.

    def prepare(self, category, support=None):
        """Get ready for one object.

        Args:
            category: the word for it in a prompt. support: ``Encoded`` of a few normal images, which makes the method few-shot.

        Raises:
            ValueError: the method takes no support images, or cannot do without.
        """
        raise NotImplementedError

    def score(self, encoded):
        """``Scores`` of ``Encoded`` images."""
        raise NotImplementedError

    def encode(self, batch):
        """One forward pass, with whatever else this method needs."""
        return self.backbone.encode(batch, self.needs)

    def predict(self, batch):
        """Preprocessed images (batch, 3, size, size) -> image scores (batch,), maps (batch, map_size, map_size)."""
        scores = self.score(self.encode(batch))
        return scores.image, scores.maps(self.map_size)


class Memory:
    """Features of a few normal images; the distance to the nearest one is an anomaly score (WinCLIP+)."""

    def __init__(self, features):
        self.features = F.normalize(features.flatten(0, 1), dim=-1)

    def __call__(self, features):
        """(batch, places, dim) -> (batch, places): min (1 - cosine) / 2 over the memory."""
        nearest = [(F.normalize(one, dim=-1) @ self.features.T).amax(-1) for one in features]  # one by one: memory
        return (1 - torch.stack(nearest).clamp_max(1)) / 2


def harmonic(parts):
    """Harmonic mean of a list of scores of broadcastable shapes."""
    return len(parts) / torch.stack(torch.broadcast_tensors(*parts)).clamp_min(1e-6).reciprocal().sum(0)
