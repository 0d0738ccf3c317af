"""What something was made of: hashes of files, of data and of source code, and the versions of libraries.

A cache key is a hash of all that a result depends on. Which source files those are is not listed by hand, where one is soon
forgotten, but read from the imports.
"""

import ast
import hashlib
import importlib.metadata
import importlib.util
import json
from functools import cache
from pathlib import Path

PACKAGE = Path(__file__).resolve().parent


def sha256(path):
    """Hex digest of a file's bytes."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def json_hash(about):
    """Hex digest of JSON data."""
    return hashlib.sha256(json.dumps(about, sort_keys=True).encode()).hexdigest()


def versions(*packages):
    """Installed versions: dict of package -> version."""
    return {package: importlib.metadata.version(package) for package in packages}


def _imported(path):
    """Full names of what a source file imports, wherever in it."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (name.name for name in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.module
            yield from (f"{node.module}.{name.name}" for name in node.names)


@cache
def _source(module):
    """The source file of a module of this package; None for a package (it only gathers names) and for what is no module."""
    path = PACKAGE.parent.joinpath(*module.split(".")).with_suffix(".py")
    if path.is_file():
        return path
    found = None if module.startswith("zsadlib") else importlib.util.find_spec(module)
    return Path(found.origin) if found and found.origin else None


@cache
def sources(*modules):
    """All source files that modules are made of: their own and, import by import, those of this package below them."""
    found, waiting = {}, list(modules)
    while waiting:
        module = waiting.pop()
        if module not in found and (path := _source(module)):
            found[module] = path
            waiting += [name for name in _imported(path) if name.startswith("zsadlib.")]
    return dict(sorted(found.items()))


@cache
def source_hash(*modules):
    """sha256 over ``sources``: what was computed by another line of code is found by comparing it."""
    return json_hash({module: sha256(path) for module, path in sources(*modules).items()})


@cache
def libraries(*modules):
    """Installed packages that ``sources`` import, wherever in them: a newer version may change what they compute."""
    names = {name.partition(".")[0] for path in sources(*modules).values() for name in _imported(path)} - {"zsadlib"}
    known = importlib.metadata.packages_distributions()
    return sorted({package for name in names for package in known.get(name, ())})
