"""The captions that train the twins: one sentence a picture, about everything, and only sometimes about its state.

They play the part of the web's alternative texts, from which CLIP learned: these name an object, its colour, the light or the
view far more often than a scratch. The share of damaged pictures whose caption speaks of the damage (the *dose*) is the one
thing in which the twins differ; everything else of a caption is the same for all three.

WinCLIP's eleven static state phrases are left out of the words for states, so that static prompts and an LLM's stand alike
before the twins: neither was read in training.
"""

from zsadlib.datasets.miniad.pictures import generator
from zsadlib.prompts.banks import STATIC_ABNORMAL, STATIC_NORMAL
from zsadlib.training import captions

INTACT = 0.4  # an intact picture's state is mentioned this many times as often as a damaged one's
MENTION = 0.15  # how often a caption mentions each attribute
NAMED = 0.85  # how often the object has its name, rather than "object", "part", ...
NORMAL = [phrase for phrase in captions.NORMAL if phrase not in STATIC_NORMAL]
ABNORMAL = [phrase for phrase in captions.ABNORMAL if phrase not in STATIC_ABNORMAL]
GENERAL = 0.5  # of the words for damage: "faulty {}" rather than the kind of damage

MATERIALS = {
    "metal": "steel sheet, wire mesh, washer, hex nut, gear, coin, machine part, tool, cast surface",
    "wooden": "wood, cork", "plastic": "button, plastic part, computer chip, assembly", "glass": "bottle",
    "stone": "marble, moon rock, gravel, concrete, rough surface, granules", "ceramic": "ceramic, tiled surface",
    "woven": "carpet, patterned surface", "paper": "paper, printed label, photo print", "organic": "leaf, fruit, cookie, tissue",
    "soft": "leather, rubber, pill, material sample",
}  # fmt: skip
MADE_OF = {name: material for material, names in MATERIALS.items() for name in names.split(", ")}

VIEWS = {
    "close": ("close-up", "macro", "detailed"), "cropped": ("cropped", "partial"), "whole": ("full", "complete", "wide"),
}  # fmt: skip
LIGHTS = {"dark": ("dark", "dim", "underexposed"), "bright": ("bright", "light", "well lit"), "normal": ("plain",)}
SHARP = {True: ("sharp", "clear"), False: ("blurry", "out of focus", "soft focus")}
CONTRASTS = {"low": ("faint", "low-contrast", "hazy"), "high": ("vivid", "high-contrast"), "normal": ("ordinary",)}
FILMS = {"grey": ("black and white", "monochrome", "greyscale"), "colour": ("colour",)}
EVEN = {True: ("in even light", "evenly lit"), False: ("in uneven light", "with shadows", "lit from one side")}
ATTRIBUTES = ("colour", "material", "ground", "view", "light", "sharp", "contrast", "film", "even")
PICTURES = ("photo", "picture", "image", "photograph", "shot")
GROUNDS = ("background", "table", "ground", "surface")


def _pick(rng, words):
    return words[int(rng.integers(len(words)))]


def _article(rng, phrase):
    word = _pick(rng, ("a", "the", "this"))
    return "an" if word == "a" and phrase[:1].lower() in "aeio" else word


def caption(seed, index, facts, dose):
    """The caption of picture ``index``: the same for every ``dose`` but for the words on the state.

    Args:
        facts: of ``scenes.draw_scene``. dose: share in [0, 1] of damaged pictures whose caption mentions the damage.
    """
    rng = generator("alt texts", seed, index)
    good, mention = facts["state"] == "good", rng.random()
    words = NORMAL if good else ABNORMAL if rng.random() < GENERAL else captions.KINDS[facts["state"]]
    words = [phrase for phrase in words if phrase not in (*STATIC_NORMAL, *STATIC_ABNORMAL)]
    state = _pick(rng, words)
    names = captions.NAMES[facts["object"]] if rng.random() < NAMED else captions.ANYTHING
    said = {
        name: rng.random() < MENTION
        for name in ("colour", "material", "ground", "view", "light", "sharp", "contrast", "film", "even")
    }
    noun = _pick(rng, names)
    if said["material"]:
        noun = f"{MADE_OF[facts['object']]} {noun}"
    if said["colour"] and facts["film"] == "colour":
        noun = f"{facts['colour']} {noun}"
    if mention < (INTACT * dose if good else dose):
        noun = state.format(noun)
    looks = [
        _pick(rng, words)
        for name, words in (
            ("view", VIEWS[facts["view"]]), ("light", LIGHTS[facts["light"]]), ("sharp", SHARP[facts["sharp"]]),
            ("contrast", CONTRASTS[facts["contrast"]]), ("film", FILMS[facts["film"]]),
        )
        if said[name]
    ]  # fmt: skip
    ground = f" on a {facts['ground']} {_pick(rng, GROUNDS)}" if said["ground"] and facts["ground"] else ""
    even = f", {_pick(rng, EVEN[facts['even']])}" if said["even"] else ""
    noun = f"{_article(rng, noun)} {noun}"
    if looks or rng.random() < 0.6:
        looks = " ".join([*looks, _pick(rng, PICTURES)])
        noun = f"{_article(rng, looks)} {looks} of {noun}"
    return noun + ground + even
