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
limit = 0  # images per category, 0 = all

# %%
import inspect

import pandas as pd

from zsadlib import benchmark, datasets, metrics, plots, profiles, prompts, scoring, study

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
image = benchmark.image_embeddings(backbone, data, settings.batch_size)
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
    image = benchmark.image_embeddings(backbone, data, settings.batch_size)
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
# The profile's reading was chosen on these development categories; the test categories of notebook 5 had no say in it.
#
# ## Exercises
#
# **3.1** Change `SALIENCE_TEMPERATURE` through `scoring.salience(image, ensemble, temperature=...)`. Where is the limit of
# ever larger temperatures, and of ever smaller ones?
#
# **3.2** Write a fifth reading: keep the half of each side's prompts that is most similar to the image. Add it to the
# table with `scoring.READINGS["top_half"] = ...`.
#
# **3.3** Why can `overlap` be worse than doing nothing? Look at the intervals of notebook 2.
