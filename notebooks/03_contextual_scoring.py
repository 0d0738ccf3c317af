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
# # 3 · Contextual scoring: each image chooses its prompts
#
# **Question.** Does adapting the prompt collection to each image repair what ambiguity broke?
#
# The paper says *what*: the image's similarity to every prompt decides which prompts count. It does not say *how*, so we
# compare four readings behind one interface. All are **reconstructions**.

# %% tags=["parameters"]
profile = "mini"
category = "bolt"
llm = "gemma-3-270m"
limit = 0  # images per category (0: all)

# %%
import inspect

import pandas as pd

from zsadlib import aligner, benchmark, datasets, metrics, plots, profiles, prompts, scoring, study

plots.use_style()
settings, results = profiles.load_profile(profile), study.results_folder(profile)
backbone = benchmark.profile_backbone(settings)
categories = [c.take(limit) for c in datasets.load_dataset("miniad-development")]

# %% [markdown]
# ## Four readings
#
# A reading takes image embeddings and a prompt ensemble, and returns one weight per prompt and image. `mean` does not
# adapt at all. `overlap` is the literal reading: drop what lies in the overlap of the two similarity intervals.

# %%
print(inspect.getsource(scoring.overlap))

# %% [markdown]
# `anchor` drops the prompts on the wrong side of the static axis, for every image alike. `salience` does the same and
# then lets each image weigh the rest: what it shows counts more.

# %%
print(inspect.getsource(scoring.salience))

# %% [markdown]
# ## What an image pays attention to
#
# For one defective image, the abnormal prompts with the largest weights:

# %%
data = next(c for c in categories if c.name == category)
answers = prompts.load_bank(llm, category).answers
ensemble = scoring.build_ensemble(backbone, category, answers.normal, answers.abnormal, prompts.SHORT_TEMPLATES)
image = benchmark.encode_category(backbone, data).image
row = int(data.labels.argmax())
weights = scoring.salience(image[row : row + 1], ensemble)[1][0]

# %%
plots.pictures([datasets.load_image(data.test[row].path)], [data.test[row].kind], columns=1, width=2)

# %%
pd.DataFrame({"abnormal prompt": ensemble.abnormal, "weight": weights}).nlargest(5, "weight").round(3)

# %% [markdown]
# ## Every bank with every reading
#
# Image AUROC on the development categories. "both" adds the static states to the small LLM's prompts.


# %%
def answers_of(bank, name):
    parts = ["static", llm] if bank == "both" else [bank]
    found = [prompts.load_bank(part, name).answers for part in parts]
    return sum((f.normal for f in found), []), sum((f.abnormal for f in found), [])


# %%
rows, banks = [], [*prompts.banks(), "both"]
for data in categories:
    image = benchmark.encode_category(backbone, data).image
    for bank in banks:
        ensemble = scoring.build_ensemble(backbone, data.name, *answers_of(bank, data.name), prompts.SHORT_TEMPLATES)
        for reading in scoring.READINGS:
            score = scoring.anomaly_score(image, *scoring.adapt(image, ensemble, reading))
            auroc = metrics.image_metrics(data.labels, score)["image_auroc"]
            rows.append({"bank": bank, "reading": reading, "category": data.name, "image_auroc": auroc})
readings = pd.DataFrame(rows)
study.save_table(readings, results, "contextual_scoring")

# %%
means = readings.pivot_table(index="bank", columns="reading", values="image_auroc", sort=False)
(100 * means).round(1)

# %%
figure = plots.bars(readings, "bank", "image_auroc", "reading", "image AUROC (%)", limits=(50, 100))
plots.save(figure, results, "contextual_scoring")
# %% [markdown]
# ## What we learn

# %%
for bank in banks:
    best = means.loc[bank].idxmax()
    gain = 100 * (means.loc[bank, best] - means.loc[bank, "mean"])
    hurt = ", ".join(r for r in means.columns if means.loc[bank, r] < means.loc[bank, "mean"] - 0.01) or "none"
    print(f"{bank}: best reading '{best}' ({gain:+.1f} points over 'mean'); readings that cost over a point: {hurt}")

# %% [markdown]
# The profile's reading was chosen on these development categories.
#
# ## Which LLM understands anomalies?
#
# The same table for whole splits, with maps: every bank with every reading, on development *and* on test categories (the
# latter had no say in any choice). The interval is a 95 % bootstrap over images, resampled within each category. Maps are
# scored at half the usual resolution here, to save time.


# %%
def compare(data, bank, reading, encoded, places, masks):
    ensemble = scoring.build_ensemble(backbone, data.name, *answers_of(bank, data.name), prompts.SHORT_TEMPLATES)
    text = scoring.adapt(encoded.image, ensemble, reading)
    scores = scoring.anomaly_score(encoded.image, *text).numpy()
    maps = aligner.to_map(scoring.anomaly_score(places, *text), masks.shape[-1]).numpy()
    key = {"split": data.dataset, "category": data.name, "bank": bank, "reading": reading}
    return key | {"scores": scores, "labels": data.labels} | metrics.pixel_metrics(masks, maps)


# %%
project, found = benchmark.profile_aligner(settings, backbone), []
splits = ["miniad-development", "miniad-test"]
for data in [c.take(limit) for name in splits for c in datasets.load_dataset(name)]:
    encoded = benchmark.encode_category(backbone, data)
    context = encoded, project(encoded.patches), benchmark.masks_of(data, settings.map_size // 2)
    found += [compare(data, bank, reading, *context) for bank in banks for reading in scoring.READINGS]
found = pd.DataFrame(found)

# %%
rows = []
for (split, bank, reading), group in found.groupby(["split", "bank", "reading"], sort=False):
    low, value, high = metrics.mean_auroc_interval(group.labels, group.scores)
    image = {"image_auroc": value, "low": low, "high": high}
    pixel = group[["pixel_auroc", "pixel_aupro"]].mean().to_dict()
    fallback = sum(len(prompts.load_bank(bank, c).fallback) for c in group.category) if bank != "both" else 0
    rows.append({"split": split, "bank": bank, "reading": reading} | image | pixel | {"fallback": fallback})
comparison = pd.DataFrame(rows)
study.save_table(comparison, results, "llm_comparison")

# %%
chosen = comparison[comparison.reading.isin(["mean", settings.reading])].set_index(["split", "bank", "reading"])
(100 * chosen.drop(columns="fallback")).round(1).join(chosen.fallback)

# %% [markdown]
# `fallback` counts the sides for which the LLM gave no usable answer, so that static prompts stand in. In one sentence each:

# %%
test = comparison[comparison.split == "MiniAD test"].set_index(["bank", "reading"]).image_auroc.mul(100)
for bank in banks:
    plain, adapted = test[bank, "mean"], test[bank, settings.reading]
    against = (
        "as good as"
        if abs(plain - test["static", "mean"]) < 1
        else "better than"
        if plain > test["static", "mean"]
        else "worse than"
    )
    print(f"{bank}: taken as they are ({plain:.1f}), its prompts are {against} the static ones; ", end="")
    print(f"adapting them to each image ('{settings.reading}') changes that by {adapted - plain:+.1f} points.")

# %%
figure = plots.bars(
    comparison[comparison.split == "MiniAD test"],
    "bank",
    "image_auroc",
    "reading",
    "image AUROC (%), test",
    limits=(50, 100),
)
plots.save(figure, results, "llm_comparison")

# %% [markdown]
# ## Exercises
#
# **3.1** Change `SALIENCE_TEMPERATURE` through `scoring.salience(image, ensemble, temperature=...)`. Where is the limit of
# ever larger temperatures, and of ever smaller ones?
#
# **3.2** Write a fifth reading: keep the half of each side's prompts that is most similar to the image. Add it to the
# table with `scoring.READINGS["top_half"] = ...`.
#
# **3.3** Why can `overlap` be worse than doing nothing? Look at the intervals of notebook 2.
