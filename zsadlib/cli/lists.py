"""What there is to choose from: ``zsad methods``, ``zsad profiles``, and ``zsad examples`` to try it on."""

from pathlib import Path
from typing import Annotated

import typer

from zsadlib.cli.app import app, check_folder, one_sentence, tell

EXAMPLES = (("good", "good", 3), ("crack", "crack", 3), ("stain", "stain", 4))  # name, kind, seed
OBJECT, SIZE = "bolt", 384


@app.command()
@one_sentence
def examples(folder: Annotated[Path, typer.Argument(help="Folder to write three pictures into.")]):
    """Draw three pictures to try: a good bolt, one with a crack, one with a stain."""
    import numpy as np
    from PIL import Image

    from zsadlib.datasets import miniad
    from zsadlib.files import replacing

    check_folder(folder)
    if taken := [name for name, *_ in EXAMPLES if (folder / f"{OBJECT}_{name}.png").exists()]:
        raise ValueError(f"{folder / f'{OBJECT}_{taken[0]}.png'} is there already; name another folder")
    for name, kind, seed in EXAMPLES:
        image, _ = miniad.draw(OBJECT, kind, miniad.generator("examples", OBJECT, seed), SIZE)
        with replacing(folder / f"{OBJECT}_{name}.png") as temporary:
            Image.fromarray(np.rint(image * 255).astype(np.uint8)).save(temporary)
    tell(f"three drawings of a {OBJECT} are in {folder}; now try:")
    tell(f"  zsad score {folder} --category {OBJECT} --out scores.csv --report report.html")


@app.command()
@one_sentence
def methods():
    """The methods, and what each looks at beside the image that it judges."""
    from zsadlib.detectors import METHODS, method
    from zsadlib.detectors.base import said

    for name in METHODS:
        cls = method(name)
        typer.echo(f"{name:10} sees {said(cls.sees)}: {cls.__doc__.strip().splitlines()[0]}")


@app.command()
@one_sentence
def profiles():
    """The profiles: which model, at which size, and whether its weights are here."""
    from zsadlib.profiles import load_profile, profile_names

    for name in profile_names():
        one = load_profile(name)
        weights = "in this package" if one.pretrained == "embedded" else f"'{one.pretrained}', fetched on first use"
        typer.echo(f"{name:6} {one.backbone}, {one.image_size} pixels, weights {weights}; {one.trust}")
