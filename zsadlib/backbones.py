"""Embeddings out: one interface over open_clip, for the embedded model and for every ViT that open_clip knows.

All embeddings are float32 and on the CPU, wherever the model runs. The *image embedding* is the class token's, in the space
shared with text; *patch tokens* are the last block's other tokens after the final norm, in the trunk's own space (``project``
takes them to the shared one); a *window embedding* is the image embedding of a k x k window of patch tokens (WinCLIP).
"""

import hashlib
import importlib.metadata
import json
import logging
from dataclasses import dataclass, field
from functools import cache, cached_property
from pathlib import Path

import open_clip
import torch
import transformers
from torch.nn import functional as F

from zsadlib import embedded
from zsadlib.files import CACHE, sha256


@dataclass(frozen=True)
class Encoded:
    """What the vision tower made of a batch: ``image`` (batch, dim), L2-normalised, and ``patches`` (batch, grid * grid, width).

    On request also ``windows`` (window side -> (batch, windows, dim), L2-normalised), ``layers`` (block, from 1 -> patch
    tokens (batch, grid * grid, width) as they leave it, before the final norm) and ``values`` (number of last blocks -> patch
    tokens as ``Backbone.encode_value_attention`` gives them).
    """

    image: torch.Tensor
    patches: torch.Tensor
    windows: dict[int, torch.Tensor] = field(default_factory=dict)
    layers: dict[int, torch.Tensor] = field(default_factory=dict)
    values: dict[int, torch.Tensor] = field(default_factory=dict)

    def _extra(self):
        return self.windows, self.layers, self.values

    def __getitem__(self, rows):
        """The same for some of its images."""
        extra = ({key: tensor[rows] for key, tensor in part.items()} for part in self._extra())
        return Encoded(self.image[rows], self.patches[rows], *extra)

    def only(self, window_sizes=(), layers=(), values=()):
        """The same without other windows, layers and values than these."""
        wanted = window_sizes, layers, values
        extra = ({key: part[key] for key in keys} for part, keys in zip(self._extra(), wanted, strict=True))
        return Encoded(self.image, self.patches, *extra)

    @classmethod
    def join(cls, parts):
        """One of many batches, in order."""
        parts = list(parts)
        extra = (
            {k: torch.cat([one[k] for one in ones]) for k in ones[0]}
            for ones in zip(*(p._extra() for p in parts), strict=True)
        )
        return cls(torch.cat([p.image for p in parts]), torch.cat([p.patches for p in parts]), *extra)


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
        device, the sources of this package that images pass through, and the versions of the libraries."""
        here, libraries = (
            Path(__file__).parent,
            ("torch", "open_clip_torch", "timm", "transformers", "tokenizers", "pillow"),
        )
        about = {
            "model": open_clip.get_model_config(self.name), "preprocessing": self.visual.preprocess_cfg,
            "precision": self.precision, "device": self.device.type,
            "sources": [sha256(here / name) for name in ("backbones.py", "datasets.py", "embedded.py")],
            "versions": [importlib.metadata.version(library) for library in libraries],
        }  # fmt: skip
        digest = hashlib.sha256(json.dumps(about, sort_keys=True, default=str).encode())
        for name, tensor in sorted(self.model.state_dict().items()):
            digest.update(name.encode() + tensor.cpu().contiguous().view(-1).view(torch.uint8).numpy().tobytes())
        return digest.hexdigest()

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
    def encode(self, batch, window_sizes=(), layers=(), values=()):
        """Preprocessed images (batch, 3, size, size): ``Encoded``. One forward pass, and more for each window and value.

        Args:
            window_sizes: sides of the windows to embed (``encode_windows``). layers: blocks to keep, counted from 1. values:
                numbers of last blocks with value attention (``encode_value_attention``).
        """
        if missing := set(layers) - set(range(1, len(self.blocks) + 1)):
            raise ValueError(f"{self.name} has blocks 1 to {len(self.blocks)}; there is no block {min(missing)}")
        first = tokens = self._embed(batch.to(self.device))  # float32: little work, and all depends on it
        with self._fast():
            kept = {}
            for number, block in enumerate(self.blocks, 1):
                tokens = block(tokens)
                if number in layers:
                    kept[number] = tokens[:, 1:].float().cpu()
            tokens = self._norm(tokens).float()
            windows = {k: self._windows(first, k) for k in window_sizes}
        second = {n: self.encode_value_attention(batch, n) for n in values}
        return Encoded(self.project(tokens[:, 0]), tokens[:, 1:].cpu(), windows, kept, second)

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

    @torch.no_grad()
    def encode_windows(self, batch, k):
        """Image embeddings of all k x k windows of patches: (batch, windows, dim), L2-normalised.

        As in WinCLIP the windows are taken after the positional embedding and keep the class token.
        """
        tokens = self._embed(batch.to(self.device))
        with self._fast():
            return self._windows(tokens, k)

    def _windows(self, tokens, k):
        index = window_indices(self.grid, k).to(self.device)
        windows = tokens[:, 1:][:, index]  # batch, windows, k * k, width
        count = windows.shape[1]
        first = tokens[:, None, :1].expand(-1, count, -1, -1)
        joined = torch.cat([first, windows], 2).flatten(0, 1)
        classes = torch.cat([self._transform(part)[:, 0].float() for part in joined.split(512)])
        return self.project(classes).unflatten(0, (len(tokens), count))


def _check_tag(name, tag):
    """ValueError where open_clip would only warn: weights that were trained with another activation than the model's."""
    trained, built = open_clip.get_pretrained_cfg(name, tag) or {}, open_clip.get_model_config(name) or {}
    if bool(trained.get("quick_gelu")) != bool(built.get("quick_gelu")):
        other = name.removesuffix("-quickgelu") if built.get("quick_gelu") else f"{name}-quickgelu"
        raise ValueError(
            f"weights '{tag}' were trained {'with' if trained.get('quick_gelu') else 'without'} QuickGELU and backbone '{name}' "
            f"is not so built; use the backbone '{other}'"
        )


def _check_preprocessing(model, name, tag):
    """ValueError unless images are prepared as the weights of a known tag were trained."""
    used, trained = model.visual.preprocess_cfg, open_clip.get_pretrained_cfg(name, tag) or {}
    for key in ("mean", "std"):
        if key in trained and tuple(used[key]) != tuple(trained[key]):
            raise ValueError(
                f"backbone '{name}' would get images with {key} {tuple(used[key])}; weights '{tag}' need {tuple(trained[key])}"
            )


def _weights(name, tag):
    """What open_clip shall load for a tag: its release file where that names its own sha256, else the tag itself.

    open_clip prefers a copy on a model hub, and for "laion400m_e32" of ViT-B-16-plus-240 it names the copy of epoch 31.
    """
    known = open_clip.get_pretrained_cfg(name, tag)
    if "mlfoundations" in known.get("url", ""):
        return open_clip.download_pretrained(known, prefer_hf_hub=False), known["mean"], known["std"]
    return tag, None, None


def fastest_precision(device):
    """bfloat16 where a device multiplies it in hardware; else float16 on a GPU and float32 on a processor."""
    if device == "cuda":
        return "bfloat16" if torch.cuda.is_bf16_supported(including_emulation=False) else "float16"
    has = torch.cpu.get_capabilities()
    return "bfloat16" if has.get("amx_bf16") or has.get("avx512_bf16") else "float32"


@cache
def load_backbone(
    name=embedded.NAME, pretrained="embedded", device="auto", allow_random=False, image_size=None, precision="float32"
):
    """Build a backbone by its open_clip name and pretrained tag.

    Args:
        name: "zsad-mini" (the embedded model) or an open_clip ViT such as "ViT-B-16-plus-240".
        pretrained: "embedded" for the embedded model's own weights, an open_clip tag ("laion400m_e32"), or a weight file (which
            says nothing of activation and preprocessing, so for a known tag the tag is safer).
        device: "auto" picks a GPU where there is one. allow_random: an empty ``pretrained`` is allowed, for dry runs.
        image_size: side in pixels; None takes the model's. Another one than the weights' interpolates their positional
            embedding. precision: of the vision tower; "auto" is ``fastest_precision``.

    Raises:
        ValueError: unknown name or tag, weights that do not belong to the model or cannot be loaded, an image size that is
            no multiple of the patch size, or no weights were named and ``allow_random`` is False.
    """
    device = ("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device
    precision = fastest_precision(device) if precision == "auto" else precision
    if name == embedded.NAME:
        embedded.register(CACHE)
    elif name not in open_clip.list_models():
        raise ValueError(f"unknown backbone '{name}'; choose {embedded.NAME} or a name from open_clip.list_models()")
    if not pretrained and not allow_random:
        raise ValueError(
            f"backbone '{name}' without pretrained weights would be random, and random weights are refused; name one "
            f"of {embedded.NAME}'s 'embedded' or open_clip.list_pretrained_tags_by_model('{name}')"
        )
    vision = open_clip.get_model_config(name)["vision_cfg"]
    if image_size and vision.get("patch_size") and image_size % vision["patch_size"]:
        raise ValueError(
            f"an image of {image_size} pixels is no multiple of {name}'s patches of {vision['patch_size']}"
        )
    if image_size and name == embedded.NAME and image_size != vision["image_size"]:
        raise ValueError(f"{name} takes images of {vision['image_size']} pixels, not {image_size}")
    own = name == embedded.NAME and pretrained
    tag = pretrained if not own and pretrained in open_clip.list_pretrained_tags_by_model(name) else None
    if tag:
        _check_tag(name, tag)
    verbosity, random_state = transformers.logging.get_verbosity(), torch.get_rng_state()
    try:
        logging.disable(logging.WARNING)  # both libraries report tensors that load_weights checks below
        transformers.logging.set_verbosity_error()
        weights, mean, std = _weights(name, tag) if tag else (None if own else pretrained or None, None, None)
        if name == embedded.NAME:
            mean = std = (0.5, 0.5, 0.5)
        torch.manual_seed(0)  # where weights are random, they are the same in every kernel
        model, _, preprocess = open_clip.create_model_and_transforms(
            name,
            pretrained=weights and str(weights),
            force_image_size=None if name == embedded.NAME else image_size,
            image_resize_mode="squash",
            image_interpolation="bicubic",
            image_mean=mean,
            image_std=std,
        )
    except Exception as error:  # what a hub or a damaged file raises is not ours to list
        raise ValueError(f"cannot load backbone '{name}' with weights '{pretrained}': {error}") from error
    finally:
        logging.disable(logging.NOTSET)
        transformers.logging.set_verbosity(verbosity)
        torch.set_rng_state(random_state)
    if tag:
        _check_preprocessing(model, name, tag)
    if own:
        embedded.load_weights(model, embedded.WEIGHTS if pretrained == "embedded" else pretrained)
    tokenizer = open_clip.get_tokenizer(name)
    return Backbone(model, tokenizer, preprocess, name, pretrained, not pretrained, device, precision)
