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
# # 7 · Ablations: which part does the work?
#
# **Question.** ALFA is a stack of parts and each part has a knob. What happens if one is taken away or turned?
#
# Knobs are turned on *development* categories only. The stack is then taken apart on the *test* categories, and the aligner is
# carried to another kind of picture. Every difference comes with a paired bootstrap interval over images.

# %% tags=["parameters"]
profile = "mini"
limit = 0  # images per category (0: all)
photographs = ""  # a labelled folder of your own in the MVTec AD layout, for the transfer of the aligner
photographs_of = "magnetic tile"  # what it shows

# %%
import numpy as np
import pandas as pd
from IPython.display import display

from zsadlib import aligner, benchmark, bootstrap, datasets, metrics, plots, profiles, prompts, scoring, study

plots.use_style()
settings, results = profiles.load_profile(profile), study.results_folder(profile)
backbone = benchmark.profile_backbone(settings)
development = [c.take(limit) for c in datasets.load_dataset("miniad-development")]
test = [c.take(limit) for c in datasets.load_dataset("miniad-test")]

# %% [markdown]
# Every image is encoded once; knobs only change what is done with the embeddings.

# %%
encoded = {c.name: benchmark.encode_category(backbone, c) for c in development + test}
truth = {c.name: benchmark.masks_of(c, settings.map_size) for c in development + test}
committed = benchmark.profile_aligner(settings, backbone)


# %%
ensembles = {c.name: scoring.bank_ensemble(backbone, c.name, *settings.banks) for c in development + test}


# %%
def image_auroc(categories, weigh):
    """Mean image AUROC when ``weigh(image, ensemble)`` chooses the prompts."""
    values = []
    for c in categories:
        image, ensemble = encoded[c.name].image, ensembles[c.name]
        sides = zip(weigh(image, ensemble), (ensemble.t_normal, ensemble.t_abnormal), strict=True)
        text = [scoring.F.normalize(weights @ t, dim=-1) for weights, t in sides]
        values.append(metrics.image_metrics(c.labels, scoring.anomaly_score(image, *text).numpy())["image_auroc"])
    return np.mean(values)


# %% [markdown]
# ## Knob 1: how sharply an image may choose (`salience`, `margin`)
#
# A low temperature lets one prompt speak; a high one is the mean of what `anchor` leaves.

# %%
temperatures = [0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0]
sharpness = [
    {"reading": name, "temperature": t, "value": image_auroc(development, lambda i, e: scoring.READINGS[name](i, e, t))}  # noqa: B023
    for name in ("salience", "margin", "typical")
    for t in temperatures
]
sharpness = pd.DataFrame(sharpness)
study.save_table(sharpness, results, "ablation_temperature")

# %%
figure = plots.curves(sharpness, "temperature", "reading", "image AUROC, development (%)")
plots.save(figure, results, "ablation_temperature")

# %% [markdown]
# ## Knob 2: how the aligner is fitted
#
# Fitted on the last three development categories, measured on the first three: ridge, window side, and the number of images.


# %%
def pixel_auroc(categories, fit):
    """Mean pixel AUROC and AUPRO of the maps of a fitted aligner, prompts not adapted."""
    values = []
    for c in categories:
        text = scoring.adapt(encoded[c.name].image, ensembles[c.name])
        maps = aligner.to_map(scoring.anomaly_score(fit(encoded[c.name].patches), *text), settings.map_size).numpy()
        values.append(metrics.pixel_metrics(truth[c.name], maps))
    return pd.DataFrame(values).mean()[["pixel_auroc", "pixel_aupro"]].to_dict()


# %%
paths = [s.path for c in development[3:] for s in c.test[::3]]
knobs = [("ridge", r, {"ridge": r}, paths) for r in (0.001, 0.01, 0.1, 1.0, 10.0)]
knobs += [("window", k, {"k": k}, paths) for k in (1, 2, 3, 4, 5, 6)]
knobs += [("images", n, {}, paths[:: len(paths) // n][:n]) for n in (1, 2, 4, 8, 16, 32) if n <= len(paths)]
fits = []
for knob, value, options, images in knobs:
    fit = aligner.Aligner.fit(backbone, benchmark.batches(backbone, images, 16), **options)
    fits.append({"knob": knob, "setting": value} | pixel_auroc(development[:3], fit))
fits = pd.DataFrame(fits)
study.save_table(fits, results, "ablation_aligner")

# %%
figure = plots.curves(fits, "setting", "knob", "pixel AUROC, development (%)", y="pixel_auroc", panels=True)
plots.save(figure, results, "ablation_aligner")

# %% [markdown]
# ## The stack, part by part
#
# On the test categories: each row adds one part to the row above.


# %%
def draws(c, banks, reading, place):
    ensemble = scoring.bank_ensemble(backbone, c.name, *banks)
    text = scoring.adapt(encoded[c.name].image, ensemble, reading)
    scores = scoring.anomaly_score(encoded[c.name].image, *text).numpy()
    maps = aligner.to_map(scoring.anomaly_score(place(encoded[c.name].patches), *text), settings.map_size).numpy()
    return {"image_auroc": bootstrap.image_draws(c.labels, scores)} | bootstrap.pixel_draws(
        c.labels, truth[c.name], maps
    )


# %%
stack = {
    "static prompts, raw patches": (["static"], "mean", backbone.project),
    "+ aligner": (["static"], "mean", committed),
    f"+ {settings.bank}": (settings.banks, "mean", committed),
    f"+ {settings.reading}": (settings.banks, settings.reading, committed),
}
found = {part: pd.DataFrame([draws(c, *options) for c in test]) for part, options in stack.items()}

# %%
parts, names = [], list(stack)
for metric in ("image_auroc", "pixel_auroc", "pixel_aupro"):
    for before, part in zip([None, *names], names, strict=False):
        value = bootstrap.interval(list(found[part][metric]))[1]
        gain = bootstrap.difference(list(found[before][metric]), list(found[part][metric])) if before else {}
        parts.append({"metric": metric, "part": part, "value": value} | gain)
parts = pd.DataFrame(parts)
study.save_table(parts, results, "ablation_stack")
parts.set_index(["metric", "part"]).mul([100] * 4 + [1] * 2).round(1)

# %%
added = parts.dropna().assign(label=parts.metric.str.replace("_", " ") + ": " + parts.part)
figure = plots.gains(added, "label", "gain over the row above (points), test categories")
plots.save(figure, results, "ablation_stack")

# %% [markdown]
# ## Does the aligner travel?
#
# Three domains: MiniAD's drawings, photographs of textiles, and a folder of yours if you name one. The aligner is fitted on
# the unlabelled images of one and used on another. Textiles have no masks, so there the maximum of the map is judged as an
# image score. "Home" means fitted on pictures of the same kind (never with labels).

# %%
textile = datasets.load_dataset("textile:200")[0].take(limit)
own = datasets.read_category(photographs, photographs_of).take(limit) if photographs else None
homes = {"textile": [s.path for s in textile.test[::3]]}
homes |= {photographs_of: [s.path for s in own.test[::3]]} if own else {}
aligners = {"MiniAD development": committed} | {
    name: aligner.Aligner.fit(backbone, benchmark.batches(backbone, images, 16), settings.aligner_window)
    for name, images in homes.items()
}


# %%
def travel(c, name, fit):
    ensemble = scoring.bank_ensemble(backbone, c.name, "static")
    z = encoded[c.name] if c.name in encoded else benchmark.encode_category(backbone, c)
    text = scoring.adapt(z.image, ensemble)
    maps = aligner.to_map(scoring.anomaly_score(fit(z.patches), *text), settings.map_size).numpy()
    found = {"image_auroc": bootstrap.image_draws(c.labels, maps.max((1, 2)))}
    if c.has_masks:
        found |= bootstrap.pixel_draws(c.labels, benchmark.masks_of(c, settings.map_size), maps)
    return {"scored on": c.dataset, "category": c.name, "fitted on": name} | found


# %%
targets = [*test, textile, *([own] if own else [])]
moved = pd.DataFrame([travel(c, name, fit) for name, fit in aligners.items() for c in targets])
transfer = []
for (target, name), group in moved.groupby(["scored on", "fitted on"], sort=False):
    row = {"scored on": target, "fitted on": name}
    for metric in ("image_auroc", "pixel_auroc", "pixel_aupro"):
        usable = group[metric].dropna()
        row[metric] = bootstrap.interval(list(usable))[1] if len(usable) else None
    transfer.append(row)
transfer = pd.DataFrame(transfer)
study.save_table(transfer, results, "aligner_transfer")
transfer.set_index(["scored on", "fitted on"]).astype(float).mul(100).round(1)

# %% [markdown]
# (`image_auroc` here is that of the map's maximum.)
#
# Photographs of your own, kind by kind: image AUROC of each kind of defect against the good ones, by the image score.


# %%
def by_kind(c):
    kinds, image = np.array([s.kind for s in c.test]), benchmark.encode_category(backbone, c).image
    recorded = [bank for bank in settings.banks if bank == "static" or prompts.bank_path(bank, c.name).is_file()]
    for banks, reading in ((["static"], "mean"), (recorded or ["static"], settings.reading)):
        text = scoring.adapt(image, scoring.bank_ensemble(backbone, c.name, *banks), reading)
        scores = scoring.anomaly_score(image, *text).numpy()
        for kind in sorted(set(kinds) - {"good"}):
            part = np.isin(kinds, ["good", kind])
            low, value, high = bootstrap.interval([bootstrap.image_draws(c.labels[part], scores[part])])
            row = {
                "category": c.name,
                "kind": kind,
                "images": int((kinds == kind).sum()),
                "banks": " + ".join(banks),
                "reading": reading,
            }
            yield row | {"image_auroc": value, "low": low, "high": high}


# %%
if own:
    kinds = pd.DataFrame(by_kind(own))
    study.save_table(kinds, results, "photographs_by_kind")
    display(kinds.set_index(["kind", "images", "banks", "reading"])[["image_auroc", "low", "high"]].mul(100).round(1))
else:
    print("no folder was named: see the parameter 'photographs'")

# %% [markdown]
# ## What we learn

# %%
for metric, group in parts.groupby("metric", sort=False):
    best = group.dropna().nlargest(1, "gain").iloc[0]
    print(
        f"{metric}: the largest step is '{best.part}' with {100 * best.gain:+.1f} points, up in {best.up:.0f} of {best.of:.0f}"
    )
spread = fits.groupby("knob").pixel_auroc.agg(lambda v: 100 * (v.max() - v.min()))
print("aligner, spread of pixel AUROC over each knob: " + ", ".join(f"{k} {v:.1f}" for k, v in spread.items()))
home = transfer[transfer["scored on"] == "MiniAD test"].set_index("fitted on").pixel_auroc * 100
print("MiniAD test, pixel AUROC by where the aligner was fitted: " + ", ".join(f"{k} {v:.1f}" for k, v in home.items()))

# %% [markdown]
# ## Exercises
#
# **7.1** One image is enough to fit an aligner that beats the raw patches. Which image is the worst choice, and why?
#
# **7.2** Take the stack apart in another order: contextual scoring before the LLM's prompts. Do the steps add up?
#
# **7.3** Point `photographs` at a folder of your own: `zsad study --only 07 -p photographs=FOLDER --results results/mine`.
