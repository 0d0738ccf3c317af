"""A fitted inspector as one file: safetensors with its settings as JSON, and no pickle."""

import json
from typing import Literal

import torch
from pydantic import BaseModel, ConfigDict, ValidationError
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from zsadlib.files import replacing
from zsadlib.models.encoded import Encoded
from zsadlib.profiles import Profile
from zsadlib.prompts.banks import Answers


class Saved(BaseModel):
    """What the file says beside its tensors (support embeddings, what the method learned, the region's mask).

    ``sentences``: all that the method reads; a bank may be recorded again, or be gone. ``weights``: hash of the model's.
    """

    model_config = ConfigDict(extra="forbid")
    format: Literal[2] = 2
    category: str
    profile: Profile
    method: str
    sentences: Answers | None
    view: str
    box: tuple[int, int, int, int] | None
    threshold: float | None
    threshold_from: str
    weights: str
    zsadlib: str


def write(path, about, support, learned, mask):
    """Write an inspector's parts to ``path``.

    Args:
        about: ``Saved``. support: ``Encoded`` or None. learned: dict of name -> tensor. mask: bool array or None.
    """
    tensors = {f"learned/{name}": tensor for name, tensor in learned.items()}
    if support is not None:
        tensors |= {"support/image": support.image, "support/patches": support.patches}
        tensors |= {f"support/{kind}/{number}": tensor for (kind, number), tensor in support.extra.items()}
    if mask is not None:
        tensors["mask"] = torch.from_numpy(mask)
    with replacing(path) as temporary:
        save_file(
            {name: tensor.contiguous() for name, tensor in tensors.items()},
            temporary,
            {"about": about.model_dump_json()},
        )


def read(path):
    """An inspector's parts: ``Saved``, ``Encoded`` or None, dict of name -> tensor, bool array or None.

    Raises:
        ValueError: the file is missing or holds something else.
    """
    try:
        with safe_open(path, "pt") as file:
            about = Saved.model_validate(json.loads((file.metadata() or {})["about"]))
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (it is no dict)
    except FileNotFoundError:
        raise ValueError(f"{path} does not exist; save an inspector first") from None
    except (SafetensorError, KeyError, ValueError, ValidationError, OSError) as error:
        raise ValueError(
            f"{path} holds no inspector of this version ({type(error).__name__}); make it again with save"
        ) from None
    learned = {name.removeprefix("learned/"): t for name, t in tensors.items() if name.startswith("learned/")}
    extra = {}
    for name, tensor in tensors.items():
        match name.split("/"):
            case ["support", kind, number]:
                extra[kind, int(number)] = tensor
    support = (
        Encoded(tensors["support/image"], tensors["support/patches"], extra) if "support/image" in tensors else None
    )
    return about, support, learned, tensors["mask"].numpy() if "mask" in tensors else None
