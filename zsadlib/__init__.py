"""zsadlib: zero-shot visual anomaly detection with language, the shared logic of the notebooks.

Read it in this order: ``datasets`` (pictures in), ``backbones`` (embeddings), ``prompts`` (words in), ``scoring`` (which
prompts count for an image), ``aligner`` (from the image to its patches), ``detectors`` (the methods), ``metrics``,
``plots``, ``study`` (the chain of notebooks) and ``cli``.
"""

__version__ = "0.1.0"
