"""The methods, one readable file each, behind one small interface (``base.Detector``).

    detector = Alfa(backbone, aligner, banks=["strong"]).prepare("screw")
    image_scores, anomaly_maps = detector.predict(backbone.preprocess(images))

Image scores (batch,) and maps (batch, map_size, map_size): higher = more abnormal; in [0, 1] but for the maps of ``MuSc``,
which are distances in [0, 2].
"""

from zsadlib.detectors.alfa import Alfa
from zsadlib.detectors.base import Detector, Memory
from zsadlib.detectors.clip_ac import ClipAC
from zsadlib.detectors.musc import MuSc
from zsadlib.detectors.patchcore import PatchCore
from zsadlib.detectors.winclip import WinClip, WinClipPlus

METHODS = {c.name: c for c in (ClipAC, WinClip, WinClipPlus, Alfa, PatchCore, MuSc)}

__all__ = ["METHODS", "Alfa", "ClipAC", "Detector", "Memory", "MuSc", "PatchCore", "WinClip", "WinClipPlus"]
