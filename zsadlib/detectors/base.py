"""What every method is: ``fit`` (few need it), ``prepare(category)``, ``score(encoded)``."""

import torch
from torch.nn import functional as F

from zsadlib.aligner import to_map

MAP_SIZE = 192
TRANSDUCTIVE = "the unlabelled test set"


class Detector:
    """A method, one file each beside this one.

    A method says what it is allowed to see, for the column ``sees`` of the tables: "nothing" of the object (zero-shot), "the
    unlabelled test set" (transductive), "other categories" with their labels (trained). Support images are said per row.

    Attributes:
        name: in the tables. sees: as above. window_sizes, layers: what ``Backbone.encode`` has to compute for it.
    """

    name, sees = "", "nothing"
    window_sizes, layers = (), ()

    def __init__(self, backbone, map_size=MAP_SIZE):
        self.backbone, self.map_size = backbone, map_size

    @property
    def transductive(self):
        """Whether ``score`` must be given a whole test set at a time."""
        return self.sees == TRANSDUCTIVE

    def settings(self):
        """What its scores depend on beside the images and the backbone, as JSON data: a change makes old results void."""
        return {"window_sizes": self.window_sizes, "layers": self.layers}

    def fit(self, categories):
        """Learn from labelled categories that are never scored. Most methods learn nothing."""
        return self

    def prepare(self, category, support=None):
        """Get ready for one object.

        Args:
            category: the word for it in a prompt. support: ``Encoded`` of a few normal images, which makes the method few-shot.
        """
        raise NotImplementedError

    def score(self, encoded):
        """``Encoded`` images -> image scores (batch,) and patch scores (batch, grid * grid), higher = more abnormal."""
        raise NotImplementedError

    def encode(self, batch):
        """One forward pass, with whatever else this method needs."""
        return self.backbone.encode(batch, self.window_sizes, self.layers)

    def predict(self, batch):
        """Preprocessed images (batch, 3, size, size) -> image scores (batch,), maps (batch, map_size, map_size)."""
        image_scores, patches = self.score(self.encode(batch))
        return image_scores, to_map(patches, self.map_size)


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
