"""A backbone by its name and weights, or by a profile; never with weights that do not belong to it."""

import logging
from functools import cache

import open_clip
import torch
import transformers

from zsadlib.files import CACHE
from zsadlib.models import embedded
from zsadlib.models.backbones import Backbone


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
        name: "zsad-mini" or "zsad-twin" (the embedded models), or an open_clip ViT such as "ViT-B-16-plus-240".
        pretrained: "embedded" for the weights that are shipped with "zsad-mini"; "state-10", "state-30" or "state-80" for those
            of "zsad-twin"; an open_clip tag ("laion400m_e32"), or a weight file (which says nothing of activation and
            preprocessing, so for a known tag the tag is safer).
        device: "auto" picks a GPU where there is one. allow_random: an empty ``pretrained`` is allowed, for dry runs.
        image_size: side in pixels; None takes the model's. Another one than the weights' interpolates their positional
            embedding. precision: of the vision tower; "auto" is ``fastest_precision``.

    Raises:
        ValueError: unknown name or tag, weights that do not belong to the model or cannot be loaded, an image size that is
            no multiple of the patch size, a GPU that is not there, or no weights were named and ``allow_random`` is False.
    """
    if str(device).startswith("cuda") and not torch.cuda.is_available():
        raise ValueError(
            f"device '{device}' was asked for and torch finds no GPU of its kind; use 'cpu', or 'auto', which takes a GPU where "
            "there is one, or install the GPU's driver and a torch that is built for it"
        )
    device = ("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device
    precision = fastest_precision(device) if precision == "auto" else precision
    ours = name in (embedded.NAME, embedded.TWIN)
    if ours:
        embedded.register(CACHE)
    elif name not in open_clip.list_models():
        raise ValueError(
            f"unknown backbone '{name}'; choose {embedded.NAME}, {embedded.TWIN} or a name from open_clip.list_models()"
        )
    if not pretrained and not allow_random:
        known = ", ".join(embedded.tags(name)) if ours else f"open_clip.list_pretrained_tags_by_model('{name}')"
        raise ValueError(
            f"backbone '{name}' without pretrained weights would be random, and random weights are refused; name one of {known}"
        )
    vision = open_clip.get_model_config(name)["vision_cfg"]
    if image_size and vision.get("patch_size") and image_size % vision["patch_size"]:
        raise ValueError(
            f"an image of {image_size} pixels is no multiple of {name}'s patches of {vision['patch_size']}"
        )
    if image_size and ours and image_size != vision["image_size"]:
        raise ValueError(f"{name} takes images of {vision['image_size']} pixels, not {image_size}")
    own = ours and pretrained
    tag = pretrained if not own and pretrained in open_clip.list_pretrained_tags_by_model(name) else None
    if tag:
        _check_tag(name, tag)
    verbosity, random_state = transformers.logging.get_verbosity(), torch.get_rng_state()
    try:
        logging.disable(logging.WARNING)  # both libraries report tensors that load_weights checks below
        transformers.logging.set_verbosity_error()
        transformers.logging.disable_progress_bar()
        weights, mean, std = _weights(name, tag) if tag else (None if own else pretrained or None, None, None)
        if ours:
            mean = std = (0.5, 0.5, 0.5)
        torch.manual_seed(0)  # where weights are random, they are the same in every kernel
        model, _, preprocess = open_clip.create_model_and_transforms(
            name,
            pretrained=weights and str(weights),
            force_image_size=None if ours else image_size,
            image_resize_mode="squash",
            image_interpolation="bicubic",
            image_mean=mean,
            image_std=std,
        )
        if own:
            embedded.load_weights(model, embedded.tags(name).get(pretrained, pretrained))
    except Exception as error:  # what a hub or a damaged file raises is not ours to list
        raise ValueError(f"cannot load backbone '{name}' with weights '{pretrained}': {error}") from error
    finally:
        logging.disable(logging.NOTSET)
        transformers.logging.set_verbosity(verbosity)
        torch.set_rng_state(random_state)
    if tag:
        _check_preprocessing(model, name, tag)
    tokenizer = open_clip.get_tokenizer(name)
    return Backbone(model, tokenizer, preprocess, name, pretrained, not pretrained, device, precision)


@cache
def profile_backbone(profile):
    """The backbone that a profile names."""
    backbone = load_backbone(
        profile.backbone, profile.pretrained, profile.device, profile.dry_run, profile.image_size, profile.precision
    )
    return backbone.in_batches_of(profile.batch_size)
