"""ALFA (Zhu et al., ACM MM 2024), a *reconstruction*: LLM prompts, contextual scoring per image, and the aligner for the map."""

from zsadlib.detectors.base import MAP_SIZE, Detector, Memory, Scores, Sees
from zsadlib.models.aligner import RIDGE, Aligner, fit_aligner, to_map
from zsadlib.prompts import scoring
from zsadlib.prompts.banks import load_bank


class Alfa(Detector):
    """ALFA (reconstruction): LLM prompts, contextual scoring per image, and the fitted aligner for the map.

    Few-shot, the words' scores are averaged with the distance to the nearest aligned place of the support images, as WinCLIP+
    does with windows (the paper names an extension, not its formula).

    Args:
        aligner: a fitted ``Aligner``, or None for the raw patch tokens until ``fit``. banks: names of the prompt banks to join.
        reading: of contextual scoring. window: side in patches of the windows on which ``fit`` fits the aligner.
        sentences: ``prompts.banks.Answers`` to use in place of banks.
    """

    name = "alfa"
    sees = frozenset({Sees.OTHER_PICTURES})  # by the aligner, without their labels

    def __init__(
        self, backbone, aligner, banks=("static",), reading="salience", map_size=MAP_SIZE, window=2, sentences=None
    ):
        super().__init__(backbone, map_size)
        self.aligner, self.banks, self.reading, self.window = aligner, tuple(banks), reading, window
        self.sentences = sentences

    @classmethod
    def from_profile(cls, profile, backbone):
        aligner = Aligner.committed(backbone, profile.aligner_window)
        return cls(backbone, aligner, profile.banks, profile.reading, profile.map_size, profile.aligner_window)

    def settings(self):
        own = self.sentences and self.sentences.model_dump()
        return {"banks": self.banks, "reading": self.reading, "sentences": own}

    def fit(self, categories):
        """Fit the aligner on every fourth picture of the categories, whatever it shows; no label is read."""
        paths = [sample.path for category in categories for sample in category.test[::4]]
        self.aligner = fit_aligner(self.backbone, paths, self.window)
        return self

    def fit_settings(self):
        return {"window": self.window, "ridge": RIDGE}

    def weights(self):
        return {} if self.aligner is None else {"aligner": self.aligner.matrix}

    def load_weights(self, weights):
        self.aligner = Aligner(weights["aligner"], self.backbone.name)
        return self

    def prepare(self, category, support=None):
        answers = [self.sentences] if self.sentences else [load_bank(bank, category).answers for bank in self.banks]
        self.ensemble = scoring.join_answers(self.backbone, category, answers)
        self.memory = Memory(self.place(support.patches)) if support is not None else None
        return self

    def place(self, patches):
        """Patch tokens in the shared space: through the aligner, or raw."""
        return self.aligner(patches) if self.aligner is not None else self.backbone.project(patches)

    def score(self, encoded):
        text = scoring.adapt(encoded.image, self.ensemble, self.reading)
        image_score = scoring.anomaly_score(encoded.image, *text)
        places = self.place(encoded.patches)
        patches = scoring.anomaly_score(places, *text)
        if self.memory:
            far = self.memory(places)
            patches, image_score = (patches + far) / 2, (image_score + far.amax(1)) / 2
        return Scores(image_score, patches)

    def explain(self, encoded, top=3, threshold=0.5):
        """The heaviest prompts of the side that won, each with its own map. (This project's reading of "in words".)

        A prompt is judged alone against the other side's adapted embedding. Its map says where this sentence sees something
        abnormal, which is nearly where the whole side does (notebook 9). Only words explain: the memory of a few-shot detector
        is left out.

        Args:
            encoded: ``Encoded`` images. top: prompts per image, largest weight first; those of weight 0 are left out.
            threshold: of the verdict: abnormal where the image score is at least this.

        Returns:
            per image a list of dicts: side, prompt, weight in [0, 1], score (P(abnormal) by this prompt alone), map
            (map_size, map_size) in [0, 1].
        """
        weights = dict(
            zip(("normal", "abnormal"), scoring.READINGS[self.reading](encoded.image, self.ensemble), strict=True)
        )
        text = dict(zip(weights, scoring.adapt(encoded.image, self.ensemble, self.reading), strict=True))
        image_scores, places = scoring.anomaly_score(encoded.image, *text.values()), self.place(encoded.patches)
        prompts = {"normal": self.ensemble.normal, "abnormal": self.ensemble.abnormal}
        vectors = {"normal": self.ensemble.t_normal, "abnormal": self.ensemble.t_abnormal}
        reasons = []
        for i, score in enumerate(image_scores):
            side = "abnormal" if score >= threshold else "normal"
            heaviest = weights[side][i].topk(min(top, len(prompts[side])))
            chosen = heaviest.indices[heaviest.values > 0].tolist()
            reasons.append([])
            for j in chosen:
                alone = {"normal": text["normal"][i : i + 1], "abnormal": text["abnormal"][i : i + 1]}
                alone[side] = vectors[side][j : j + 1]
                where = to_map(scoring.anomaly_score(places[i : i + 1], *alone.values()), self.map_size)[0]
                own = scoring.anomaly_score(encoded.image[i : i + 1], *alone.values())
                found = {"side": side, "prompt": prompts[side][j], "weight": float(weights[side][i, j])}
                reasons[-1].append(found | {"score": float(own), "map": where.numpy()})
        return reasons
