"""zsadlib: zero-shot visual anomaly detection with language, the shared logic of the notebooks.

Read it from the ground up; each folder imports only what stands before it: ``files``, ``provenance``, ``profiles``; ``datasets``
(pictures in) and ``evaluation`` (how good is a score); ``models`` (embeddings out); ``prompts`` (words in, and which of them
count); ``detectors`` (the methods); ``study`` (benchmark and chain of notebooks); ``training`` (of the embedded model) and
``inspection`` (your own photographs); ``cli``.
"""

__version__ = "0.1.0"
__all__ = ["Inspector"]


def __getattr__(name):
    """``from zsadlib import Inspector``, without loading torch for whoever needs another part."""
    if name == "Inspector":
        from zsadlib.inspection.inspector import Inspector

        return Inspector
    raise AttributeError(f"module 'zsadlib' has no attribute '{name}'")
