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

# %% tags=["parameters"]
profile = "mini"
category = "bolt"  # shown in detail; a development category
llm = "gemma-3-270m"
limit = 0  # images per category (0: all)

# %%
import pandas as pd

from zsadlib import datasets, profiles, prompts, study
from zsadlib.evaluation import plots
from zsadlib.prompts import ambiguity, scoring

plots.use_style()
pd.set_option("display.max_colwidth", 100)
settings, results = profiles.load_profile(profile), study.results_folder(profile)
backbone = study.profile_backbone(settings)
categories = {c.name: c for c in datasets.load_split(settings.development, limit)}

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
# Over all development categories, and for each bank: how many prompts lie in the overlap of the average image?

# %%
rows = []
for name, data in categories.items():
    image = study.encode_category(backbone, data).image
    for bank in prompts.bank_names():
        rows.append(
            {"bank": bank, "category": name} | ambiguity.measures(scoring.bank_ensemble(backbone, name, bank), image)
        )
rates = pd.DataFrame(rows)
study.save_table(rates, results, "ambiguity")
rates.pivot(index="category", columns="bank", values="ambiguity").round(2)

# %%
figure = plots.bars(rates, "category", "ambiguity", "bank", "prompts in the overlap (%)")
plots.save(figure, results, "ambiguity_rate")
# %% [markdown]
# ## What we learn

# %%
mean = rates.groupby("bank")[["ambiguity", "side_accuracy"]].mean()
for bank, row in mean.sort_values("ambiguity").iterrows():
    print(
        f"{bank}: {row.ambiguity:.0%} of the prompts are ambiguous for an image, {1 - row.side_accuracy:.0%} by their text"
    )

# %% [markdown]
# ## Exercises
#
# **2.1** Show another `category`. Do surfaces ("granite", "fabric") look different from objects?
#
# **2.2** Remove the three worst prompts of the table from the bank and draw the space again.
#
# **2.3** Prompts of one side may differ for a good reason. When is a small overlap a *bad* sign?
