"""A study's settings as data: one validated JSON file per profile."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

FOLDER = Path(__file__).parent / "profiles"


class Profile(BaseModel):
    """Which model, which sets, which choices. The choices were made on development and frozen here (that of
    ``threshold`` with the seen test in view).

    ``methods`` (without support images) and ``few_shot`` name detectors.
    ``development``, ``seen`` and ``test`` name data sets (``datasets.load_dataset``): those on which choices are made, former
    test sets whose results were looked at since, and those on which nothing was chosen.
    ``layers`` are blocks, counted from 1, for the methods that compare patch tokens. ``draws`` of support images are made for
    each number of ``shots``. float32 is the reference ``precision``; the others are for GPUs and processors that have them, and
    "auto" is the fastest of them. ``dry_run`` allows random weights and forbids ``results/``. ``trust`` says in one line what a
    profile is good for.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)
    name: str
    trust: str = ""
    backbone: str
    pretrained: str
    image_size: int = Field(ge=32, le=2048)
    layers: tuple[int, ...] = Field(min_length=1)
    device: Literal["auto", "cpu", "cuda"]
    precision: Literal["float32", "bfloat16", "float16", "auto"]
    development: tuple[str, ...] = Field(min_length=1)
    seen: tuple[str, ...] = ()
    test: tuple[str, ...] = Field(min_length=1)
    methods: tuple[str, ...] = Field(min_length=1)
    few_shot: tuple[str, ...]
    shots: tuple[Annotated[int, Field(ge=1, le=64)], ...]
    draws: int = Field(ge=1, le=100)
    bank: str
    static: bool
    reading: Literal["mean", "overlap", "anchor", "top_half", "salience", "margin", "typical"]
    threshold: Literal["half", "otsu", "mixture", "two_groups"]
    aligner_window: int = Field(ge=1, le=8)
    window_sizes: tuple[int, ...] = Field(min_length=1)
    map_size: int = Field(ge=16, le=2048)
    batch_size: int = Field(ge=1, le=1024)
    seed: int = Field(ge=0)
    dry_run: bool = False

    @property
    def reported(self):
        """Names of the sets whose results are reported: all but development."""
        return (*self.seen, *self.test)

    @property
    def banks(self):
        """Names of the prompt banks that ALFA joins: the static states first where ``static`` says so."""
        return ("static", self.bank) if self.static else (self.bank,)


def profile_names():
    return sorted(p.stem for p in FOLDER.glob("*.json"))


def load_profile(name):
    """A profile by its name, or from a JSON file of the user's.

    Raises:
        ValueError: there is no such profile, or it does not validate.
    """
    path = Path(name) if str(name).endswith(".json") else FOLDER / f"{name}.json"
    if not path.is_file():
        raise ValueError(f"unknown profile '{name}'; choose one of {', '.join(profile_names())}, or a .json file")
    try:
        return Profile.model_validate_json(path.read_text())
    except ValidationError as error:
        first = error.errors()[0]
        raise ValueError(f"profile {path}: {'.'.join(map(str, first['loc']))}: {first['msg']}") from error
