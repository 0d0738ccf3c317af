# ---
# jupyter:
#   jupytext:
#     formats: ipynb,py:percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # A2 · One look or many, and which method with normal photographs?
#
# **Question.** `zsad score` and `zsadlib.Inspector` have two defaults that somebody had to choose: how a photograph that is
# larger than the model's input is looked at, and which method is used when normal photographs are at hand. What are these
# choices worth?
#
# Everything here is chosen on two sets: MiniAD's *development* categories, and the magnetic tile, photographs that this
# project does not contain and calls its *real development set*. No test set is looked at. (The published tables were made
# with an earlier recording of the LLM's prompts.) Give the folder of the magnetic tile (in the MVTec AD layout) as
# `photographs` to compute its tables again; else those of the published run are shown.

# %% tags=["parameters"]
profile = "mini"
photographs = ""  # folder of the magnetic tile, for computing its tables again
out = ""  # folder for the tables; empty: beside the caches
limit = 0  # pictures of each category; 0 means all

# %%
import json
import time
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image

from zsadlib import Inspector, datasets, profiles, study
from zsadlib.datasets import miniad
from zsadlib.evaluation import bootstrap, metrics, plots
from zsadlib.files import CACHE, ROOT
from zsadlib.inspection import views
from zsadlib.study import chain

plots.use_style()
settings = profiles.load_profile(profile)
published, results = ROOT / "results" / "inspector", Path(out or CACHE / "notebooks" / "inspector")
backbone = study.profile_backbone(settings)
detector = study.build_detector("alfa", settings, backbone)

# %% [markdown]
# ## Large pictures
#
# MiniAD's pictures have 192 pixels. Here the development categories are drawn anew with 480 pixels a side, twenty good ones and
# two of each kind of defect: four times the model's input, as photographs of products are.


# %%
def large(category):
    """Pictures (PIL), kinds and masks of a category, drawn large."""
    counts = {"good": limit or 20} | dict.fromkeys(miniad.KINDS, 1 if limit else 2)
    keys = [(kind, i) for kind, count in counts.items() for i in range(count)]
    drawn = [miniad.draw(category, kind, miniad.generator("large", category, kind, i), 480) for kind, i in keys]
    pictures = [Image.fromarray(np.rint(255 * image).astype(np.uint8)) for image, _ in drawn]
    return pictures, [kind for kind, _ in keys], [mask for _, mask in drawn]


pictures, kinds, masks = large("bolt")
plots.pictures(pictures[-4:], kinds[-4:], columns=4)

# %% [markdown]
# A picture is looked at as a whole, in 2 x 2 and in 3 x 3 overlapping crops: 14 looks in all.

# %%
boxes = views.boxes(480, 480, "auto", backbone.image_size)
plots.pictures([pictures[-1].crop(box) for box in boxes], columns=7, width=1.2)


# %%
def look(category, pictures):
    """P(abnormal) of all looks (pictures, looks), and patch scores of all looks (pictures, looks, patches)."""
    detector.prepare(category)
    found = []
    for picture in pictures:
        # An input of one pixel makes every photograph a large one: whether crops of small ones pay is a question here.
        boxes = views.boxes(*picture.size, "auto", 1)
        found.append(detector.score(detector.encode(backbone.preprocess([picture.crop(box) for box in boxes]))))
    return np.stack([s.image.numpy() for s in found]), [s.map for s in found]


looked = {}
for category in miniad.split_names("development"):
    pictures, kinds, masks = large(category)
    looked[category] = (*look(category, pictures), np.array(kinds), masks)

# %% [markdown]
# ## Rules
#
# How do 14 probabilities become one? Each rule below works on log odds. `whole` is one look; a `+` is a sum; `max2` is the most
# abnormal of the 2 x 2 crops.

# %%
rules = {
    "whole": lambda o: o[:, 0],
    "max3": lambda o: o[:, 5:].max(1),
    "largest of all": lambda o: o.max(1),
    "mean of all": lambda o: o.mean(1),
    "whole + max2": lambda o: o[:, 0] + o[:, 1:5].max(1),
    "whole + max3": lambda o: o[:, 0] + o[:, 5:].max(1),
    "whole + max2 + max3": lambda o: o[:, 0] + o[:, 1:5].max(1) + o[:, 5:].max(1),
}


def log_odds(p):
    return np.log(np.clip(p, 1e-6, 1 - 1e-6) / (1 - np.clip(p, 1e-6, 1 - 1e-6)))


# %%
draws = {
    name: np.stack(
        [bootstrap.image_draws(kinds != "good", rule(log_odds(p)), c) for c, (p, _, kinds, _) in looked.items()]
    )
    for name, rule in rules.items()
}
rows = []
for name in rules:
    low, value, high = bootstrap.interval(draws[name])
    rows.append({"rule": name, "image_auroc": value, "from": low, "to": high})
development = pd.DataFrame(rows)
study.save_table(development, results, "views_development")
development.set_index("rule").mul(100).round(1)

# %% [markdown]
# What each rule gains over one look, with the 95 % interval of a paired bootstrap over pictures:

# %%
gain = pd.DataFrame([{"rule": name} | bootstrap.difference(draws["whole"], draws[name]) for name in list(rules)[1:]])
plots.gains(gain, "rule", "image AUROC over one look, points, development drawn large")

# %% [markdown]
# ## The same on real photographs


# %%
def tile_table(folder):
    """Image AUROC of every rule on the magnetic tile, by kind, and where the photographs are small or large."""
    tile = datasets.read_category(folder, "magnetic tile")
    pictures, kinds = [datasets.load_image(s.path) for s in tile.test], np.array([s.kind for s in tile.test])
    p, _ = look("magnetic tile", pictures)
    small = np.array([min(i.size) < views.LARGE * backbone.image_size for i in pictures])
    parts = {kind: np.isin(kinds, ["good", kind]) for kind in dict.fromkeys(kinds) if kind != "good"}
    parts |= {"small photographs": small, "large photographs": ~small}
    rows = []
    for name, rule in rules.items():
        score = rule(log_odds(p))
        found = {
            part: metrics.binary_metrics(kinds[rows_] != "good", score[rows_])["auroc"] for part, rows_ in parts.items()
        }
        rows.append({"rule": name} | found)
    return pd.DataFrame(rows)


# %%
if photographs:
    study.save_table(tile_table(photographs), results, "views_magnetic_tile")
tile = pd.read_csv((results if photographs else published) / "views_magnetic_tile.csv")
tile.set_index("rule").mul(100).round(1)

# %%
best = development.set_index("rule").image_auroc + tile.set_index("rule")[["blowhole", "break"]].mean(1)
print(f"best on both sets together: {best.idxmax()}")
small = 100 * tile.set_index("rule")["small photographs"]
print(f"small photographs: one look {small['whole']:.1f}, all looks {small['whole + max2 + max3']:.1f}")

# %% [markdown]
# Large photographs gain, small ones (a shorter side under 1.5 times the model's input) do not, so these get one look. A maximum
# is larger than what it is taken of, so the sum is divided by three and shifted: good development pictures are called abnormal
# as often as with one look.

# %%
odds = np.concatenate([log_odds(p)[kinds == "good"] for p, _, kinds, _ in looked.values()])
joined = rules["whole + max2 + max3"](odds) / 3
alarms = (odds[:, 0] > 0).mean()
print(
    f"false alarms at 0.5 with one look: {100 * alarms:.1f} %; shift that keeps it: {np.quantile(joined, 1 - alarms):.2f}"
)
print(f"in use: {views.SHIFT}")

# %% [markdown]
# ## Maps
#
# A joined map is half the map of the whole and a quarter each of the two levels of crops.

# %%
rows = []
for category, (_, patches, _, masks) in looked.items():
    truth = np.stack([np.asarray(Image.fromarray(m).resize((settings.map_size,) * 2, Image.NEAREST)) for m in masks])
    for name, some in (("whole", slice(0, 1)), ("joined", slice(None))):
        maps = np.stack([views.join_maps(one[some], boxes[some], settings.map_size) for one in patches])
        found = metrics.pixel_metrics(truth, maps)
        rows.append({"map": name, "category": category} | {k: found[k] for k in ("pixel_auroc", "pixel_aupro")})
maps = pd.DataFrame(rows)
study.save_table(maps, results, "view_maps_development")
maps.groupby("map", sort=False)[["pixel_auroc", "pixel_aupro"]].mean().mul(100).round(1)

# %% [markdown]
# ## With normal photographs
#
# Three methods take support images. On development (one look), with one, four and sixteen of them, three draws each:

# %%
units = [study.Unit(m, shots, seed) for m in settings.few_shot for shots in (1, 4, 16) for seed in range(3)]
few = study.evaluate(settings, backbone, datasets.load_split(settings.development, limit), units)
few = few[few.metric.isin(["image_auroc", "pixel_aupro"])]
means = few.groupby(["method", "shots", "metric"], sort=False).value.mean().unstack("metric").reset_index()
study.save_table(means, results, "few_shot_development")
means.pivot(index="method", columns="shots", values="image_auroc").mul(100).round(1)

# %% [markdown]
# On the magnetic tile, with its normal photographs of `train/good` (every second test photograph; the threshold comes from
# left-out normals; `seconds` is for one photograph on two cores):


# %%
def with_normals(folder, method, view, step):
    """Image AUROC by kind, false alarms, missed defects and seconds a photograph, with every ``step``-th normal photograph."""
    tile = datasets.read_category(folder, "magnetic tile")
    inspector = Inspector("magnetic tile", tile.train[::step], method=method, views=view, profile=profile)
    samples = tile.test[::2]
    began = time.perf_counter()
    found = inspector([s.path for s in samples]).table
    took = (time.perf_counter() - began) / len(samples)
    kinds, said = np.array([s.kind for s in samples]), (found.verdict == "abnormal").to_numpy()
    row = {"method": method, "views": view, "normals": len(tile.train[::step])}
    for kind in ("blowhole", "break"):
        part = np.isin(kinds, ["good", kind])
        row[kind] = metrics.binary_metrics(kinds[part] != "good", found.image_score[part])["auroc"]
    good = kinds == "good"
    return row | {"false_alarms": said[good].mean(), "missed": 1 - said[~good].mean(), "seconds": took}


# %%
if photographs:
    asked = [("alfa", "whole", 1), ("winclip+", "whole", 1), ("patchcore", "whole", 1)]
    asked += [("patchcore", "whole", 3), ("patchcore", "auto", 3)]
    study.save_table(
        pd.DataFrame([with_normals(photographs, *one) for one in asked]), results, "few_shot_magnetic_tile"
    )
shown = pd.read_csv((results if photographs else published) / "few_shot_magnetic_tile.csv")
shown.set_index(["method", "views", "normals"]).round(3)

# %% [markdown]
# ## What was chosen
#
# - **Looks.** `auto` is the default: the whole and the largest of each level of crops, for photographs whose shorter side has at
#   least 1.5 times the model's pixels. It costs 14 passes in place of one; `views="whole"` (`--views whole`) is the cheap one.
# - **Normal photographs.** `patchcore` is the default where some are given: it gains most from them on development and on the
#   tile. It takes one look: crops cost it thirty times the time and lose on one kind of defect what they gain on the other. Its
#   threshold keeps what it promises of false alarms, and misses defects for it: the slider of the report shows the exchange.

# %%
script = ROOT / "notebooks" / "appendix" / "A2_choices_of_the_inspector.py"
record = chain.manifest(settings, {}, {"limit": limit}, {script.stem: chain.made_of(script, settings)})
(results / "manifest.json").write_text(json.dumps(record, indent=1) + "\n")

# %% [markdown]
# ## Your turn
#
# **A2.1** Add a rule of your own to `rules`. Does it gain on both sets, or on one?
#
# **A2.2** Draw the pictures with 240 pixels. Is there still a gain?
