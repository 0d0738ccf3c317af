"""The methods, all behind one small interface: ``prepare(category)``, then ``predict(batch)``.

    detector = Alfa(backbone, aligner, banks=["strong"]).prepare("screw")
    image_scores, anomaly_maps = detector.predict(backbone.preprocess(images))

Image scores (batch,) and maps (batch, map_size, map_size) are in [0, 1], higher = more abnormal. With ``support_images``
(a few normal photographs, preprocessed) ``prepare`` makes a method few-shot.
"""

import torch
from torch.nn import functional as F

from zsadlib import scoring
from zsadlib.aligner import harmonic_mean, to_map
from zsadlib.prompts import load_bank

MAP_SIZE = 192


class Memory:
    """Features of a few normal images; the distance to the nearest one is an anomaly score (WinCLIP+)."""

    def __init__(self, features):
        self.features = F.normalize(features.flatten(0, 1), dim=-1)

    def __call__(self, features):
        """(batch, places, dim) -> (batch, places): min (1 - cosine) / 2 over the memory."""
        return (1 - (F.normalize(features, dim=-1) @ self.features.T).amax(-1)) / 2


class ClipAC:
    """CLIP as it is: "a photo of a normal / an anomalous ..."; the map comes from the raw patch tokens."""

    name = "clip-ac"

    def __init__(self, backbone, map_size=MAP_SIZE):
        self.backbone, self.map_size = backbone, map_size

    def prepare(self, category, support_images=None):
        if support_images is not None:
            raise ValueError("clip-ac is zero-shot only; use winclip or alfa with support images")
        self.text = [scoring.side_embedding(self.backbone, [f"{word} {category}"]) for word in ("normal", "anomalous")]
        return self

    def predict(self, batch):
        encoded = self.backbone.encode(batch)
        text = [t.expand(len(batch), -1) for t in self.text]
        patches = scoring.anomaly_score(self.backbone.project(encoded.patches), *text)
        return scoring.anomaly_score(encoded.image, *text), to_map(patches, self.map_size)


class WinClip:
    """WinCLIP (Jeong et al., CVPR 2023): static prompt ensemble, windows of 2 x 2 and 3 x 3 patches, harmonic means."""

    name = "winclip"

    def __init__(self, backbone, map_size=MAP_SIZE, window_sizes=(2, 3)):
        self.backbone, self.map_size, self.window_sizes = backbone, map_size, tuple(window_sizes)

    def prepare(self, category, support_images=None):
        bank = load_bank("static", category).answers
        self.text = [scoring.side_embedding(self.backbone, side) for side in (bank.normal, bank.abnormal)]
        self.memories = None
        if support_images is not None:
            windows = {k: Memory(self.backbone.encode_windows(support_images, k)) for k in self.window_sizes}
            self.memories = windows | {1: Memory(self.backbone.encode(support_images).patches)}
        return self

    def predict(self, batch):
        encoded, grid = self.backbone.encode(batch), self.backbone.grid
        text = [t.expand(len(batch), -1) for t in self.text]
        image_score = scoring.anomaly_score(encoded.image, *text)
        windows = {k: self.backbone.encode_windows(batch, k) for k in self.window_sizes}
        language = [harmonic_mean(scoring.anomaly_score(w, *text), grid, k) for k, w in windows.items()]
        inverse = sum(1 / m.clamp_min(1e-6) for m in language) + 1 / image_score.clamp_min(1e-6)[:, None]
        patches = (len(language) + 1) / inverse
        if self.memories:
            distances = [harmonic_mean(self.memories[k](w), grid, k) for k, w in windows.items()]
            memory = torch.stack([*distances, self.memories[1](encoded.patches)]).mean(0)
            patches, image_score = (patches + memory) / 2, (image_score + memory.amax(1)) / 2
        return image_score, to_map(patches, self.map_size)


class Alfa:
    """ALFA (reconstruction): LLM prompts, contextual scoring per image, and the fitted aligner for the map.

    Args:
        aligner: a fitted ``Aligner``, or None for the raw patch tokens. banks: names of the prompt banks to join.
        reading: of contextual scoring.
    """

    name = "alfa"

    def __init__(self, backbone, aligner, banks=("static",), reading="salience", map_size=MAP_SIZE):
        self.backbone, self.aligner, self.map_size = backbone, aligner, map_size
        self.banks, self.reading = banks, reading

    def prepare(self, category, support_images=None):
        self.ensemble = scoring.bank_ensemble(self.backbone, category, *self.banks)
        self.memory = None
        if support_images is not None:
            self.memory = Memory(self.backbone.encode(support_images).patches)
        return self

    def place(self, patches):
        """Patch tokens in the shared space: through the aligner, or raw."""
        return self.aligner(patches) if self.aligner is not None else self.backbone.project(patches)

    def predict(self, batch):
        encoded = self.backbone.encode(batch)
        text = scoring.adapt(encoded.image, self.ensemble, self.reading)
        image_score = scoring.anomaly_score(encoded.image, *text)
        patches = scoring.anomaly_score(self.place(encoded.patches), *text)
        if self.memory:
            memory = self.memory(encoded.patches)
            patches, image_score = (patches + memory) / 2, (image_score + memory.amax(1)) / 2
        return image_score, to_map(patches, self.map_size)

    def explain(self, batch, top=3, threshold=0.5):
        """The heaviest prompts of the side that won, each with its own map. (This project's reading of "in words".)

        A prompt is judged alone against the other side's adapted embedding: its map says *where* this sentence, rather than
        the whole side, sees something abnormal. Only words explain: the memory of a few-shot detector is left out.

        Args:
            batch: preprocessed images. top: prompts per image, largest weight first; those of weight 0 are left out.
            threshold: of the verdict: abnormal where the image score is at least this.

        Returns:
            per image a list of dicts: side, prompt, weight in [0, 1], score (P(abnormal) by this prompt alone), map
            (map_size, map_size) in [0, 1].
        """
        encoded = self.backbone.encode(batch)
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
