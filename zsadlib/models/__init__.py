"""Embeddings out: the embedded model, every ViT that open_clip knows, embeddings on disk, and the aligner."""
