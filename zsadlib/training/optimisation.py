"""What all trainings share: the optimiser, its learning rate, and checkpoints from which a stopped run goes on."""

import math

import torch

from zsadlib.files import replacing


def make_optimizer(model, rate):
    """AdamW; biases, norms and positions without weight decay."""
    trained = [p for p in model.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in trained if p.ndim >= 2], "weight_decay": 0.05},
        {"params": [p for p in trained if p.ndim < 2], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=rate, betas=(0.9, 0.98))


def learning_rate(step, steps, finish, peak):
    """Warm-up over 50 steps, then a cosine to zero; the finish is a second cosine from a third of the peak."""
    if step < steps:
        return peak * min(1, (step + 1) / 50) * 0.5 * (1 + math.cos(math.pi * step / steps)) + 1e-6
    return peak / 3 * min(1, (step - steps + 1) / 10) * 0.5 * (1 + math.cos(math.pi * (step - steps) / finish)) + 1e-6


def trained_part(model):
    """The state of the model without the MiniLM encoder, which is a package of its own."""
    return {k: v for k, v in model.state_dict().items() if not k.startswith("text.transformer.")}


def load_checkpoint(path, settings, model, optimizer):
    """Load the state of an earlier run with the same settings; returns its history, empty if there is none."""
    saved = torch.load(path, weights_only=True) if path.is_file() else {}
    if {key: saved.get(key) for key in settings} != settings:
        return []
    missing, unexpected = model.load_state_dict(saved["model"], strict=False)
    if unexpected or not all(name.startswith("text.transformer.") for name in missing):
        raise ValueError(f"{path} does not fit the model; remove it to train anew")
    optimizer.load_state_dict(saved["optimizer"])
    return saved["history"]


def save_checkpoint(path, settings, model, optimizer, history):
    """Write what ``load_checkpoint`` needs, whole or not at all."""
    state = {"model": trained_part(model), "optimizer": optimizer.state_dict(), "history": history}
    with replacing(path) as temporary:
        torch.save(settings | state, temporary)
