"""Words in: WinCLIP's static state prompts, and prompt banks that record what an LLM answered.

A bank is one readable JSON file per (LLM, category), ``<llm>/<category>.json``, with everything needed to replay or repeat it;
``index.json`` beside it holds the files' sha256. The bank "static" needs no file. The study's banks are part of this package
(``RECORDED``); a user's own lie in a folder of theirs (``OWN``) and come first where both have one.
"""

import json
import re
import unicodedata
from functools import cache
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError, field_validator

from zsadlib.files import DATA, replacing
from zsadlib.provenance import json_hash, sha256

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

RECORDED = Path(__file__).parent / "recorded"
OWN = DATA / "prompts"
MAX_PROMPTS, MAX_CHARACTERS, MAX_TOKENS = 64, 160, 77


class Answers(BaseModel):
    """What an LLM, or a user, said of a category's two sides. Whoever wrote the file: nothing but plain text comes out of it."""

    model_config = ConfigDict(extra="forbid")
    normal: list[str]
    abnormal: list[str]

    @field_validator("normal", "abnormal")
    @classmethod
    def _plain(cls, prompts):
        return [plain(prompt) for prompt in prompts]


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


def bank_path(llm, category, folder):
    """The file of a bank. Both names may hold letters, digits, spaces, dots, hyphens and underscores only."""
    for name in (llm, category):
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9 ._-]{0,79}", name):
            raise ValueError(f"'{name}' cannot name a prompt bank; use letters, digits, spaces, '.', '-' and '_'")
    return folder / llm / f"{category.replace(' ', '_')}.json"


def folders():
    """Where banks are looked for: the user's own first."""
    return OWN, RECORDED


def find_bank(llm, category, folder=None):
    """The file of a recorded bank (in ``folder``, by default in any of ``folders``), or None."""
    paths = (bank_path(llm, category, place) for place in ([folder] if folder else folders()))
    return next((path for path in paths if path.is_file()), None)


def is_recorded(llm, category):
    """Whether ``load_bank`` would find a bank."""
    return llm == "static" or find_bank(llm, category) is not None


def load_bank(llm, category, folder=None):
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
    path = find_bank(llm, category, folder)
    if path is None:
        raise ValueError(
            f"no prompt bank of '{llm}' for category '{category}'; record one with: "
            f'zsad prompts record --llm {llm} --category "{category}" (the bank "static" needs no recording)'
        )
    try:
        return Bank.model_validate_json(path.read_text(encoding="utf-8"))
    except (ValidationError, UnicodeDecodeError) as error:
        reason = error.errors()[0]["msg"] if isinstance(error, ValidationError) else error
        raise ValueError(f"{path} is not a prompt bank: {reason}; record it again") from error


def usable_bank(bank, category):
    """The bank where it has the category, else "static"; and a sentence for the user, empty where it is the bank itself."""
    try:
        load_bank(bank, category)
        return bank, ""
    except ValueError as error:
        return "static", f"using the static prompts: {error}"


def load_sentences(path, category):
    """A user's own sentences from a JSON file with the lists ``normal`` and ``abnormal``, ``{}`` standing for the object.

    Raises:
        ValueError: the file is missing or holds something else, or a side has no usable sentence.
    """
    try:
        said = json.loads(Path(path).read_text(encoding="utf-8"))
        Answers.model_validate(said)  # two lists of strings; what it makes of them has lost its {}
    except FileNotFoundError:
        raise ValueError(f"{path} does not exist; give a JSON file with two lists, normal and abnormal") from None
    except (ValueError, RecursionError, OSError) as error:
        raise ValueError(
            f'{path} holds no sentences; write {{"normal": ["flawless {{}}"], "abnormal": ["{{}} with a crack"]}}'
        ) from error
    return own_sentences(said["normal"], said["abnormal"], category)


def own_sentences(normal, abnormal, category):
    """A user's own sentences, cleaned (``clean``); a side that is None gets the static ones: ``Answers``.

    Raises:
        ValueError: a side was given and has no usable sentence.
    """
    static, sides = load_bank("static", category).answers, {}
    for side, said in (("normal", normal), ("abnormal", abnormal)):
        kept, dropped = ([], {}) if said is None else clean([text.replace("{}", category) for text in said])
        if said is not None and not kept:
            raise ValueError(
                f"none of the {side} sentences can be used ({dropped or 'there is none'}); write at least one"
            )
        sides[side] = kept or getattr(static, side)
    return Answers(**sides)


def save_bank(bank, folder=None):
    """Write a bank and its sha256 in ``index.json``, by default among the user's own; returns the path."""
    path = bank_path(bank.llm, bank.category, folder or OWN)
    with replacing(path) as temporary:
        temporary.write_text(json.dumps(bank.model_dump(), indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    files = sorted(p for p in path.parent.glob("*.json") if p.name != "index.json")
    with replacing(path.parent / "index.json") as temporary:
        temporary.write_text(json.dumps({p.name: sha256(p) for p in files}, indent=1) + "\n")
    return path


def bank_files(llm):
    """The files of a bank's categories: dict of file name -> path."""
    found = {}
    for folder in reversed(folders()):  # the user's own replace the study's
        found |= {path.name: path for path in (folder / llm).glob("[!.]*.json") if path.name != "index.json"}
    return dict(sorted(found.items()))


def bank_names():
    """Names of the recorded banks, "static" first."""
    found = {
        p.name for folder in folders() if folder.is_dir() for p in folder.iterdir() if (p / "index.json").is_file()
    }
    return ["static", *sorted(found)]


def prompt_bank_hash():
    """sha256 over the contents of every bank that can be replayed: it changes when any recorded answer does."""
    return json_hash({llm: {name: sha256(path) for name, path in bank_files(llm).items()} for llm in bank_names()})
