"""Embeddings out: one interface over open_clip, for the embedded model and for every ViT that open_clip knows.

All embeddings are float32 and on the CPU, wherever the model runs. The *image embedding* is the class token's, in the space
shared with text; *patch tokens* are the last block's other tokens after the final norm, in the trunk's own space (``project``
takes them to the shared one); a *window embedding* is the image embedding of a k x k window of patch tokens (WinCLIP).
"""

import logging
from dataclasses import dataclass
from functools import cache

import open_clip
import torch
import transformers
from torch.nn import functional as F

from zsadlib import embedded
from zsadlib.files import CACHE


@dataclass(frozen=True)
class Encoded:
    """One forward pass: ``image`` (batch, dim), L2-normalised, and ``patches`` (batch, grid * grid, width)."""

    image: torch.Tensor
    patches: torch.Tensor


@cache
def window_indices(grid, k):
    """Patch indices (windows, k * k) of all k x k windows of a grid x grid map, stride 1, row by row."""
    if not 1 <= k <= grid:
        raise ValueError(f"a window of {k} patches does not fit a grid of {grid}; choose 1 to {grid}")
    index = torch.arange(grid * grid).view(1, 1, grid, grid).float()
    return F.unfold(index, k)[0].T.long()


class Backbone:
    """A vision-language model in evaluation mode.

    Attributes:
        name, pretrained: what was asked of open_clip. random: True where the weights are random (dry runs only).
        image_size: input side in pixels. grid: patches per side. dim: size of the shared space. width: of the trunk.
    """

    def __init__(self, model, tokenizer, preprocess, name, pretrained, random, device):
        self.model, self.tokenizer, self._preprocess = (
            model.eval().requires_grad_(False).to(device),
            tokenizer,
            preprocess,
        )
        self.name, self.pretrained, self.random, self.device = name, pretrained, random, torch.device(device)
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

    # Two families of vision tower: timm's (the embedded model, SigLIP-like) and open_clip's own ViT.

    def _embed(self, x):
        """Tokens (batch, 1 + grid * grid, width) as they enter the transformer, class token first."""
        if trunk := getattr(self.visual, "trunk", None):
            return trunk.norm_pre(trunk._pos_embed(trunk.patch_embed(x)))
        return self.visual._embeds(x)

    def _transform(self, tokens):
        """The transformer and the final norm over any subset of tokens, class token first."""
        if trunk := getattr(self.visual, "trunk", None):
            return trunk.norm(trunk.blocks(tokens))
        return self.visual.ln_post(self.visual.transformer(tokens))

    def _project(self, tokens):
        if hasattr(self.visual, "trunk"):
            return self.visual.head(tokens)
        return tokens @ self.visual.proj if self.visual.proj is not None else tokens

    def project(self, tokens):
        """Tokens (..., width) after the final norm -> the shared space (..., dim), L2-normalised."""
        with torch.no_grad():
            return F.normalize(self._project(tokens.to(self.device)).float(), dim=-1).cpu()

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
        """Sentences -> (n, dim) text embeddings, L2-normalised unless ``normalize`` is False."""
        texts = list(texts)
        order = sorted(range(len(texts)), key=lambda i: len(texts[i]))  # alike lengths together: less padding
        embeddings = torch.empty(len(texts), self.dim)
        for start in range(0, len(order), batch_size):
            part = order[start : start + batch_size]
            tokens = self._trim(self.tokenizer([texts[i] for i in part]))
            embeddings[part] = self.model.encode_text(tokens.to(self.device)).float().cpu()
        return F.normalize(embeddings, dim=-1) if normalize else embeddings

    @torch.no_grad()
    def encode(self, batch):
        """One forward pass of preprocessed images (batch, 3, size, size): ``Encoded``."""
        tokens = self._transform(self._embed(batch.to(self.device)))
        return Encoded(self.project(tokens[:, 0]), tokens[:, 1:].float().cpu())

    @torch.no_grad()
    def encode_value_attention(self, batch, layers):
        """Patch tokens (batch, grid * grid, width) of a second path through the last ``layers`` blocks (the ``vv`` reading).

        As in CLIP Surgery and AnoVL: queries and keys are replaced by the values, so a patch attends to patches like itself,
        and the feed-forward layers are left out; the first path runs as usual and feeds the values.
        """
        tokens = self._embed(batch.to(self.device))
        blocks = self.visual.trunk.blocks if hasattr(self.visual, "trunk") else self.visual.transformer.resblocks
        if not 1 <= layers <= len(blocks):
            raise ValueError(f"{layers} layers of value attention do not fit {len(blocks)} blocks")
        second = None
        for i, block in enumerate(blocks):
            if i >= len(blocks) - layers:
                second = (tokens if second is None else second) + self._value_attention(block, tokens)
            tokens = block(tokens)
        norm = self.visual.trunk.norm if hasattr(self.visual, "trunk") else self.visual.ln_post
        return norm(second)[:, 1:].float().cpu()

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

    @torch.no_grad()
    def encode_windows(self, batch, k):
        """Image embeddings of all k x k windows of patches: (batch, windows, dim), L2-normalised.

        As in WinCLIP the windows are taken after the positional embedding and keep the class token.
        """
        tokens = self._embed(batch.to(self.device))
        index = window_indices(self.grid, k).to(self.device)
        windows = tokens[:, 1:][:, index]  # batch, windows, k * k, width
        count = windows.shape[1]
        first = tokens[:, None, :1].expand(-1, count, -1, -1)
        joined = torch.cat([first, windows], 2).flatten(0, 1)
        classes = torch.cat([self._transform(part)[:, 0] for part in joined.split(512)])
        return self.project(classes).unflatten(0, (len(batch), count))


@cache
def load_backbone(name=embedded.NAME, pretrained="embedded", device=None, allow_random=False):
    """Build a backbone by its open_clip name and pretrained tag.

    Args:
        name: "zsad-mini" (the embedded model) or an open_clip ViT such as "ViT-B-16-plus-240".
        pretrained: "embedded" for the embedded model's own weights, an open_clip tag ("laion400m_e32"), or a weight file.
        device: None picks a GPU where there is one. allow_random: build with random weights, for dry runs.

    Raises:
        ValueError: unknown name or tag, or no weights were named and ``allow_random`` is False.
    """
    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    if name == embedded.NAME:
        embedded.register(CACHE)
    elif name not in open_clip.list_models():
        raise ValueError(f"unknown backbone '{name}'; choose {embedded.NAME} or a name from open_clip.list_models()")
    if not pretrained and not allow_random:
        raise ValueError(
            f"backbone '{name}' without pretrained weights would be random, and random weights are refused; name one "
            f"of {embedded.NAME}'s 'embedded' or open_clip.list_pretrained_tags_by_model('{name}')"
        )
    own = name == embedded.NAME and pretrained
    middle = (0.5, 0.5, 0.5) if name == embedded.NAME else None  # None: as the weights were trained
    verbosity = transformers.logging.get_verbosity()
    try:
        logging.disable(logging.WARNING)  # both libraries report tensors that load_weights checks below
        transformers.logging.set_verbosity_error()
        model, _, preprocess = open_clip.create_model_and_transforms(
            name,
            pretrained=None if own or not pretrained else pretrained,
            image_resize_mode="squash",
            image_interpolation="bicubic",
            image_mean=middle,
            image_std=middle,
        )
    except RuntimeError as error:
        raise ValueError(f"cannot load backbone '{name}' with weights '{pretrained}': {error}") from error
    finally:
        logging.disable(logging.NOTSET)
        transformers.logging.set_verbosity(verbosity)
    if own:
        embedded.load_weights(model, embedded.WEIGHTS if pretrained == "embedded" else pretrained)
    tokenizer = open_clip.get_tokenizer(name)
    return Backbone(model, tokenizer, preprocess, name, pretrained, not pretrained, device)
