"""Archives from outside: downloads that resume and are bounded, and unpacking that lets nothing but plain files through."""

import os
import shutil
import tarfile
from pathlib import Path, PurePosixPath

import requests
from tqdm.auto import tqdm

from zsadlib.provenance import sha256

CHUNK = 1 << 14  # a broken connection loses at most this much
RESERVE = 1 << 28  # bytes of the disk that a download leaves free


class Refused(Exception):
    """A mirror sends what cannot be the archive."""


def download(source, folder):
    """The archive from the first mirror that gives the right bytes; a stopped download continues where it was.

    Raises:
        ValueError: no mirror did (the message says what each answered), or the disk is too full.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    target = folder / source.archive
    if target.is_file() and sha256(target) == source.sha256:
        return target
    answers = []
    for number, mirror in enumerate(source.mirrors):
        # Each mirror has a file of its own: one that lies spoils nothing of another's.
        part = folder / f"{source.archive}.{number}.part"
        try:
            _receive(mirror, part, source.most_bytes)
        except requests.RequestException as error:
            answers.append(f"{mirror}: {type(error).__name__}")
            continue
        except Refused as error:
            part.unlink(missing_ok=True)
            answers.append(f"{mirror}: {error}")
            continue
        if (found := sha256(part)) == source.sha256:
            os.replace(part, target)
            for other in folder.glob(f"{source.archive}.*.part"):
                other.unlink()
            return target
        part.unlink()
        answers.append(f"{mirror}: sent a file with sha256 {found}")
    raise ValueError(
        f"no mirror gave {source.archive}: {'; '.join(answers)}. Download it by hand from {source.licence_page} and run: "
        f"zsad data fetch {source.name} --path FILE"
    )


def _receive(url, part, most_bytes):
    """Append what is missing of ``url`` to the file ``part``, a little at a time, whatever the server says of its length.

    Raises:
        Refused: it sends more than ``most_bytes`` in all, or than the disk holds without having said so, or sends it encoded.
        ValueError: the disk is too full.
    """
    have = part.stat().st_size if part.is_file() else 0
    headers = {"Accept-Encoding": "identity"} | ({"Range": f"bytes={have}-"} if have else {})
    with requests.get(url, headers=headers, stream=True, timeout=30) as reply:
        if have and reply.status_code == requests.codes.requested_range_not_satisfiable:
            return  # nothing is missing; the hash decides
        reply.raise_for_status()
        if (encoding := reply.headers.get("Content-Encoding", "identity")) != "identity":
            raise Refused(f"sends it encoded as {encoding[:20]!a}, which was not asked for")
        if reply.status_code != requests.codes.partial_content:
            have = 0
        announced = reply.headers.get("Content-Length", "")
        missing = int(announced) if announced.isdecimal() else 0
        _require_bound(have + missing, most_bytes)
        require_space(part.parent, missing)
        progress = tqdm(
            total=have + missing if missing else None, initial=have, unit="B", unit_scale=True, desc=part.stem
        )
        with progress, open(part, "ab" if have else "wb") as file:
            for chunk in reply.iter_content(CHUNK):
                have += len(chunk)
                _require_bound(have, most_bytes)
                _require_reserve(part.parent, announced=missing > 0)
                file.write(chunk)
                progress.update(len(chunk))


def _require_bound(size, most_bytes):
    if size > most_bytes:
        raise Refused(f"sends more than the {most_bytes / 1e9:.3g} GB that the archive may have")


def _require_reserve(folder, announced):
    """Stop before the disk is full: the archive can go on later where its length is known, and is not trusted where it is not."""
    try:
        require_space(folder, RESERVE)
    except ValueError:
        if announced:
            raise
        raise Refused("says no length and sends more than the disk holds") from None


def require_space(folder, needed):
    """ValueError unless ``needed`` bytes (and a little more) are free where ``folder`` is."""
    free = shutil.disk_usage(folder).free
    if free < 1.05 * needed:
        raise ValueError(f"{folder} has {free / 1e9:.1f} GB free and {needed / 1e9:.1f} GB are needed; make room first")


def unpack(archive, folder, most_bytes, most_files):
    """Unpack a tar archive into the empty ``folder``: plain files and folders only, inside it, and not too many.

    Raises:
        ValueError: a member is a link, a device or a sparse file, leaves the folder, or the archive is larger than allowed;
            or it is no readable tar archive.
    """
    size = 0
    try:
        with tarfile.open(archive) as tar:
            for number, member in enumerate(tqdm(tar, "unpacking", unit=" files"), 1):
                name = PurePosixPath(member.name)
                size += member.size
                if not (member.isdir() or member.isreg()) or member.issparse():
                    raise ValueError(f"{archive} holds '{member.name}', which is neither a plain file nor a folder")
                if name.is_absolute() or ".." in name.parts or "\\" in member.name:
                    raise ValueError(f"{archive} holds '{member.name}', which would be written outside its folder")
                if size > most_bytes or number > most_files:
                    raise ValueError(
                        f"{archive} unpacks to more than {most_bytes / 1e9:.3g} GB or {most_files} files; it is refused"
                    )
                require_space(folder, member.size)
                tar.extract(member, folder, filter="data")
    except (tarfile.TarError, EOFError, OSError) as error:
        raise ValueError(f"{archive} cannot be unpacked: {error}") from error
