"""Sets that come as Python packages: their pictures stay where pip put them, and are linked into the MVTec AD layout."""

import os
import shutil
import tempfile
from pathlib import Path

from zsadlib.datasets.folders import list_images, read_category
from zsadlib.files import DATA


def _textile_layout(root):
    """The simulated textiles of conformal-clip-data in the MVTec AD layout: links to the installed package's files."""
    import conformal_clip_data as package

    root.parent.mkdir(parents=True, exist_ok=True)
    work = Path(tempfile.mkdtemp(prefix=".textile-", dir=root.parent))
    try:
        for source, target in [("nominal", "good"), ("local", "local"), ("global", "global")]:
            for i, path in enumerate(list_images(package.textile_simulated_root() / source)):
                part = "train" if target == "good" and i < 20 else "test"
                link = work / part / target / path.name
                link.parent.mkdir(parents=True, exist_ok=True)
                try:
                    link.symlink_to(path)
                except OSError:
                    shutil.copyfile(path, link)
        shutil.rmtree(root, ignore_errors=True)
        os.replace(work, root)
    finally:
        shutil.rmtree(work, ignore_errors=True)


def load_textile():
    """The textile set of ``conformal-clip-data`` (MIT): 2,000 images, image labels only; 20 normal ones are "train"."""
    root = DATA / "textile"
    probe = root / "test" / "good"
    if not probe.is_dir() or not all(p.exists() for p in probe.iterdir()):
        _textile_layout(root)
    return [read_category(root, "textile", "textile")]
