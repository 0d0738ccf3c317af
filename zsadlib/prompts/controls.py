"""Does the LLM matter? Controls for a prompt bank: sentences in its form and number that owe nothing to what an LLM knows.

Every function returns ``prompts.banks.Answers`` of noun phrases, as a bank's own are, so that all are embedded with the same
templates (``scoring.join_answers``). A draw depends on the control's name, its input and the seed alone. ``CONTROLS`` makes each
control in the size of a recorded bank. (All are this project's own.)
"""

import math
import random
import re
from functools import partial
from itertools import combinations
from pathlib import Path

from zsadlib.prompts.banks import STATIC_ABNORMAL, STATIC_NORMAL, TEMPLATES, Answers, bank_files, load_bank
from zsadlib.prompts.llm import EXAMPLES, SIDES

SHARES = (0.1, 0.2, 0.3, 0.4, 0.5)  # at one half, and sides of one size, nothing is left that tells the sides apart
# Neither good nor bad: no word of these is said of a flaw, and none names an object of a data set.
COLOURS = (
    "purple", "crimson", "turquoise", "violet", "scarlet", "magenta", "lilac", "teal", "mauve", "pink", "blue", "beige",
)  # fmt: skip
DEEDS = (
    "sings", "dances", "laughs", "whispers", "votes", "dreams of the sea", "plays chess", "speaks Latin", "reads poems",
    "counts sheep", "likes Mondays", "believes in ghosts",
)  # fmt: skip


def _shuffled(pool, *about):
    """All of ``pool`` in an order that ``about`` decides: a smaller draw is the beginning of a larger one."""
    return random.Random(repr(about)).sample(pool, len(pool))


def _first(pool, count, what):
    """The first ``count`` of a pool. Raises ValueError where it has fewer."""
    if not 0 <= count <= len(pool):
        raise ValueError(f"{count} prompts were asked for, but there are {len(pool)} {what}")
    return pool[:count]


def static_like(category, n_normal, n_abnormal, seed=0):
    """As many static prompts as a bank has: WinCLIP's states in WinCLIP's 22 templates, each sentence a prompt of its own.

    What a bank would gain by its number of sentences alone. The states take turns, so none counts for more than one prompt
    more than another. A template's first article and full stop are left out, which makes it a noun phrase; embedded with
    ``SHORT_TEMPLATES``, as a bank is, three of four texts say "photo" twice.

    Raises:
        ValueError: more are asked for than the 154 normal and 88 abnormal ones.
    """
    sides = {}
    for side, states, count in (("normal", STATIC_NORMAL, n_normal), ("abnormal", STATIC_ABNORMAL, n_abnormal)):
        states = _shuffled(states, "static_like", category, seed, side)
        frames = [_shuffled(TEMPLATES, "static_like", category, seed, state) for state in states]
        pool = [
            template.removeprefix("a ").removesuffix(".").format(state.format(category))
            for turn in zip(*frames, strict=True)
            for state, template in zip(states, turn, strict=True)
        ]
        sides[side] = _first(pool, count, f"{side} static sentences")
    return Answers(**sides)


def _parts(phrase):
    """The things that an example's phrase lists; whole where a part would be a word on its own ("bent and missing bristles")."""
    parts = phrase.split(" and ")
    return parts if all(" " in part for part in parts) else [phrase]


def recombined(category, n, seed=0):
    """``n`` prompts a side from the few-shot examples that the LLM was shown: two things they say, put onto this category.

    What a small LLM would say if it repeated what it has just read, knowing nothing of the object.

    Raises:
        ValueError: the examples have fewer pairs.
    """
    sides = {}
    for side in SIDES:
        said = [part for _, phrase in EXAMPLES[side] for part in _parts(phrase)]
        pool = _shuffled(list(combinations(dict.fromkeys(said), 2)), "recombined", category, seed, side)
        sides[side] = [f"{category} with {one} and {other}" for one, other in _first(pool, n, f"{side} pairs")]
    return Answers(**sides)


def _head(name):
    """Head noun of a name: its last word, without number and plural ("pcb4" -> "pcb", "capsules" -> "capsule")."""
    word = name.lower().split()[-1].rstrip("0123456789")
    return word if word.endswith("ss") else word.removesuffix("s")


def of_other_objects(bank, category, seed=0):
    """Recorded prompts of the other categories of a bank, each with its own object's name, in the size of this category's.

    What is right about damage in general and wrong about the object. A category counts as this one where one head noun ends
    in the other ("capsules", "capsule"; "hazelnut", "metal nut"), and a prompt that names this one's is left out. Synonyms
    ("fabric", "textile") are not known for such. The draw changes with the bank's list of categories.

    Raises:
        ValueError: the bank has not this category, or too few others.
    """
    size, own = load_bank(bank, category).answers, _head(category)
    recorded = [load_bank(bank, Path(file).stem.replace("_", " ")) for file in bank_files(bank)]
    others = [b for b in recorded if not (_head(b.category).endswith(own) or own.endswith(_head(b.category)))]
    sides = {}
    for side in SIDES:
        # A side of ``fallback`` holds static sentences: not what the LLM said of that object.
        said = [prompt for b in others if side not in b.fallback for prompt in getattr(b.answers, side)]
        pool = [p for p in said if not any(_head(word).endswith(own) for word in re.findall(r"\w+", p))]
        pool = _shuffled(pool, "of_other_objects", bank, category, seed, side)
        sides[side] = _first(pool, len(getattr(size, side)), f"{side} prompts of other objects in '{bank}'")
    return Answers(**sides)


def nonsense(category, n, seed=0):
    """``n`` prompts a side that say nothing of the object's state ("purple bolt that sings"), both from one list, none twice.

    What the mere presence of two sets of varied sentences does: which side a sentence is on is chance.

    Raises:
        ValueError: the list has fewer than 2 n.
    """
    pool = [f"{colour} {category} that {deed}" for colour in COLOURS for deed in DEEDS]
    drawn = _first(_shuffled(pool, "nonsense", category, seed), 2 * n, "nonsense sentences")
    return Answers(normal=drawn[:n], abnormal=drawn[n:])


def swapped(answers, share, seed=0):
    """The same prompts, ``share`` of them on the wrong side; both sides keep their size.

    A known dose of wrong sides. As many prompts go over as come back: ``share`` of the smaller side, rounded to the nearest
    whole number, and down where two are equally near, so that a share of 0.5 never turns the sides round. What a smaller
    share swaps, a larger one swaps as well.

    Raises:
        ValueError: ``share`` is not in [0, 1].
    """
    if not 0 <= share <= 1:
        raise ValueError(f"a share of {share} cannot be swapped; choose one from 0 to 1")
    normal, abnormal = list(answers.normal), list(answers.abnormal)
    count = math.ceil(share * min(len(normal), len(abnormal)) - 0.5)
    places = [_shuffled(range(len(side)), "swapped", seed, side)[:count] for side in (normal, abnormal)]
    for i, j in zip(*places, strict=True):
        normal[i], abnormal[j] = abnormal[j], normal[i]
    return Answers(normal=normal, abnormal=abnormal)


def subsample(answers, n_normal, n_abnormal, seed=0):
    """A part of the prompts, in their order: banks matched in size. A smaller part lies within a larger one.

    Raises:
        ValueError: a side has fewer.
    """
    sides = {}
    for side, count in zip(SIDES, (n_normal, n_abnormal), strict=True):
        prompts = getattr(answers, side)
        places = _first(_shuffled(range(len(prompts)), "subsample", seed, prompts), count, f"{side} prompts")
        sides[side] = [prompts[i] for i in sorted(places)]
    return Answers(**sides)


def _sizes(bank, category):
    answers = load_bank(bank, category).answers
    return len(answers.normal), len(answers.abnormal)


def _sized(make, bank, category, seed=0):
    """A control of so many prompts a side, cut to the size of each side of the bank."""
    sizes = _sizes(bank, category)
    return subsample(make(category, max(sizes), seed), *sizes, seed)


# Name -> (bank, category, seed) -> Answers in the size of that recorded bank.
CONTROLS = {
    "static-like": lambda bank, category, seed=0: static_like(category, *_sizes(bank, category), seed),
    "recombined": partial(_sized, recombined),
    "of other objects": of_other_objects,
    "nonsense": partial(_sized, nonsense),
} | {
    f"swapped {share:.0%}": lambda bank, category, seed=0, share=share: swapped(
        load_bank(bank, category).answers, share, seed
    )
    for share in SHARES
}
