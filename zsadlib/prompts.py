"""Words in: WinCLIP's static state prompts, and prompt banks that record what an LLM answered.

A bank is one readable JSON file per (LLM, category), ``data/prompts/<llm>/<category>.json``, with everything needed to
replay or repeat it; ``index.json`` beside it holds the files' sha256. The bank "static" needs no file.
"""

import hashlib
import json
import re
import unicodedata
from functools import cache

from pydantic import BaseModel, ConfigDict, ValidationError

from zsadlib.files import DATA, replacing, sha256

# WinCLIP (CVPR 2023), supplementary: state words and templates.
STATIC_NORMAL = (
    "{}", "flawless {}", "perfect {}", "unblemished {}", "{} without flaw", "{} without defect", "{} without damage",
)  # fmt: skip
STATIC_ABNORMAL = ("damaged {}", "{} with flaw", "{} with defect", "{} with damage")
TEMPLATES = tuple(
    f"a {kind} of {article} {{}}{purpose}."
    for kind, purpose in [
        ("cropped photo", ""), ("close-up photo", ""), ("bright photo", ""), ("dark photo", ""),
        ("jpeg corrupted photo", ""), ("blurry photo", ""), ("photo", ""), ("photo", " for visual inspection"),
        ("photo", " for anomaly detection"),
    ]
    for article in ("a", "the")
) + tuple(f"a photo of {article} {size} {{}}." for size in ("small", "large") for article in ("a", "the"))  # fmt: skip
SHORT_TEMPLATES = ("{}", "a photo of a {}.", "a close-up photo of the {}.", "a photo of the {} for visual inspection.")

PROMPTS = DATA / "prompts"
MAX_PROMPTS, MAX_CHARACTERS, MAX_TOKENS = 64, 160, 77


class Answers(BaseModel):
    """What an LLM said of a category's two sides."""

    model_config = ConfigDict(extra="forbid")
    normal: list[str]
    abnormal: list[str]


class Bank(BaseModel):
    """A recorded prompt bank. ``fallback`` names the sides that are static prompts because no answer was usable."""

    model_config = ConfigDict(extra="forbid")
    llm: str
    category: str
    request: dict
    answers: Answers
    seeds: list[int] = []
    tokens: dict[str, int] = {}
    price_usd: float | None = None
    date: str = ""
    server_model: str = ""
    licence: str = ""
    provenance: str = ""
    dropped: dict[str, int] = {}
    fallback: list[str] = []


def plain(text):
    """Text from outside without markup, braces and invisible characters (Unicode C and Z classes); white space folded."""
    text = re.sub(r"<[^>]*>|[{}<>]", " ", str(text))
    return " ".join("".join(" " if unicodedata.category(c)[0] in "CZ" else c for c in text).split())


@cache
def _clip_tokenizer():
    import open_clip  # its vocabulary comes with the package

    return open_clip.get_tokenizer("ViT-B-32")


def clip_tokens(text):
    """Length of a sentence in CLIP's tokens, start and end included."""
    return len(_clip_tokenizer().encode(text)) + 2


def clean(prompts):
    """Make LLM output safe to use: returns the prompts that are left and how many were dropped, by reason.

    Markup and control characters are removed (``plain``); then what is empty, too long (more than ``MAX_CHARACTERS``
    characters or ``MAX_TOKENS`` CLIP tokens), a duplicate, or beyond ``MAX_PROMPTS`` is dropped.
    """
    kept, dropped, seen = [], {}, set()
    for prompt in prompts:
        text = plain(prompt).strip("\"'`*-•").strip().rstrip(".").strip()
        reason = (
            "empty" if not re.search(r"[^\W\d_]{2}", text)
            else "too long" if len(text) > MAX_CHARACTERS
            else "duplicate" if text.lower() in seen
            else "too many tokens" if clip_tokens(text) > MAX_TOKENS
            else "too many" if len(kept) >= MAX_PROMPTS
            else None
        )  # fmt: skip
        if reason:
            dropped[reason] = dropped.get(reason, 0) + 1
        else:
            seen.add(text.lower())
            kept.append(text)
    return kept, dropped


def bank_path(llm, category, folder=PROMPTS):
    """The file of a bank. Both names may hold letters, digits, spaces, dots, hyphens and underscores only."""
    for name in (llm, category):
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9 ._-]{0,79}", name):
            raise ValueError(f"'{name}' cannot name a prompt bank; use letters, digits, spaces, '.', '-' and '_'")
    return folder / llm / f"{category.replace(' ', '_')}.json"


def is_recorded(llm, category, folder=PROMPTS):
    """Whether ``load_bank`` would find a bank."""
    return llm == "static" or bank_path(llm, category, folder).is_file()


def load_bank(llm, category, folder=PROMPTS):
    """The recorded answers of ``llm`` for ``category`` (replay): ``Bank``.

    Raises:
        ValueError: no such bank (the message names the command that records one), or its file is damaged.
    """
    if llm == "static":
        answers = {
            "normal": [s.format(category) for s in STATIC_NORMAL],
            "abnormal": [s.format(category) for s in STATIC_ABNORMAL],
        }
        return Bank(llm="static", category=category, request={"source": "WinCLIP (CVPR 2023)"}, answers=answers)
    path = bank_path(llm, category, folder)
    if not path.is_file():
        raise ValueError(
            f"no prompt bank of '{llm}' for category '{category}'; record one with: "
            f'zsad prompts record --llm {llm} --category "{category}" (the bank "static" needs no recording)'
        )
    try:
        return Bank.model_validate_json(path.read_text(encoding="utf-8"))
    except ValidationError as error:
        raise ValueError(f"{path} is not a prompt bank: {error.errors()[0]['msg']}; record it again") from error


def save_bank(bank, folder=PROMPTS):
    """Write a bank and its sha256 in ``index.json``; returns the path."""
    path = bank_path(bank.llm, bank.category, folder)
    with replacing(path) as temporary:
        temporary.write_text(json.dumps(bank.model_dump(), indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    files = sorted(p for p in path.parent.glob("*.json") if p.name != "index.json")
    with replacing(path.parent / "index.json") as temporary:
        temporary.write_text(json.dumps({p.name: sha256(p) for p in files}, indent=1) + "\n")
    return path


def banks(folder=PROMPTS):
    """Names of the recorded banks, "static" first."""
    found = sorted(p.name for p in folder.iterdir() if (p / "index.json").is_file()) if folder.is_dir() else []
    return ["static", *found]


def prompt_bank_hash(folder=PROMPTS):
    """sha256 over every index file: it changes when any recorded answer does."""
    digest = hashlib.sha256()
    for index in sorted(folder.glob("*/index.json")):
        digest.update(index.parent.name.encode() + index.read_bytes())
    return digest.hexdigest()
