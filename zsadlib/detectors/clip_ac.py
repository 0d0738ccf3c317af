"""CLIP as it is: "a photo of a normal / an anomalous ..."; the map comes from the raw patch tokens."""

from zsadlib.detectors.base import Detector, Scores
from zsadlib.prompts import scoring


class ClipAC(Detector):
    """CLIP-AC, the plainest baseline. Zero-shot only."""

    name = "clip-ac"

    def prepare(self, category, support=None):
        if support is not None:
            raise ValueError("clip-ac is zero-shot only; use winclip+, alfa or patchcore with support images")
        self.text = [scoring.side_embedding(self.backbone, [f"{word} {category}"]) for word in ("normal", "anomalous")]
        return self

    def score(self, encoded):
        text = [t.expand(len(encoded.image), -1) for t in self.text]
        patches = scoring.anomaly_score(self.backbone.project(encoded.patches), *text)
        return Scores(scoring.anomaly_score(encoded.image, *text), patches)
