"""How the twins were made: by CLIP's recipe and nothing else, in three doses of words about an object's state.

Symmetric contrast over a batch of pictures, each with its one caption (Radford et al., 2021): no pairs of sentences, no verdict,
no crops, no masks. A batch holds whole scenes, four photographs of one drawing, two of them damaged. The vision tower is three
plain transformer blocks on frozen ImageNet features; a random half of the patch tokens is dropped in all but the last steps
(Li et al., FLIP, 2023). The three twins have the same pictures, steps and first weights; captions differ only in the share of
damaged pictures whose caption mentions the damage (``embedded.DOSES``; ``alt_texts``).

No weights of this recipe are shipped: at the middle dose, static prompts on the development categories found too little damage to
study prompts on (less than a mean image AUROC of 0.75, the bar that was set before).
"""

import json
import time
from pathlib import Path

import numpy as np
import open_clip
import pandas as pd
import torch
from safetensors.torch import save_file
from torch.nn import functional as F
from tqdm.auto import tqdm

from zsadlib.files import replacing
from zsadlib.models import embedded
from zsadlib.provenance import json_hash, source_hash, versions
from zsadlib.training.alt_texts import caption
from zsadlib.training.features import LIBRARIES, load_stem, sentence_features, standardise
from zsadlib.training.optimisation import (
    load_checkpoint,
    make_optimizers,
    rate_share,
    save_checkpoint,
    trained_part,
    update,
)
from zsadlib.training.pictures import GROUP
from zsadlib.training.scenes import draw_scenes

SCENES, STEPS, WHOLE = 16000, 7500, 300  # drawings; optimiser steps; the last of them, which see every patch
# Three drawings a step: small batches learn the state in fewer minutes, but stop early.
BATCH, RATE, MATRIX_RATE, TOKENS = 12, 1e-3, 2e-2, 120
STEM = "visual.trunk.patch_embed.backbone."


def prepare(work, scenes, seed, stem):
    """Pictures, facts and frozen features of the scenes, made once and kept under ``work``: (what they are, facts, features)."""
    about = f"{scenes} scenes, seed {seed}, source {source_hash('zsadlib.training.scenes', 'zsadlib.training.features')[:12]}"
    key = json_hash([about, versions(*LIBRARIES)])[:12]
    names = {
        part: work / f"scenes-{key}.{part}" for part in ("images.npy", "facts.jsonl", "features.npy", "statistics.npy")
    }
    if not names["facts.jsonl"].is_file():
        with replacing(names["images.npy"]) as images, replacing(names["facts.jsonl"]) as facts:
            draw_scenes(scenes, seed, images, facts)
    facts = [json.loads(line) for line in names["facts.jsonl"].read_text(encoding="utf-8").splitlines()]
    images = np.load(names["images.npy"], mmap_mode="r")
    return about, facts, standardise(stem, images, names["features.npy"], names["statistics.npy"])


def contrastive_loss(image, text, scale):
    """CLIP's loss: every picture finds its own caption among those of the batch, and every caption its picture.

    Args:
        image, text: (batch, dim), L2-normalised, row by row a picture and its caption. scale: logit scale.
    """
    logits = scale * image @ text.T
    own = torch.arange(len(logits), device=logits.device)
    return (F.cross_entropy(logits, own) + F.cross_entropy(logits.T, own)) / 2


def embed_images(visual, features, keep=None):
    """Image embeddings (batch, dim) from frozen features (batch, 248, 15, 15), of all patches or those in ``keep``."""
    trunk = visual.trunk
    tokens = trunk._pos_embed(trunk.patch_embed.proj(features).flatten(2).transpose(1, 2))
    if keep is not None:
        tokens = torch.cat([tokens[:, :1], tokens[:, 1:][:, keep]], 1)
    return visual.head(trunk.norm(trunk.blocks(tokens))[:, 0])


def train(work, dose, folder=embedded.FOLDER, scenes=SCENES, steps=STEPS, whole=WHOLE, batch=BATCH, seed=0, every=100):
    """Train the twin of one dose and write its weights to ``folder``. A stopped run continues where it was saved.

    Args:
        work: folder of the training set and checkpoints. dose: one of ``embedded.DOSES``. scenes: drawings, of ``GROUP``
            photographs each. steps: optimiser steps. whole: how many of them, the last, see every patch. batch: pictures.

    Returns:
        DataFrame with one row per step: step, loss, seconds (since the start of the run that made it).
    """
    work = Path(work)
    work.mkdir(parents=True, exist_ok=True)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    torch.manual_seed(seed)
    embedded.register(work)
    model = open_clip.create_model(embedded.TWIN).eval()
    stem = model.visual.trunk.patch_embed.backbone
    load_stem(stem)
    for parameter in (*stem.parameters(), *model.text.transformer.parameters()):
        parameter.requires_grad_(False)
    recipe, facts, features = prepare(work, scenes, seed, stem)
    captions = [caption(seed, i, fact, dose) for i, fact in enumerate(facts)]
    words = sentence_features(model, open_clip.get_tokenizer(embedded.TWIN), captions)
    model = model.to(device)
    optimizers, checkpoint = make_optimizers(model, RATE, MATRIX_RATE), work / f"twin-{embedded.DOSES[dose]}.pt"
    settings = {
        "recipe": recipe,
        "source": source_hash("zsadlib.training.twins"),
        "dose": dose,
        "steps": steps,
        "whole": whole,
    }
    settings |= {"batch": batch, "seed": seed}
    history, began = load_checkpoint(checkpoint, settings, model, optimizers), time.time()
    for step in tqdm(range(len(history), steps), "training", initial=len(history), total=steps, mininterval=10):
        rng = np.random.default_rng([seed, step])
        drawn = np.sort(rng.choice(len(facts) // GROUP, batch // GROUP, replace=False))
        rows = (drawn[:, None] * GROUP + np.arange(GROUP)).ravel()
        keep = torch.from_numpy(np.sort(rng.choice(embedded.GRID**2, TOKENS, replace=False))).to(device)
        with torch.autocast(device.type, torch.bfloat16):
            frozen = torch.from_numpy(features[rows]).to(device, torch.bfloat16)
            image = embed_images(model.visual, frozen, keep if step < steps - whole else None)
            text = model.text.proj(words[rows].to(device))
        scale = model.logit_scale.exp().clamp(max=100)
        loss = contrastive_loss(F.normalize(image.float(), dim=-1), F.normalize(text.float(), dim=-1), scale)
        update(model, optimizers, loss, rate_share(step, steps))
        history.append({"step": step + 1, "loss": float(loss.detach()), "seconds": round(time.time() - began, 1)})
        if (step + 1) % every == 0 or step + 1 == steps:
            save_checkpoint(checkpoint, settings, model, optimizers, history)
    write(model, Path(folder), dose, {"recipe": recipe, "steps": str(steps), "dose": str(dose)}, facts)
    return pd.DataFrame(history)


def write(model, folder, dose, about, facts):
    """The twin's own weights, and the frozen stem that all twins share, in half precision."""
    halves = {k: v.half().cpu().contiguous() for k, v in trained_part(model).items() if "num_batches" not in k}
    about |= {"trained_on": json.dumps(sorted({fact["object"] for fact in facts}))}
    with replacing(folder / embedded.tags(embedded.TWIN)[embedded.DOSES[dose]].name) as temporary:
        save_file({k: v for k, v in halves.items() if not k.startswith(STEM)}, temporary, about)
    with replacing(folder / embedded.FROZEN.name) as temporary:
        save_file({k: v for k, v in halves.items() if k.startswith(STEM)}, temporary)
