"""The methods, one readable file each, behind one small interface (``base.Detector``).

    detector = method("alfa")(backbone, aligner, banks=["strong"]).prepare("screw")
    scores = detector.score(detector.encode(backbone.preprocess(images)))

Image scores (batch,) and patch scores (batch, grid * grid): higher = more abnormal; in [0, 1] but for the scores of
``SelfSimilarity`` and the patch scores of ``MuSc``, which are distances in [0, 2].
"""

import importlib

# Every method by its name: where its class is. A new method is a file beside this one, and a line here.
METHODS = {
    "clip-ac": "zsadlib.detectors.clip_ac.ClipAC",
    "winclip": "zsadlib.detectors.winclip.WinClip",
    "winclip+": "zsadlib.detectors.winclip.WinClipPlus",
    "alfa": "zsadlib.detectors.alfa.Alfa",
    "patchcore": "zsadlib.detectors.patchcore.PatchCore",
    "musc": "zsadlib.detectors.musc.MuSc",
    "self-similarity": "zsadlib.detectors.self_similarity.SelfSimilarity",
    "words+self-similarity": "zsadlib.detectors.words_and_self_similarity.WordsAndSelfSimilarity",
}


def method(name):
    """The class of a method by its name in the tables.

    Raises:
        ValueError: there is no such method.
    """
    if name not in METHODS:
        raise ValueError(f"unknown method '{name}'; choose one of {', '.join(METHODS)}")
    module, _, cls = METHODS[name].rpartition(".")
    return getattr(importlib.import_module(module), cls)
