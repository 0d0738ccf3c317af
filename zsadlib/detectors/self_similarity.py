"""What a picture says of itself: the wordless baseline, on the frozen features that a small model's words may lean on.

A place is odd where the rest of its own image holds nothing like it. No word is read, nothing is learned and no other picture is
seen, so a method with words that does no better owes its number to something else than words. This project's own; the idea is
PatchCore's memory (Roth et al., CVPR 2022) with the image itself as the only normal picture.
"""

from zsadlib.detectors.base import Detector, Scores
from zsadlib.models import encoded as need

ONE_IN = 50  # the oddest 2 % of the places make the image score: one place may be noise, and a mean would dilute a small defect


class SelfSimilarity(Detector):
    """How unlike the rest of its own image a place is; no words. Image score: mean of the oddest 2 % of the places.

    Both scores are one minus a mean cosine similarity, in [0, 2]: of the frozen ImageNet features of an embedded model, of the
    patch tokens of any other (``Backbone.encode_oddness``).
    """

    name, needs = "self-similarity", need.oddness()

    def prepare(self, category, support=None):
        if support is not None:
            raise ValueError(f"{self.name} is zero-shot only; use winclip+, alfa or patchcore with support images")
        return self

    def score(self, encoded):
        places = encoded.extra["oddness", 0].mean(-1)
        oddest = places.topk(-(-places.shape[1] // ONE_IN), 1).values  # rounded up: at least one
        return Scores(oddest.mean(1), places)
