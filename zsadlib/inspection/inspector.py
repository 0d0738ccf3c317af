"""An inspector for one kind of object: photographs in, scores, places and reasons out.

    inspector = Inspector("magnetic tile", normal="photos/good")   # normal= is optional: zero-shot without it
    result = inspector("photos/today")                             # a folder, paths, PIL images or arrays
    result.table; result.maps[0]; result.reasons[0]; result.report("report.html")

Decoding runs beside the model, and every photograph is looked at once, also where reasons are asked for.
"""

import math
from dataclasses import dataclass, field

import numpy as np
import torch
from tqdm.auto import tqdm

from zsadlib import __version__, detectors
from zsadlib.detectors.base import Sees, said
from zsadlib.inspection import report, saving, views
from zsadlib.inspection.photographs import photographs
from zsadlib.inspection.region import Region
from zsadlib.inspection.result import Result
from zsadlib.inspection.threshold import FALSE_ALARMS, leave_out, of_normals
from zsadlib.models.encoded import Encoded
from zsadlib.models.loading import profile_backbone
from zsadlib.models.store import ahead, tensor_digest
from zsadlib.profiles import load_profile
from zsadlib.prompts.banks import load_bank, load_sentences, own_sentences, usable_bank
from zsadlib.study.methods import build_detector

FEW_SHOT = "patchcore"  # the method where normal photographs are given: the best on development (notebooks/appendix/A2)
MOST_NORMALS = 100  # a larger folder of normal photographs is thinned out evenly
REASONS = 3


@dataclass
class Finding:
    """What was found on one photograph: ``image_score`` is None where ``error`` says why it could not be read.

    ``reasons``: side -> list of reasons, for whichever side the verdict will be. ``anomaly_map``: (size, size) over the
    whole photograph. ``card``: for the report.
    """

    path: str
    image_score: float | None = None
    error: str = ""
    anomaly_map: np.ndarray | None = None
    reasons: dict = field(default_factory=dict)
    card: dict | None = None


@dataclass(frozen=True)
class Wanted:
    """What to make of each photograph beside its score; ``each`` is called with the photograph and its map, while both are at
    hand."""

    maps: bool = True
    reasons: bool = True
    card: bool = True
    each: object = None


class Inspector:
    """One kind of object, ready to be inspected.

    Args:
        category: the word for the object in a prompt, such as "magnetic tile".
        normal: photographs without a defect (a folder, paths, PIL images or arrays); without them words alone judge.
        method: by its name in the tables; None is "alfa", or with ``normal`` the one that did best on development.
        profile: model and settings. bank: prompt bank; None is the profile's, or the static prompts where it has none.
        normal_words, abnormal_words: sentences of your own (``{}`` is the object); a side left out is static. Only "alfa".
        prompts: a JSON file with both lists instead. views: "whole" (one look) or "auto" (crops of large photographs too); None
            is "auto", and "whole" with ``normal``.
        roi: region of interest: (left, top, right, bottom) in pixels, or a mask file; what lies outside is ignored.
        threshold: of the verdict; None takes it from left-out normals, or from the batch. false_alarms: share of normal
            photographs that may be called abnormal, where the threshold comes from left-out normals.
        device, batch_size: None are the profile's.

    Attributes:
        threshold: of the verdict, or None where each batch decides. notes: what a user should know, a sentence each.

    Raises:
        ValueError: something of this does not fit together, with what to do.
    """

    def __init__(
        self, category, normal=None, *, method=None, profile="mini", bank=None, normal_words=None, abnormal_words=None,
        prompts=None, views=None, roi=None, threshold=None, false_alarms=FALSE_ALARMS, device=None, batch_size=None,
    ):  # fmt: skip
        if threshold is not None and not math.isfinite(threshold):
            raise ValueError(f"threshold {threshold} is not a finite number; scores lie between 0 and 1")
        asked = {"device": device, "batch_size": batch_size}
        settings = load_profile(profile).model_copy(update={k: v for k, v in asked.items() if v is not None})
        sentences = None
        if prompts is not None:
            sentences = load_sentences(prompts, category)
        elif normal_words is not None or abnormal_words is not None:
            sentences = own_sentences(normal_words, abnormal_words, category)
        name = method or (FEW_SHOT if normal is not None and sentences is None else "alfa")
        if normal is not None and name == "winclip":
            name = "winclip+"
        self.notes = []
        view = views or ("auto" if normal is None else "whole")
        self._set_up(category, settings, name, bank, sentences, view, Region(roi) if roi is not None else None)
        self.threshold, self.threshold_from, self.support = threshold, "you", None
        if normal is not None:
            self._learn_normals(photographs(normal), false_alarms)
        else:
            self.detector.prepare(category)
        if self.threshold is None:
            self.threshold_from = f"the batch ({settings.threshold})"

    def _set_up(self, category, settings, method, bank, sentences, view, region):
        """Everything but what comes from normal photographs."""
        if settings.dry_run:
            raise ValueError("this profile is for dry runs: its random weights can score nothing; use another one")
        if view not in views.VIEWS:
            raise ValueError(f"unknown views '{view}'; choose {' or '.join(views.VIEWS)}")
        detectors.method(method)
        if sentences is not None and method != "alfa":
            raise ValueError(f"{method} takes no sentences of yours; use the method alfa")
        if bank is not None:
            load_bank(bank, category)
            settings = settings.model_copy(update={"bank": bank})
        elif method == "alfa" and sentences is None:
            bank, note = usable_bank(settings.bank, category)
            self.notes += [note] if note else []
            settings = settings.model_copy(update={"bank": bank})
        self.category, self.settings, self.method, self.view, self.region = category, settings, method, view, region
        self.sentences = sentences
        self.backbone = profile_backbone(settings)
        self.detector = build_detector(method, settings, self.backbone)
        self.detector.sentences = sentences
        if self.detector.transductive and view != "whole":
            self.view = "whole"
        self.explains = hasattr(self.detector, "explain")

    # ------------------------------------------------------------------------------------------ normal photographs

    def _learn_normals(self, normals, false_alarms):
        """Take normal photographs as support, and the threshold from scores of those left out in turn."""
        if Sees.TEST_SET in self.detector.sees:
            raise ValueError(f"{self.method} takes no normal photographs: it judges a folder as a whole")
        step = -(-len(normals) // MOST_NORMALS)
        if step > 1:
            self.notes.append(f"of {len(normals)} normal photographs every {step}th is used")
        parts = []
        for found in self._looks(normals[::step]):
            for _, error, looks in found:
                if error:
                    self.notes.append(f"a normal photograph is left out: {error}")
                else:
                    parts.append(looks)
        if not parts:
            raise ValueError("no normal photograph can be read; give images of good objects with normal=")
        self._prepare_support(parts)
        if self.threshold is None and len(parts) > 1:
            scores = leave_out(parts, self._score_left_out)
            self.threshold, rate = of_normals(scores, false_alarms)
            self.threshold_from = f"{len(scores)} left-out normals, {100 * rate:.0f} % false alarms expected"
            self.detector.prepare(self.category, self.support)
        elif self.threshold is None:
            self.notes.append("one normal photograph gives no threshold; each batch decides")

    def _prepare_support(self, parts):
        self.support = Encoded.join(parts)
        self.detector.prepare(self.category, self.support)

    def _score_left_out(self, known, left_out):
        """Image scores of some normal photographs by a memory of others; each a list of ``Encoded`` looks."""
        self.detector.prepare(self.category, Encoded.join(known))
        return [float(views.join_scores(self.detector.score(looks).image)) for looks in left_out]

    # ---------------------------------------------------------------------------------------------------- looking

    def _cut(self, photograph):
        """A photograph's upright picture, and its views as pictures."""
        image = photograph.load()
        part = self.region.cut(image) if self.region else image
        boxes = views.boxes(part.width, part.height, self.view, self.backbone.image_size)
        return image, part, boxes, [part if i == 0 else part.crop(box) for i, box in enumerate(boxes)]

    def _read(self, group):
        """Pictures of a group of photographs, prepared for the model: runs beside it."""
        found, tensors = [], []
        for photograph in group:
            try:
                image, part, boxes, pictures = self._cut(photograph)
            except ValueError as error:
                found.append((photograph, str(error), None, None))
                continue
            tensors.append(self.backbone.preprocess(pictures))
            found.append((photograph, "", image, (part, boxes)))
        return found, tensors

    def _encode(self, tensors):
        """``Encoded`` of all views of a group, in batches of the backbone's size."""
        batch = torch.cat(tensors)
        return Encoded.join(
            self.backbone.encode(part, self.detector.needs) for part in batch.split(self.backbone.batch_size)
        )

    def _groups(self, some):
        """Photographs in groups that fill about a batch."""
        each = max(1, self.backbone.batch_size // (1 if self.view == "whole" else 5))
        return [some[i : i + each] for i in range(0, len(some), each)]

    def _looks(self, some):
        """Yields, a group at a time, lists of (photograph, error, ``Encoded`` views)."""
        for found, tensors in ahead(self._read, self._groups(some)):
            encoded, end, parts = self._encode(tensors) if tensors else None, 0, []
            for photograph, error, _, cut in found:
                if error:
                    parts.append((photograph, error, None))
                    continue
                start, end = end, end + len(cut[1])
                parts.append((photograph, "", encoded[start:end]))
            yield parts

    def inspect(self, images, wanted=Wanted()):
        """Yields a ``Finding`` for each photograph, in order, as they come (a transductive method: at the end).

        Args:
            images: list of ``Photograph``.
        """
        if self.detector.transductive:
            yield from self._inspect_together(images, wanted)
            return
        for found, tensors in ahead(self._read, self._groups(images)):
            scores = encoded = None
            if tensors:
                encoded = self._encode(tensors)
                scores = self.detector.score(encoded)
            end = 0
            for photograph, error, image, cut in found:
                if error:
                    yield Finding(photograph.path, error=error)
                    continue
                start, end = end, end + len(cut[1])
                rows = slice(start, end)
                yield self._finding(photograph, image, *cut, scores.image[rows], scores.map, rows, encoded, wanted)

    def _finding(self, photograph, image, part, boxes, image_scores, patches, rows, encoded, wanted):
        """What one photograph's views say together."""
        found = Finding(photograph.path, float(views.join_scores(image_scores)))
        if patches is not None and (wanted.maps or wanted.card or wanted.each):
            joined = views.join_maps(patches[rows], boxes, self.detector.map_size)
            found.anomaly_map = self.region.spread(joined, image) if self.region else joined
        if wanted.reasons and self.explains:
            whole = encoded[rows.start : rows.start + 1]
            for side, cut in (("normal", float("inf")), ("abnormal", float("-inf"))):
                (reasons,) = self.detector.explain(whole, REASONS, cut)
                found.reasons[side] = [self._in_pixels(reason, part) for reason in reasons]
        if wanted.card:
            found.card = report.card(image, found.anomaly_map)
        if wanted.each:
            wanted.each(photograph, image, found.anomaly_map)
        if not wanted.maps:
            found.anomaly_map = None
        return found

    def _inspect_together(self, images, wanted):
        """A method that judges a folder as a whole: all are encoded first."""
        looks = [one for group in self._looks(images) for one in group]
        readable = [encoded for _, error, encoded in looks if not error]
        scores = self.detector.score(Encoded.join(readable)) if readable else None
        rows = iter(range(len(readable)))
        for photograph, error, encoded in looks:
            if error:
                yield Finding(photograph.path, error=error)
                continue
            i = next(rows)
            try:
                image, part, boxes, _ = self._cut(photograph)
            except ValueError as problem:  # it went away meanwhile; its score stands
                yield Finding(photograph.path, float(scores.image[i]), str(problem))
                continue
            yield self._finding(
                photograph, image, part, boxes, scores.image[i : i + 1], scores.map, slice(i, i + 1), encoded, wanted
            )

    def _in_pixels(self, reason, part):
        """A reason as JSON data: its map shrunk to the place of its maximum, in pixels of the upright photograph."""
        where = reason.pop("map")
        row, column = divmod(int(where.argmax()), where.shape[1])
        x, y = (
            int((at + 0.5) * side / n) for at, side, n in zip((column, row), part.size, where.shape[::-1], strict=True)
        )
        left, top = self.region.box[:2] if self.region else (0, 0)
        rounded = {key: round(value, 4) if isinstance(value, float) else value for key, value in reason.items()}
        return rounded | {"where": {"x": x + left, "y": y + top, "score": round(float(where.max()), 4)}}

    def scale(self, threshold):
        """The range of an anomaly map's colours: probabilities from 0 to 1, distances so that the threshold is in the middle."""
        distances = self.support is not None or self.detector.transductive
        return (0.0, 2 * threshold) if distances and 0 < threshold < 0.5 else (0.0, 1.0)

    def about(self):
        """What an inspection was made with, for a report: dict of str -> str."""
        sees = self.detector.sees | ({Sees.NORMALS} if self.support is not None else set())
        return {
            "object": self.category, "method": self.method, "sees": said(sees), "profile": self.settings.name,
            "views": self.view, "threshold from": self.threshold_from,
        }  # fmt: skip

    def _saved(self):
        box = self.region.box if self.region else None
        return saving.Saved(
            category=self.category, profile=self.settings, method=self.method, sentences=self.sentences, view=self.view,
            box=box, threshold=self.threshold, threshold_from=self.threshold_from, weights=self.backbone.weights_hash,
            zsadlib=__version__,
        )  # fmt: skip

    def identity(self):
        """JSON data that is the same for inspectors that say the same of every photograph."""
        support = self.support and tensor_digest(self.support.image)
        mask = self.region.mask.tobytes().hex() if self.region and self.region.mask is not None else ""
        return [self._saved().model_dump(mode="json"), support, mask, self.backbone.fingerprint]

    def save(self, path):
        """Write the inspector to one file: support embeddings, sentences, region and threshold; no photograph is in it."""
        saving.write(path, self._saved(), self.support, self.detector.weights(), self.region and self.region.mask)

    @classmethod
    def load(cls, path):
        """The inspector that ``save`` wrote.

        Raises:
            ValueError: the file is missing or damaged, or was made with another model than is here.
        """
        about, support, learned, mask = saving.read(path)
        self = cls.__new__(cls)
        self.notes = []
        region = Region(mask if mask is not None else about.box) if about.box else None
        self._set_up(about.category, about.profile, about.method, None, about.sentences, about.view, region)
        if self.backbone.weights_hash != about.weights:
            raise ValueError(f"{path} was made with other weights of {about.profile.backbone}; make it again with save")
        if learned:
            self.detector.load_weights(learned)
        self.threshold, self.threshold_from, self.support = about.threshold, about.threshold_from, support
        self.detector.prepare(self.category, support)
        return self

    def __call__(self, images, progress=False):
        """Inspect photographs: ``Result``.

        Args:
            images: a folder, paths, PIL images or uint8 arrays, one or several. progress: show a bar.

        Raises:
            ValueError: there is nothing to inspect. A photograph that cannot be read has its error in its row instead.
        """
        some = photographs(images)
        findings = list(tqdm(self.inspect(some), "inspecting", len(some), disable=not progress, unit="image"))
        return Result(findings, self.threshold, self.settings.threshold, self.about(), self.scale)
