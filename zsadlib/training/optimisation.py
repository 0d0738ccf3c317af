"""What all trainings share: optimisers, their learning rate, and checkpoints from which a stopped run goes on."""

import math

import torch

from zsadlib.files import replacing


def make_optimizers(model, rate, matrix_rate=None):
    """AdamW at ``rate``; biases, norms and positions without weight decay. A list, as there may be two:

    With ``matrix_rate``, the matrices (linear layers) get Muon (Jordan et al., 2024) at that rate instead. It gives every
    direction of a matrix an equally large step, so that what few captions speak of is learned as well.
    """
    trained = [p for p in model.parameters() if p.requires_grad]
    matrices = [p for p in trained if p.ndim == 2] if matrix_rate else []
    taken = {id(p) for p in matrices}
    rest = [p for p in trained if id(p) not in taken]
    groups = [
        {"params": [p for p in rest if p.ndim >= 2], "weight_decay": 0.05},
        {"params": [p for p in rest if p.ndim < 2], "weight_decay": 0.0},
    ]
    optimizers = [torch.optim.AdamW(groups, lr=rate, betas=(0.9, 0.98))]
    if matrices:
        optimizers.append(torch.optim.Muon(matrices, lr=matrix_rate, weight_decay=0.02))
    for group in [group for optimizer in optimizers for group in optimizer.param_groups]:
        group["peak"] = group["lr"]
    return optimizers


def update(model, optimizers, loss, share):
    """One step down the gradient of ``loss``, clipped to length 1, at ``share`` of each optimiser's peak rate."""
    for optimizer in optimizers:
        optimizer.zero_grad()
        for group in optimizer.param_groups:
            group["lr"] = group["peak"] * share
    loss.backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    for optimizer in optimizers:
        optimizer.step()


def rate_share(step, steps, finish=0):
    """Share of the peak learning rate: warm-up over 50 steps, then a cosine to (almost) zero; the finish is a second cosine
    from a third of the peak.
    """
    if step < steps:
        return min(1, (step + 1) / 50) * 0.5 * (1 + math.cos(math.pi * step / steps)) + 1e-3
    return min(1, (step - steps + 1) / 10) * 0.5 * (1 + math.cos(math.pi * (step - steps) / finish)) / 3 + 1e-3


def trained_part(model):
    """The state of the model without the MiniLM encoder, which is a package of its own."""
    return {k: v for k, v in model.state_dict().items() if not k.startswith("text.transformer.")}


def load_checkpoint(path, settings, model, optimizers):
    """Load the state of an earlier run with the same settings; returns its history, empty if there is none."""
    saved = torch.load(path, weights_only=True) if path.is_file() else {}
    if {key: saved.get(key) for key in settings} != settings:
        return []
    missing, unexpected = model.load_state_dict(saved["model"], strict=False)
    if unexpected or not all(name.startswith("text.transformer.") for name in missing):
        raise ValueError(f"{path} does not fit the model; remove it to train anew")
    for optimizer, state in zip(optimizers, saved["optimizers"], strict=True):
        optimizer.load_state_dict(state)
    return saved["history"]


def save_checkpoint(path, settings, model, optimizers, history):
    """Write what ``load_checkpoint`` needs, whole or not at all."""
    states = [optimizer.state_dict() for optimizer in optimizers]
    state = {"model": trained_part(model), "optimizers": states, "history": history}
    with replacing(path) as temporary:
        torch.save(settings | state, temporary)
