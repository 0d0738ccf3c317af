"""WinCLIP (Jeong et al., CVPR 2023): static prompt ensemble, windows of 2 x 2 and 3 x 3 patches, harmonic means."""

import torch

from zsadlib.detectors.base import MAP_SIZE, Detector, Memory, Scores, Sees, harmonic
from zsadlib.models import encoded as need
from zsadlib.models.aligner import harmonic_mean
from zsadlib.prompts import scoring
from zsadlib.prompts.banks import load_bank


class WinClip(Detector):
    """Zero-shot: words only."""

    name = "winclip"

    def __init__(self, backbone, map_size=MAP_SIZE, window_sizes=(2, 3)):
        super().__init__(backbone, map_size)
        self.window_sizes = tuple(window_sizes)
        self.needs = need.windows(*window_sizes)

    @classmethod
    def from_profile(cls, profile, backbone):
        return cls(backbone, profile.map_size, profile.window_sizes)

    def prepare(self, category, support=None):
        if support is not None:
            raise ValueError("winclip is zero-shot; use winclip+ with support images")
        bank = load_bank("static", category).answers
        self.text = [scoring.side_embedding(self.backbone, side) for side in (bank.normal, bank.abnormal)]
        return self

    def score(self, encoded):
        text = [t.expand(len(encoded.image), -1) for t in self.text]
        image_score = scoring.anomaly_score(encoded.image, *text)
        language = [
            harmonic_mean(scoring.anomaly_score(encoded.extra["windows", k], *text), self.backbone.grid, k)
            for k in self.window_sizes
        ]
        return Scores(image_score, harmonic([*language, image_score[:, None]]))


class WinClipPlus(WinClip):
    """WinCLIP+: few-shot. The words and the distance to the nearest normal feature, at every scale, averaged."""

    name, sees = "winclip+", frozenset({Sees.NORMALS})

    def prepare(self, category, support=None):
        if support is None:
            raise ValueError("winclip+ needs support images; use winclip without them")
        super().prepare(category)
        self.memories = {k: Memory(support.extra["windows", k]) for k in self.window_sizes} | {
            1: Memory(support.patches)
        }
        return self

    def score(self, encoded):
        words = super().score(encoded)
        grid = self.backbone.grid
        far = [harmonic_mean(self.memories[k](encoded.extra["windows", k]), grid, k) for k in self.window_sizes]
        far = torch.stack([*far, self.memories[1](encoded.patches)]).mean(0)
        return Scores((words.image + far.amax(1)) / 2, (words.map + far) / 2)
