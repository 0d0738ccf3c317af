"""Findings on disk as they come, so that a run that is stopped goes on where it was."""

import contextlib
import json
from dataclasses import asdict
from pathlib import Path

from zsadlib import __version__
from zsadlib.files import replacing
from zsadlib.inspection.inspector import Finding
from zsadlib.provenance import json_hash


class Partial:
    """The file ``<out>.partial`` of JSON lines: a head that says what was asked, then one line per photograph.

    Nothing is kept of a transductive method: what it says of a photograph holds for all photographs together, and they are
    judged anew.

    Args:
        out: of the run; "-" keeps nothing on disk. inspector, wanted: what was asked. images: list of ``Photograph``.
        resume: use what an earlier run of the same call left. maps: folder into which the call writes a map for each photograph.

    Attributes:
        found: dict of path -> ``Finding``. missing: the photographs that are still to be inspected.

    Raises:
        ValueError: there is something to resume, but of another call.
    """

    def __init__(self, out, inspector, images, wanted, resume=False, maps=None):
        self.images, self.found = images, {}
        self.file = None if str(out) == "-" or inspector.detector.transductive else Path(f"{out}.partial")
        asked = [bool(wanted.reasons), bool(wanted.card), maps and str(Path(maps).resolve())]
        self.head = {"zsad": __version__, "asked": json_hash([inspector.identity(), asked])}
        self._stream, self._stamps = None, {image.path: image.stamp for image in images}
        if resume and self.file is not None and self.file.is_file():
            self._read()
        self.missing = [image for image in images if image.path not in self.found]

    def _read(self):
        lines = self.file.read_text(encoding="utf-8").splitlines()
        for number, line in enumerate(lines):
            try:
                row = json.loads(line)
            except ValueError:  # the last line of a run that was killed
                continue
            if number == 0:
                if row != self.head:
                    raise ValueError(f"{self.file} is of another call; remove it, or leave --resume out to begin anew")
            elif self._stamps.get(row["path"]) == row.pop("stamp") and not row["error"]:
                self.found[row["path"]] = Finding(**row)

    def __enter__(self):
        if self.file is not None:
            with replacing(self.file) as temporary:
                lines = [self.head, *(asdict(one) | {"stamp": self._stamps[one.path]} for one in self.found.values())]
                temporary.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
            self._stream = open(self.file, "a", encoding="utf-8")
        return self

    def __exit__(self, *_):
        if self._stream is not None:
            with contextlib.suppress(OSError):
                self._stream.close()

    def add(self, finding):
        """Keep one finding."""
        self.found[finding.path] = finding
        if self._stream is not None:
            finding.anomaly_map = None
            self._stream.write(json.dumps(asdict(finding) | {"stamp": self._stamps[finding.path]}) + "\n")
            self._stream.flush()

    def findings(self):
        """All findings in the order of the photographs."""
        return [self.found[image.path] for image in self.images]

    def done(self):
        """The run is complete: nothing is left to resume."""
        if self.file is not None:
            self._stream.close()
            self.file.unlink()
