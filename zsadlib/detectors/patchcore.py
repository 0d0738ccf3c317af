"""A PatchCore-style memory (Roth et al., CVPR 2022) on the study's own backbone: normal patches only, no words.

With one to four support images the memory is small, so no coreset is drawn and the image score is the largest patch score,
without the paper's reweighting. Its backbone is a WideResNet-50, whose features it averages over 3 x 3 places; here it shares
ours, so that the words make the difference, and a transformer's tokens have seen their neighbours already (averaging them
lost 2 points of pixel AUROC and 10 of AUPRO on development categories).
"""

import torch
from torch.nn import functional as F

from zsadlib.detectors.base import MAP_SIZE, Detector, Memory, Scores, Sees
from zsadlib.models import encoded as need


class PatchCore(Detector):
    """Distance to the nearest patch of a few normal images. ``layers``: blocks whose patch tokens are joined, from 1."""

    name, sees = "patchcore", frozenset({Sees.NORMALS})

    def __init__(self, backbone, map_size=MAP_SIZE, layers=(1,)):
        super().__init__(backbone, map_size)
        self.needs = need.layers(*layers)

    @classmethod
    def from_profile(cls, profile, backbone):
        return cls(backbone, profile.map_size, profile.layers)

    def features(self, encoded):
        """(batch, grid * grid, width * layers): the tokens of each layer, normalised and joined."""
        return torch.cat([F.normalize(encoded.extra[layer], dim=-1) for layer in self.needs], -1)

    def prepare(self, category, support=None):
        if support is None:
            raise ValueError("patchcore needs support images; use winclip or alfa without them")
        self.memory = Memory(self.features(support))
        return self

    def score(self, encoded):
        patches = self.memory(self.features(encoded))
        return Scores(patches.amax(1), patches)
