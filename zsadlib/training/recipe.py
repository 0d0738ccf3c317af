"""How the embedded model was made: CLIP's recipe at toy scale, on the training categories of MiniAD only.

Global image-text contrast and nothing else: neither masks nor patch labels enter the loss, so only the class token learns to
agree with language. (The place of a defect is used once: a photograph is framed so that the defect its caption names is in
it. Damaged pictures are therefore cropped a little less than intact ones, a hint that the model may have taken.) The notebook
``appendix/A1_train_the_embedded_model`` tells the story and runs ``train``.
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

from zsadlib.datasets.miniad.training import CATEGORIES
from zsadlib.files import replacing
from zsadlib.models import embedded
from zsadlib.models.loading import load_backbone, profile_backbone
from zsadlib.provenance import source_hash
from zsadlib.training import captions
from zsadlib.training.features import load_stem, pixels, prepare, sentence_features
from zsadlib.training.losses import contrastive_loss, tile_loss, tiles
from zsadlib.training.optimisation import (
    load_checkpoint,
    make_optimizers,
    rate_share,
    save_checkpoint,
    trained_part,
    update,
)
from zsadlib.training.pictures import GROUP, STATES

GROUPS, STEPS, FINISH = 20000, 1250, 150  # drawings, optimiser steps on whole photographs, and on their crops as well
CROPS = (2, 3, 5)  # sides of the crops in patches
# Read from the training categories alone: what is drawn to choose and to test is no part of the recipe, nor of its hash.
TAUGHT = [draw.__name__.replace("_", " ") for draw in CATEGORIES]


class Sentences:
    """MiniLM embeddings of every caption, and random draws of one caption for each (category, state)."""

    def __init__(self, model, tokenizer):
        objects = [captions.NAMES[c] for c in TAUGHT] + [captions.ANYTHING]
        forms = [captions.NORMAL, *(captions.KINDS[s] for s in STATES[1:]), captions.ABNORMAL]
        texts, self.choices, rng = [], {}, np.random.default_rng(0)
        for c, names in enumerate(objects):
            for s, phrases in enumerate(forms):
                start = len(texts)
                for name in names:
                    texts += [t.format(p.format(name)) for p in phrases for t in rng.choice(captions.TEMPLATES, 3)]
                self.choices[c, s] = (start, len(texts))
        self.objects, self.states = len(objects), len(forms)
        self.embeddings = sentence_features(model, tokenizer, texts)

    def draw(self, rng):
        """One caption for every (object, state), row ``object * states + state``; the last state is "damaged"."""
        rows = [rng.integers(*self.choices[c, s]) for c in range(self.objects) for s in range(self.states)]
        return self.embeddings[rows]


def embed_stem(visual, images, pretrained):
    """Tokens (batch, 226, width) as they enter the transformer, from pixels and the stem's frozen features."""
    trunk = visual.trunk
    fine = trunk.patch_embed.backbone.fine(images.contiguous(memory_format=torch.channels_last))
    tokens = trunk.patch_embed.proj(torch.cat([pretrained, fine], 1)).flatten(2).transpose(1, 2)
    return trunk._pos_embed(tokens)


def embed_tokens(visual, tokens):
    """Global embeddings (batch, dim) of token sequences (batch, tokens, width), class token first."""
    return visual.head(visual.trunk.norm(visual.trunk.blocks(tokens))[:, 0])


def build(work):
    """The untrained model with its pretrained parts, its tokenizer, and the parts that stay frozen."""
    embedded.register(work)
    model = open_clip.create_model(embedded.NAME)
    stem = model.visual.trunk.patch_embed.backbone
    load_stem(stem)
    frozen = (stem.entry, stem.blocks, model.text.transformer)
    for parameter in (p for part in frozen for p in part.parameters()):
        parameter.requires_grad_(False)
    return model, open_clip.get_tokenizer(embedded.NAME), frozen


def train(work, out, groups=GROUPS, steps=STEPS, finish=FINISH, batch=192, rate=1e-3, seed=0, every=100):
    """Train the embedded model and write its weights to ``out``. A stopped run continues where it was saved.

    Args:
        work: folder of the training set and checkpoints. groups: drawings, of ``GROUP`` photographs each.
        steps, finish: optimiser steps on whole photographs, then on crops as well. batch: images in each. rate: peak learning
            rate (warm-up, then cosine; the finish starts again at a third). every: steps between checkpoints.

    Returns:
        DataFrame with one row per step: step, loss, seconds (since the start of the run that made it).
    """
    work = Path(work)
    work.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(seed)
    model, tokenizer, frozen = build(work)
    model.eval()
    recipe, images, features, labels = prepare(work, groups, seed, model.visual.trunk.patch_embed.backbone)
    optimizers, checkpoint = make_optimizers(model, rate), work / "checkpoint.pt"
    source = source_hash("zsadlib.training.recipe")
    settings = {"recipe": recipe, "source": source, "steps": steps, "finish": finish, "batch": batch, "rate": rate}
    history = load_checkpoint(checkpoint, settings, model, optimizers)
    sentences = Sentences(model, tokenizer) if len(history) < steps + finish else None
    model.train()
    for part in frozen:
        part.eval()
    began = time.time()
    every_step = range(len(history), steps + finish)
    for step in tqdm(every_step, "training", initial=len(history), total=steps + finish, mininterval=10):
        rng = np.random.default_rng([seed, step])
        drawn = np.sort(rng.choice(len(labels) // GROUP, batch // GROUP, replace=False))
        rows = (drawn[:, None] * GROUP + np.arange(GROUP)).ravel()
        frozen_part = torch.from_numpy(features[rows]).to(torch.bfloat16)
        with torch.autocast("cpu", torch.bfloat16):
            tokens = embed_stem(model.visual, pixels(images[rows]), frozen_part)
            image = embed_tokens(model.visual, tokens)
            text = model.text.proj(sentences.draw(rng))
            if step >= steps:
                crops = tiles(tokens, int(rng.choice(CROPS)), rng)
                cropped = embed_tokens(model.visual, crops.flatten(0, 1)).unflatten(0, crops.shape[:2])
        image, text = F.normalize(image.float(), dim=-1), F.normalize(text.float(), dim=-1)
        scale = model.logit_scale.exp().clamp(max=100)
        loss = contrastive_loss(image, text, scale, labels[rows], sentences.states)
        if step >= steps:
            good = labels[rows][:, 0] * sentences.states
            axis = text[good + sentences.states - 1] - text[good]
            lean = scale * (F.normalize(cropped.float(), dim=-1) * axis[:, None]).sum(-1)
            loss = loss + tile_loss(lean, labels[rows][:, 1] > 0)
        update(model, optimizers, loss, rate_share(step, steps, finish))
        history.append({"step": step + 1, "loss": float(loss.detach()), "seconds": round(time.time() - began, 1)})
        if (step + 1) % every == 0 or step + 1 in (steps, steps + finish):
            save_checkpoint(checkpoint, settings, model, optimizers, history)
    halves = {k: v.half().contiguous() for k, v in trained_part(model).items() if "num_batches" not in k}
    drawn = [TAUGHT[c] for c in labels[:, 0].unique().tolist()]
    about = {"recipe": recipe, "steps": str(steps + finish), "trained_on": json.dumps(drawn)}
    with replacing(out) as temporary:
        save_file(halves, temporary, about)
    forget_models()
    return pd.DataFrame(history)


def forget_models():
    """Drop what is loaded: an older model of that name."""
    load_backbone.cache_clear()
    profile_backbone.cache_clear()
