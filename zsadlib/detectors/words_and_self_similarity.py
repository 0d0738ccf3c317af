"""ALFA's words and the wordless baseline, added. Not ALFA: the paper has no such term. This project's own.

The log odds of the words get the oddness of the picture (``SelfSimilarity``), brought to their scale:

    score = sigmoid(log odds + WEIGHT * s * (oddness - m) / d)

m is the mean oddness of normal pictures; d and s are the standard deviations of oddness and log odds among them. All three are
learned from normal pictures of other categories: means and variances within each category, then averaged over the categories, so
that each counts the same and what differs from one object to the next is in no deviation. Pictures of one object are ranked as
by the sum of the two standardised scores. A normal picture of average oddness keeps the words' own probability, so 0.5 is their
neutral point for the average object; one whose good pictures are odder than most is moved as a whole, by several of its own
deviations, which no ranking within it shows and every threshold does. Places are treated alike, with m, d and s of the places of
normal pictures.
"""

from copy import copy

import torch

from zsadlib.detectors.alfa import Alfa
from zsadlib.detectors.base import MAP_SIZE, Detector, Scores, Sees
from zsadlib.detectors.self_similarity import SelfSimilarity
from zsadlib.models import encoded as need
from zsadlib.models import store
from zsadlib.prompts.banks import bank_files
from zsadlib.provenance import sha256

# On MiniAD's development categories the image AUROC was 0.916 with 0, 0.925 with 0.5, and 0.930 with 1 and with 2.
WEIGHT = 1.0


def log_odds(probability):
    """log(p / (1 - p)) of scores in [0, 1]; finite where they were rounded to 0 or 1."""
    return torch.logit(probability, eps=1e-6)


class WordsAndSelfSimilarity(Detector):
    """The sum of ALFA's words and of how unlike itself the picture is (not ALFA).

    Args:
        words: ``Alfa``; its aligner is fitted with the rest where it has none.
    """

    name = "words+self-similarity"
    sees = frozenset({Sees.OTHER_PICTURES, Sees.OTHER_LABELS})  # the labels tell which pictures are normal
    needs = need.oddness()

    def __init__(self, backbone, words, map_size=MAP_SIZE):
        super().__init__(backbone, map_size)
        self.words, self.wordless, self.normals = words, SelfSimilarity(backbone, map_size), None

    @classmethod
    def from_profile(cls, profile, backbone):
        return cls(backbone, Alfa.from_profile(profile, backbone), profile.map_size)

    @property
    def banks(self):
        """The prompt banks of the words."""
        return self.words.banks

    def settings(self):
        return self.words.settings()

    def fit_settings(self):
        answers = {bank: {name: sha256(path) for name, path in bank_files(bank).items()} for bank in self.banks}
        given = {name: store.tensor_digest(tensor) for name, tensor in self.words.weights().items()}
        return self.settings() | self.words.fit_settings() | {"answers": answers, "given": given}

    def fit(self, categories):
        """Learn what is usual among normal pictures; defective ones are read only where the words need an aligner."""
        if not self.words.weights():
            self.words.fit(categories)
        found = []
        for category in categories:
            normal = [i for i, sample in enumerate(category.test) if not sample.label]
            if not normal:
                continue
            # all pictures, in the batches of whoever scores them: what is kept of one must not depend on who came first
            encoded = store.encode(self.backbone, [sample.path for sample in category.test], self.needs)[normal]
            words, odd = copy(self.words).prepare(category.noun).score(encoded), self.wordless.score(encoded)
            for p, x in ((words.image, odd.image), (words.map, odd.map)):
                found.append(torch.stack([log_odds(p).var(correction=0), x.mean(), x.var(correction=0)]))
        if not found:
            raise ValueError(f"{self.name} learns from normal pictures of other categories, and there is none")
        spread, mean, odd_spread = torch.stack(found).unflatten(0, (-1, 2)).mean(0).T
        odd_spread = odd_spread.clamp_min(1e-12)  # a dry run's one picture a category has none
        self.normals = torch.stack([spread.sqrt(), mean, odd_spread.sqrt()], 1)
        return self

    def weights(self):
        """The aligner, and ``normals`` (2, 3): of images and of places the deviation of the log odds, and the mean and deviation
        of the oddness. Empty before ``fit``, even where the words came with an aligner."""
        return {} if self.normals is None else self.words.weights() | {"normals": self.normals}

    def load_weights(self, weights):
        self.words.load_weights(weights)
        self.normals = weights["normals"]
        return self

    def prepare(self, category, support=None):
        if support is not None:
            raise ValueError(f"{self.name} is zero-shot only; use winclip+, alfa or patchcore with support images")
        self.words = copy(self.words).prepare(category)  # copies of one detector may be prepared for different objects
        return self

    def score(self, encoded):
        words, odd = self.words.score(encoded), self.wordless.score(encoded)
        pairs = zip((words.image, words.map), (odd.image, odd.map), self.normals, strict=True)
        image, places = (log_odds(p) + WEIGHT * s * (x - m) / d for p, x, (s, m, d) in pairs)
        return Scores(image.double().sigmoid(), places.sigmoid())  # in float32 images of an odd object would tie near 1
