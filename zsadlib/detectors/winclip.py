"""WinCLIP (Jeong et al., CVPR 2023): static prompt ensemble, windows of 2 x 2 and 3 x 3 patches, harmonic means."""

import torch

from zsadlib import scoring
from zsadlib.aligner import harmonic_mean
from zsadlib.detectors.base import MAP_SIZE, Detector, Memory, harmonic
from zsadlib.prompts import load_bank


class WinClip(Detector):
    """Zero-shot: words only."""

    name = "winclip"

    def __init__(self, backbone, map_size=MAP_SIZE, window_sizes=(2, 3)):
        super().__init__(backbone, map_size)
        self.window_sizes = tuple(window_sizes)

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
            harmonic_mean(scoring.anomaly_score(encoded.windows[k], *text), self.backbone.grid, k)
            for k in self.window_sizes
        ]
        return image_score, harmonic([*language, image_score[:, None]])


class WinClipPlus(WinClip):
    """WinCLIP+: few-shot. The words and the distance to the nearest normal feature, at every scale, averaged."""

    name = "winclip+"

    def prepare(self, category, support=None):
        if support is None:
            raise ValueError("winclip+ needs support images; use winclip without them")
        super().prepare(category)
        self.memories = {k: Memory(support.windows[k]) for k in self.window_sizes} | {1: Memory(support.patches)}
        return self

    def score(self, encoded):
        image_score, patches = super().score(encoded)
        grid = self.backbone.grid
        far = [harmonic_mean(self.memories[k](encoded.windows[k]), grid, k) for k in self.window_sizes]
        far = torch.stack([*far, self.memories[1](encoded.patches)]).mean(0)
        return (image_score + far.amax(1)) / 2, (patches + far) / 2
