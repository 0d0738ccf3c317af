"""The sentences the embedded model is trained with: image states in words, never a place, a mask or a patch.

They play the part of CLIP's web captions. ``{}`` is the object's name.
"""

NAMES = {
    "wood": ["wood", "wooden board"],
    "leather": ["leather", "piece of leather"],
    "carpet": ["carpet", "rug"],
    "gravel": ["gravel", "crushed stone"],
    "concrete": ["concrete", "concrete wall"],
    "steel sheet": ["steel sheet", "metal plate", "brushed metal surface"],
    "wire mesh": ["wire mesh", "metal grid"],
    "paper": ["paper", "sheet of paper"],
    "marble": ["marble", "marble slab"],
    "cork": ["cork", "cork board"],
    "rubber": ["rubber", "rubber mat"],
    "ceramic": ["ceramic", "glazed ceramic surface"],
    "moon rock": ["moon rock", "rock surface"],
    "tissue": ["tissue", "stained tissue section"],
    "washer": ["washer", "metal ring"],
    "hex nut": ["hex nut", "steel nut"],
    "button": ["button", "plastic button"],
    "pill": ["pill", "white pill"],
    "gear": ["gear", "cog wheel"],
    "bottle": ["bottle", "glass bottle seen from above"],
    "coin": ["coin", "metal coin"],
    "leaf": ["leaf", "green leaf"],
    "computer chip": ["computer chip", "integrated circuit"],
    "cookie": ["cookie", "biscuit"],
    "machine part": ["machine part", "metal part", "component"],
    "plastic part": ["plastic part", "moulded part", "fitting"],
    "fruit": ["fruit", "vegetable", "food item"],
    "patterned surface": ["patterned surface", "woven material", "panel"],
    "rough surface": ["rough surface", "stone surface"],
    "tool": ["tool", "rod", "long metal part", "pin"],
    "assembly": ["assembly", "device", "set of parts"],
    "cast surface": ["cast surface", "ground metal surface", "industrial surface", "grey plate"],
    "material sample": ["material sample", "panel", "board"],
    "tiled surface": ["tiled surface", "mosaic", "tiles"],
    "printed label": ["printed label", "print", "sign"],
    "granules": ["granules", "heap of grains", "pebbles"],
    "photo print": ["photo print", "printed picture"],
}
ANYTHING = ["object", "item", "product", "part", "surface", "material", "texture", "workpiece", "thing"]

TEMPLATES = [
    "{}", "{}", "a photo of a {}", "a photo of the {}", "a close-up photo of a {}", "a cropped photo of the {}",
    "a bright photo of a {}", "a dark photo of the {}", "a blurry photo of a {}", "an image of {}",
    "a photo of the {} for visual inspection", "a photo of a {} for anomaly detection", "there is a {} here",
]  # fmt: skip

NORMAL = [
    "{}", "flawless {}", "perfect {}", "unblemished {}", "{} without flaw", "{} without defect", "{} without damage",
    "intact {}", "undamaged {}", "normal {}", "good {}", "{} in good condition", "clean {}", "brand new {}",
    "{} with an even and regular surface", "{} with a clean surface and no marks", "smooth and uniform {}",
    "{} with no scratches, cracks or stains", "{} whose structure is regular and complete", "whole and complete {}",
    "{} with even colour and clean edges", "spotless {}", "{} that passes quality control", "well made {}",
    "{} with consistent texture", "{} with sharp, unbroken edges", "{} free of dirt and particles",
]  # fmt: skip

ABNORMAL = [
    "damaged {}", "{} with flaw", "{} with defect", "{} with damage", "defective {}", "faulty {}", "flawed {}",
    "anomalous {}", "abnormal {}", "{} with an anomaly", "imperfect {}", "{} in bad condition", "blemished {}",
    "{} that fails quality control", "{} with a visible fault", "{} with something wrong", "spoiled {}",
    "{} with an irregular spot", "{} with an unusual mark on its surface", "badly made {}",
]  # fmt: skip

KINDS = {
    "scratch": [
        "scratched {}", "{} with a scratch", "{} with fine scratches", "{} with thin straight lines on its surface",
        "{} with scratch marks", "{} scraped by something sharp", "{} with a long shallow scratch", "{} with scuff marks",
    ],
    "crack": [
        "cracked {}", "{} with a crack", "{} with a thin dark crack", "{} with a jagged fracture line",
        "{} with a branching crack", "fractured {}", "{} that has started to split", "{} with a hairline crack",
    ],
    "hole": [
        "{} with a hole", "{} with a small dark hole", "{} with pits", "{} with a pinhole", "punctured {}",
        "{} with a blowhole", "{} with dark round pores", "{} with a hole drilled into it",
    ],
    "stain": [
        "stained {}", "{} with a stain", "{} with a dark spot", "{} with an irregular coloured patch", "{} with an oil stain",
        "dirty {}", "{} with a liquid mark", "{} with a blotch",
    ],
    "dent": [
        "dented {}", "{} with a dent", "{} with a shallow depression", "{} with an impact mark", "{} pressed in at one place",
        "{} with a hollow on its surface", "{} with a sunken area",
    ],
    "bump": [
        "{} with a bump", "{} with a blister", "{} with a raised spot", "{} with a bulge", "swollen {}",
        "{} with a lump on its surface", "{} with a bubble under the surface",
    ],
    "chip": [
        "chipped {}", "{} with a chip", "{} with a piece broken out", "{} with a missing piece", "{} with a broken edge",
        "{} with a missing corner", "incomplete {}", "{} with a notch in its border", "{} with a rough broken area",
    ],
    "contamination": [
        "contaminated {}", "{} with contamination", "{} with foreign particles", "{} with dirt on it", "{} with specks",
        "{} with small grains of a different colour", "{} with dust and debris", "{} with foreign material",
    ],
    "discolouration": [
        "discoloured {}", "discolored {}", "{} with a discolored area", "{} with a patch of a different colour",
        "faded {}", "{} with uneven colour", "{} with a colour change", "{} with a pale or dark region",
    ],
    "cut": [
        "{} with a cut", "{} cut with a knife", "{} with a straight sharp cut", "{} with a slit", "{} with a deep groove",
        "{} with a gash", "sliced {}",
    ],
    "smear": [
        "smeared {}", "{} with a smear", "{} with a smudge", "{} with a blurred area", "{} with glue on it",
        "{} with smeared print", "{} with a greasy film",
    ],
    "bend": [
        "bent {}", "deformed {}", "{} with a distorted structure", "warped {}", "twisted {}", "{} out of shape",
        "{} with a distorted pattern", "misshapen {}", "crooked {}",
    ],
    "worn": [
        "worn {}", "{} with a worn area", "{} with the surface rubbed off", "{} with abrasion", "{} with missing texture",
        "{} with a flat featureless area", "eroded {}", "{} with peeled coating",
    ],
    "burn": [
        "burnt {}", "{} with a burn mark", "scorched {}", "{} with a black charred spot", "{} with brown overheated area",
        "{} with soot", "charred {}",
    ],
    "thread": [
        "{} with a thread on it", "{} with a hair on it", "{} with a loose fibre", "{} with a long thin fibre lying on it",
        "{} with a piece of string", "{} with a stray filament",
    ],
    "broken": [
        "broken {}", "{} broken in two", "{} with a break through it", "split {}", "{} whose parts are displaced",
        "{} torn apart", "ruptured {}", "{} with a gap running across it",
    ],
}  # fmt: skip
