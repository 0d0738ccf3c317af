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
# "both" adds the static states to the small LLM's prompts. Each category is encoded once; then every bank and reading
# scores the same embeddings, images and maps. (Maps at half the usual resolution here, to save time.)


# %%
def ensemble_of(bank, name):
    answers = [prompts.load_bank(part, name).answers for part in (["static", llm] if bank == "both" else [bank])]
    normal, abnormal = sum((a.normal for a in answers), []), sum((a.abnormal for a in answers), [])
    return scoring.build_ensemble(backbone, name, normal, abnormal, prompts.SHORT_TEMPLATES)


# %%
def compare(data, bank, encoded, places, masks):
    ensemble = ensemble_of(bank, data.name)
    for reading in scoring.READINGS:
        text = scoring.adapt(encoded.image, ensemble, reading)
        scores = scoring.anomaly_score(encoded.image, *text).numpy()
        maps = aligner.to_map(scoring.anomaly_score(places, *text), masks.shape[-1]).numpy()
        key = {"split": data.dataset, "category": data.name, "bank": bank, "reading": reading}
        yield key | {"scores": scores, "labels": data.labels} | metrics.pixel_metrics(masks, maps)


# %%
align, found, banks = benchmark.profile_aligner(settings, backbone), [], [*prompts.banks(), "both"]
for data in categories + [c.take(limit) for c in datasets.load_dataset("miniad-test")]:
    encoded = benchmark.encode_category(backbone, data)
    context = encoded, align(encoded.patches), benchmark.masks_of(data, settings.map_size // 2)
    found += [row for bank in banks for row in compare(data, bank, *context)]
found = pd.DataFrame(found)

# %% [markdown]
# One row per bank and reading: mean image AUROC over the categories of a split with a 95 % bootstrap interval over images, and
# the maps' metrics. `fallback` counts the sides for which an LLM gave no usable answer, so that static prompts stand in.

# %%
rows = []
for (split, bank, reading), group in found.groupby(["split", "bank", "reading"], sort=False):
    low, value, high = metrics.mean_auroc_interval(group.labels, group.scores)
    image = {"image_auroc": value, "low": low, "high": high}
    pixel = group[["pixel_auroc", "pixel_aupro"]].mean().to_dict()
    fallback = sum(len(prompts.load_bank(bank, c).fallback) for c in group.category) if bank != "both" else 0
    rows.append({"split": split, "bank": bank, "reading": reading} | image | pixel | {"fallback": fallback})
table = pd.DataFrame(rows)
study.save_table(table, results, "llm_comparison")

# %% [markdown]
# ### Development categories: where the reading is chosen

# %%
development, test = (table[table.split == f"MiniAD {s}"].drop(columns="split") for s in ("development", "test"))
development.set_index(["bank", "reading"]).mul([100] * 5 + [1]).round(1)

# %%
figure = plots.bars(development, "bank", "image_auroc", "reading", "image AUROC (%)", limits=(50, 100))
plots.save(figure, results, "contextual_scoring")

# %% [markdown]
# ### Test categories: where it is only reported

# %%
test.set_index(["bank", "reading"]).mul([100] * 5 + [1]).round(1)

# %%
figure = plots.bars(test, "bank", "image_auroc", "reading", "image AUROC (%)", limits=(50, 100))
plots.save(figure, results, "llm_comparison")

# %% [markdown]
# ## What we learn
#
# A caution first: the embedded model was trained with captions of this project's own, WinCLIP's static phrases among them.
# Static prompts are its mother tongue; an LLM's sentences are new to it. What each reading does, on the development categories:

# %%
means = development.pivot(index="bank", columns="reading", values="image_auroc").mul(100)
for bank in banks:
    gains = (means.loc[bank] - means.loc[bank, "mean"]).drop("mean")
    print(f"{bank}: mean {means.loc[bank, 'mean']:.1f}; " + ", ".join(f"{r} {g:+.1f}" for r, g in gains.items()))

# %% [markdown]
# And what that says about the language models (for this backbone), on the test categories:

# %%
auroc = test.set_index(["bank", "reading"]).image_auroc.mul(100)
for bank in banks:
    gap, gain = auroc[bank, "mean"] - auroc["static", "mean"], auroc[bank, settings.reading] - auroc[bank, "mean"]
    verdict = "about as useful as" if abs(gap) < 1 else "more useful than" if gap > 0 else "less useful than"
    print(f"{bank}: its prompts as they are prove {verdict} the static states ({gap:+.1f} points);", end=" ")
    print(f"'{settings.reading}' changes them by {gain:+.1f}.")

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
