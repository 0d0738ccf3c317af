"""An inspector for one kind of object: photographs in, scores, places and reasons out.

    inspector = Inspector("magnetic tile", normal="photos/good")   # normal= is optional: zero-shot without it
    result = inspector("photos/today")                             # a folder, paths, PIL images or arrays
    result.table; result.maps[0]; result.reasons[0]; result.report("report.html")

Decoding runs beside the model, and every photograph is looked at once, also where reasons are asked for. Its pixels are let go
as soon as they are prepared for the model: photographs are large.
"""

import math
from dataclasses import dataclass, field
from functools import partial

import numpy as np
import torch
from tqdm.auto import tqdm

from zsadlib import __version__, detectors
from zsadlib.detectors.base import Sees, said
from zsadlib.inspection import report, saving, views
from zsadlib.inspection.photographs import Photograph, photographs
from zsadlib.inspection.region import Region
from zsadlib.inspection.result import Result
from zsadlib.inspection.threshold import FALSE_ALARMS, leave_out, of_normals, shown
from zsadlib.models.encoded import Encoded
from zsadlib.models.loading import profile_backbone
from zsadlib.models.store import ahead, tensor_digest
from zsadlib.profiles import load_profile
from zsadlib.prompts.banks import Answers, load_bank, load_sentences, own_sentences, usable_bank
from zsadlib.provenance import source_hash
from zsadlib.study.methods import taught
from zsadlib.study.units import weights_hash

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


@dataclass
class Look:
    """What is kept of a photograph that was read: why it could not be (``error``), or (width, height) of the upright picture,
    the boxes of its views, and its card for the report, still without a map."""

    photograph: Photograph
    error: str = ""
    size: tuple = ()
    boxes: list = ()
    card: dict | None = None


@dataclass(frozen=True)
class Wanted:
    """What to make of each photograph beside its score; ``each`` is called with the photograph and its map, and may raise
    ValueError where it cannot read the photograph again."""

    maps: bool = True
    reasons: bool = True
    card: bool = True
    each: object = None


class Inspector:
    """One kind of object, ready to be inspected.

    Args:
        category: the word for the object in a prompt, such as "magnetic tile".
        normal: photographs without a defect (a folder, paths, PIL images or arrays); without them words alone judge.
        method: by its name in the tables; None is "alfa", or with ``normal`` the one that did best on development, unless a
            bank or sentences are given.
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
        sentences: that the method reads, whatever becomes of the bank; None where it reads none.

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
        words = sentences is not None or bank is not None
        name = method or ("alfa" if normal is None or words else FEW_SHOT)
        if normal is not None and name == "winclip":
            name = "winclip+"
        if sentences is not None and name != "alfa":
            raise ValueError(f"{name} takes no sentences of yours; use the method alfa")
        if sentences is not None and bank is not None:
            raise ValueError("sentences of yours take the place of a prompt bank; give one of them")
        if bank is not None:
            load_bank(bank, category)
        self.notes = []
        view = views or ("auto" if normal is None else "whole")
        self._set_up(category, settings, name, view, Region(roi) if roi is not None else None)
        self._take(self._words(bank, sentences))
        self.threshold, self.threshold_from, self.support = threshold and shown(threshold), "you", None
        if normal is not None:
            self._learn_normals(photographs(normal), false_alarms)
        else:
            self.detector.prepare(category)
        if self.threshold is None:
            self.threshold_from = "two groups in the batch"

    def _set_up(self, category, settings, method, view, region):
        """The model and the method, which has learned and read nothing yet."""
        if settings.dry_run:
            raise ValueError("this profile is for dry runs: its random weights can score nothing; use another one")
        if view not in views.VIEWS:
            raise ValueError(f"unknown views '{view}'; choose {' or '.join(views.VIEWS)}")
        if not category.strip():
            raise ValueError("the object has no name; give the word for it, such as 'magnetic tile'")
        cls = detectors.method(method)
        self.category, self.settings, self.method, self.view, self.region = category, settings, method, view, region
        self.backbone = profile_backbone(settings)
        self.detector = cls.from_profile(settings, self.backbone)
        if self.detector.transductive and view != "whole":
            self.view = "whole"
        self.explains = hasattr(self.detector, "explain")

    def _words(self, bank, sentences):
        """What the method shall read: ``sentences``, or all that its banks hold now; None where it reads nothing."""
        if bank is not None and not self.detector.banks:
            raise ValueError(f"{self.method} reads no prompt bank; use the method alfa")
        if sentences is not None or not self.detector.banks:
            return sentences
        if bank is None:
            bank, note = usable_bank(self.settings.bank, self.category)
            self.notes += [note] if note else []
        if bank != self.settings.bank:
            self.settings = self.settings.model_copy(update={"bank": bank})
            self.detector = type(self.detector).from_profile(self.settings, self.backbone)
        answers = [load_bank(name, self.category).answers for name in self.detector.banks]
        return Answers(**{side: [text for a in answers for text in getattr(a, side)] for side in Answers.model_fields})

    def _take(self, sentences, learned=None):
        """Let the method take what it has learned, or learn, and give it what it shall read."""
        taught(self.detector, self.settings, weights=learned)
        self.sentences = sentences
        if sentences is not None:
            getattr(self.detector, "words", self.detector).sentences = sentences

    # ------------------------------------------------------------------------------------------ normal photographs

    def _learn_normals(self, normals, false_alarms):
        """Take normal photographs as support, and the threshold from scores of those left out in turn."""
        if Sees.TEST_SET in self.detector.sees:
            raise ValueError(f"{self.method} takes no normal photographs: it judges a folder as a whole")
        step = -(-len(normals) // MOST_NORMALS)
        if step > 1:
            self.notes.append(f"of {len(normals)} normal photographs every {step}th is used")
        parts, readable = {}, 0
        for looks, tensors, encoded in self._looks(normals[::step]):
            self.notes += [f"a normal photograph is left out: {look.error}" for look in looks if look.error]
            end = 0
            for views_of_one in tensors:
                start, end = end, end + len(views_of_one)
                parts.setdefault(tensor_digest(views_of_one), encoded[start:end])
            readable += len(tensors)
        if not parts:
            raise ValueError("no normal photograph can be read; give images of good objects with normal=")
        if len(parts) < readable:  # a copy in the memory would make the photograph that is left out look all too normal
            copies = readable - len(parts)
            self.notes.append(f"of {readable} normal photographs {copies} are copies of others and are left out")
        parts = list(parts.values())
        self._prepare_support(parts)
        if self.threshold is None and len(parts) > 1:
            scores = leave_out(parts, self._score_left_out)
            self.threshold, rate = of_normals(scores, false_alarms)
            self.threshold_from = f"{len(scores)} left-out normals, {100 * rate:.0f} % false alarms expected"
            self.detector.prepare(self.category, self.support)
        elif self.threshold is None:
            self.notes.append(
                "one normal photograph gives no threshold, and 0.5 means little; give more, or a threshold"
            )

    def _prepare_support(self, parts):
        self.support = Encoded.join(parts)
        self.detector.prepare(self.category, self.support)

    def _score_left_out(self, known, left_out):
        """Image scores of some normal photographs by a memory of others; each a list of ``Encoded`` looks."""
        self.detector.prepare(self.category, Encoded.join(known))
        return [float(views.join_scores(self.detector.score(looks).image)) for looks in left_out]

    # ---------------------------------------------------------------------------------------------------- looking

    def _look(self, photograph, card):
        """``Look`` of a photograph, and its views prepared for the model (views, 3, size, size)."""
        image = photograph.load()
        part = self.region.cut(image) if self.region else image
        boxes = views.boxes(part.width, part.height, self.view, self.backbone.image_size)
        tensor = self.backbone.preprocess(part if i == 0 else part.crop(box) for i, box in enumerate(boxes))
        return Look(photograph, "", image.size, boxes, report.card(image) if card else None), tensor

    def _read(self, group, card):
        """``Look``s of a group of photographs, and the views of those that can be read: runs beside the model."""
        looks, tensors = [], []
        for photograph in group:
            try:
                look, tensor = self._look(photograph, card)
                tensors.append(tensor)
            except ValueError as error:
                look = Look(photograph, str(error))
            looks.append(look)
        return looks, tensors

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

    def _looks(self, some, card=False):
        """Yields, a group at a time, ``Look``s, the views of those that could be read, and their ``Encoded`` or None."""
        for looks, tensors in ahead(partial(self._read, card=card), self._groups(some)):
            yield looks, tensors, self._encode(tensors) if tensors else None

    def inspect(self, images, wanted=Wanted()):
        """Yields a ``Finding`` for each photograph, in order, as they come (a transductive method: at the end).

        Args:
            images: list of ``Photograph``.
        """
        groups = ((looks, encoded) for looks, _, encoded in self._looks(images, wanted.card))
        if self.detector.transductive:  # all are one group: each has a say in the scores of the others
            groups = list(groups)
            parts = [encoded for _, encoded in groups if encoded is not None]
            groups = [([look for looks, _ in groups for look in looks], Encoded.join(parts) if parts else None)]
        for looks, encoded in groups:
            scores, end = None if encoded is None else self.detector.score(encoded), 0
            for look in looks:
                start, end = end, end + len(look.boxes)
                yield self._finding(look, scores, encoded, slice(start, end), wanted)

    def _finding(self, look, scores, encoded, rows, wanted):
        """What one photograph's views, some ``rows`` of a group, say together."""
        if look.error:
            return Finding(look.photograph.path, error=look.error)
        found = Finding(look.photograph.path, float(views.join_scores(scores.image[rows])))
        if scores.map is not None and (wanted.maps or wanted.card or wanted.each):
            joined = views.join_maps(scores.map[rows], look.boxes, self.detector.map_size)
            found.anomaly_map = self.region.spread(joined, look.size) if self.region else joined
        if wanted.reasons and self.explains:
            whole = encoded[rows.start : rows.start + 1]
            for side, cut in (("normal", float("inf")), ("abnormal", float("-inf"))):
                (reasons,) = self.detector.explain(whole, REASONS, cut)
                found.reasons[side] = [self._in_pixels(reason, look.boxes[0][2:]) for reason in reasons]
        if wanted.card:
            found.card = look.card | report.small_map(found.anomaly_map)
        if wanted.each:
            try:
                wanted.each(look.photograph, found.anomaly_map)
            except ValueError as error:  # it went away meanwhile; its score stands
                found.error = str(error)
        if not wanted.maps:
            found.anomaly_map = None
        return found

    def _in_pixels(self, reason, size):
        """A reason as JSON data: its map, over what is ``size`` large, shrunk to the place of its maximum, in pixels of the
        upright photograph."""
        where = reason.pop("map")
        row, column = divmod(int(where.argmax()), where.shape[1])
        x, y = (int((at + 0.5) * side / n) for at, side, n in zip((column, row), size, where.shape[::-1], strict=True))
        left, top = self.region.box[:2] if self.region else (0, 0)
        rounded = {key: round(value, 4) if isinstance(value, float) else value for key, value in reason.items()}
        return rounded | {"where": {"x": x + left, "y": y + top, "score": round(float(where.max()), 4)}}

    def scale(self, threshold):
        """The range of an anomaly map's colours: probabilities from 0 to 1, distances so that the threshold is in the middle."""
        distances = self.support is not None or self.detector.transductive
        return (0.0, 2 * threshold) if distances and 0 < threshold < 0.5 else (0.0, 1.0)

    def origin(self, threshold):
        """Where the threshold of a verdict comes from, in words."""
        from_words = self.threshold is None and threshold == 0.5
        return "the prompts alone: the batch shows no two groups" if from_words else self.threshold_from

    def about(self, threshold=None):
        """What an inspection was made with, for a report: dict of str -> str. ``threshold``: of its verdicts."""
        sees = self.detector.sees | ({Sees.NORMALS} if self.support is not None else set())
        return {
            "object": self.category, "method": self.method, "sees": said(sees), "views": self.view,
            "profile": ": ".join(filter(None, [self.settings.name, self.settings.trust])),
            "threshold from": self.origin(threshold),
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
        learned, code = weights_hash(self.detector.weights()), source_hash(type(self.detector).__module__, __name__)
        return [self._saved().model_dump(mode="json"), support, mask, learned, code, self.backbone.fingerprint]

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
        self._set_up(about.category, about.profile, about.method, about.view, region)
        if self.backbone.weights_hash != about.weights:
            raise ValueError(f"{path} was made with other weights of {about.profile.backbone}; make it again with save")
        self._take(about.sentences, learned)
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
        return Result(findings, self.threshold, self.settings.threshold, self.about, self.scale)
