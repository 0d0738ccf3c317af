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
# # 2 · Cross-semantic ambiguity: when sentences mislead
#
# **Question.** Do normal and abnormal prompts really separate in the space where images are compared with them?
#
# The paper calls it *cross-semantic ambiguity*: a prompt that describes what this image does not show, or that fits the other
# side, makes normal and abnormal embeddings overlap and misleads the score.
#
# A caution: the model of this study, the *specialist*, was taught damage so directly that almost any words for it work. That is
# good for finding defects and leaves little room for what the paper is about (its card says what it was taught).

# %% tags=["parameters"]
profile = "mini"
category = "bolt"  # shown in detail; a development category
llm = "gemma-3-270m"
limit = 0  # images per category (0: all)

# %%
import pandas as pd

from zsadlib import datasets, profiles, prompts, study
from zsadlib.evaluation import bootstrap, plots
from zsadlib.prompts import ambiguity, scoring

plots.use_style()
pd.set_option("display.max_colwidth", 100)
settings, results = profiles.load_profile(profile), study.results_folder(profile)
backbone = study.profile_backbone(settings)
categories = {c.name: c for c in datasets.load_split(settings.development, limit)}
print(f"model: {backbone.name}, weights: {backbone.pretrained}")

# %% [markdown]
# ## The semantic space
#
# The static states span an axis from normal to abnormal. Along it we place every prompt of a bank; the other direction is
# the largest remaining variation (a principal component). A blue dot right of the dashed line, or a red one left of it,
# is a prompt on the wrong side. This is our version of the paper's Figure 4.

# %%
ensemble = scoring.bank_ensemble(backbone, category, llm)
figure = plots.semantic_space(ensemble, title=f"{category}, prompts of {llm}")
plots.save(figure, results, "semantic_space")

# %% [markdown]
# Which prompts are they? The ones at the top of this table are furthest on the wrong side, or nearest to it; `reason`
# names the closest sentence of the other side, however far that is.

# %%
table = ambiguity.prompt_table(ensemble)
table["depth"] = table.position.where(table.side == "normal", -table.position)
worst = table.sort_values("depth", ascending=False).head(8)
worst.assign(reason=worst.apply(ambiguity.why, axis=1))[["side", "prompt", "position", "reason"]].round(3)

# %% [markdown]
# ## One image at a time
#
# For a single image each side is an interval of similarities. Where the two intervals overlap, a prompt's similarity
# says nothing about its side. This is our version of the paper's Figure 3.

# %%
data = categories[category]
image = study.encode_category(backbone, data).image
kinds = [s.kind for s in data.test]
shown = [kinds.index(kind) for kind in ["good", *[k for k in dict.fromkeys(kinds) if k != "good"][:3]]]
figure = plots.similarity_intervals(image, ensemble, shown, [kinds[i] for i in shown])
plots.save(figure, results, "similarity_intervals")

# %% [markdown]
# The wider the grey band, the more prompts of *both* sides say nothing about this image. Hence the question of notebook 3:
# which prompts may this image use?
#
# ## The rate of ambiguity
#
# Over all development categories, and for each bank. `overlap` is the share of the prompts that lie in the overlap of the two
# intervals, for the average image. An overlap grows with the number of prompts, as every range does, so it cannot compare
# banks of different size. `confusion` can: it is the chance that, of a random normal and a random abnormal prompt, the
# *wrong* one is more similar to the image. Half means that the sides say nothing. `own_side` is the share of the prompts that
# lie on their own side of the static axis.

# %%
rows = []
for name, data in categories.items():
    image = study.encode_category(backbone, data).image
    for bank in prompts.bank_names():
        ensemble = scoring.bank_ensemble(backbone, name, bank)
        pairs = ambiguity.confusion_draws(image, ensemble, data.labels, name)
        measured = ambiguity.measures(ensemble, image) | {"confusion": pairs[0], "draws": pairs}
        rows.append({"bank": bank, "category": name} | measured)
rates = pd.DataFrame(rows)
study.save_table(rates.drop(columns="draws"), results, "ambiguity")

# %%
rows = []
for bank, group in rates.groupby("bank", sort=False):
    low, value, high = bootstrap.interval(list(group.draws))
    means = group[["prompts", "side_accuracy", "ambiguity"]].mean()
    rows.append(
        {"bank": bank, "prompts": means.prompts, "own_side": means.side_accuracy, "overlap": means.ambiguity}
        | {"confusion": value, "low": low, "high": high}
    )
of_banks = pd.DataFrame(rows)
study.save_table(of_banks, results, "ambiguity_summary")
of_banks.set_index("bank").mul([1] + [100] * 5).round(1)

# %% [markdown]
# (Means over the categories, in per cent but for the number of prompts; `low` and `high` are the 95 % interval of `confusion`
# over images.) By category:

# %%
drawn = [bootstrap.bounds([row.draws]) for row in rates.itertuples()]
shown = pd.concat([rates[["category", "bank"]], pd.DataFrame(drawn)], axis=1)
figure = plots.dots(shown, "category", "bank", "random pairs ordered against the truth (%)", at=0.5)
plots.save(figure, results, "ambiguity_rate")

# %% [markdown]
# ## What we learn

# %%
for row in of_banks.sort_values("confusion").itertuples():
    print(
        f"{row.bank}: {row.confusion:.0%} [{row.low:.0%}, {row.high:.0%}] of random pairs point the wrong way; "
        f"{row.overlap:.0%} of the prompts lie in the overlap, {1 - row.own_side:.0%} on the wrong side by their text"
    )

# %% [markdown]
# Whether such ambiguity costs anything, and whether an image that chooses its prompts gets it back, is measured in notebook 3;
# whether it predicts wrong verdicts, in notebook 9.
#
# ## Exercises
#
# **2.1** Show another `category`. Do surfaces ("granite", "fabric") look different from objects?
#
# **2.2** Remove the three worst prompts of the table from the bank and draw the space again.
#
# **2.3** Prompts of one side may differ for a good reason. When is a small overlap a *bad* sign?
