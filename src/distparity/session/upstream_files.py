"""The files of torch's own ``test/distributed``: of a checkout, of an archive, or of an address."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import tarfile
import urllib.parse
import urllib.request
from dataclasses import dataclass
from pathlib import Path

from distparity import releases
from distparity.core.bad_request import BadRequest

__all__ = ["Sources", "get"]

#: Seconds for an address to go on with its answer.
ANSWER_LIMIT = 60.0
#: An archive of torch's repository with its submodules has about 300 MB.
LARGEST = 4 * 2**30
_BLOCK = 1 << 20


@dataclass(frozen=True)
class Sources:
    """The folder ``test/distributed``, and what was taken: a revision, or an archive with its checksum."""

    folder: Path
    origin: str
    #: What the repository's ``version.txt`` says, for example 2.13.0a0; empty if it is not there.
    version: str = ""


def get(source: str, release: str, scratch: Path) -> Sources:
    """Find the files of a checkout, of its ``test/distributed``, of a tar archive, or of an archive's URL.

    ``{release}`` in ``source`` is torch's public version, for example 2.13.0: one word then serves
    several releases. Raises :class:`BadRequest`.
    """
    named = source.replace("{release}", release)
    if urllib.parse.urlsplit(named).scheme in ("http", "https"):
        place = _download(named, scratch / "archive")
    else:
        place = Path(named).absolute()
    if place.is_file():
        origin = f"{_shown(named)} sha256:{_sum(place)}"
        try:
            with tarfile.open(place) as archive:
                _extract(archive, scratch / "source")
        except (tarfile.TarError, OSError, EOFError) as error:
            raise BadRequest(f"{_shown(named)}: {error}") from None
        inside = list((scratch / "source").iterdir())
        place = inside[0] if len(inside) == 1 else scratch / "source"
    elif place.is_dir():
        origin = f"{named}, {_revision(place)}"
    else:
        raise BadRequest(f"{named}: there is no such folder or archive")
    below = place / "test" / "distributed"
    folder = below if below.is_dir() else place
    version = folder.parent.parent / "version.txt"
    return Sources(folder, origin, version.read_text().strip() if version.is_file() else "")


def _download(address: str, place: Path) -> Path:
    """Fetch an archive; raises :class:`BadRequest`."""
    try:
        with (
            urllib.request.urlopen(releases.request(address), timeout=ANSWER_LIMIT) as answer,
            place.open("wb") as file,
        ):
            while block := answer.read(_BLOCK):
                file.write(block)
                if file.tell() > LARGEST:
                    raise BadRequest(f"{_shown(address)}: larger than {LARGEST // 2**30} GiB")
    except (OSError, ValueError) as error:
        reason = getattr(error, "reason", error)
        raise BadRequest(f"{_shown(address)} cannot be fetched: {reason}") from None
    return place


def _shown(address: str) -> str:
    """An address without its user and password."""
    url = urllib.parse.urlsplit(address)
    return url._replace(netloc=url.netloc.rpartition("@")[2]).geturl() if url.netloc else address


def _sum(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(_BLOCK):
            digest.update(block)
    return digest.hexdigest()


def _revision(folder: Path) -> str:
    """The revision of a checkout, and whether its test files have been changed."""

    def git(*words: str) -> str:
        done = subprocess.run(
            ["git", "-C", str(folder), *words], capture_output=True, text=True, check=False
        )
        return done.stdout.strip() if done.returncode == 0 else ""

    if shutil.which("git") is None or not (found := git("rev-parse", "HEAD")):
        return "no git checkout"
    # What is not tracked too: a file that was added is not upstream's either.
    changed = git("status", "--porcelain", "--", str(folder))
    return f"git {found}{', with changes' if changed else ''}"


def _extract(archive: tarfile.TarFile, folder: Path) -> None:
    """Write the files of an archive, and nothing else that it has; raises ``TarError`` for unsafe names.

    ``filter="data"`` does the same from Python 3.10.12, 3.11.4 and 3.12 on.
    """
    folder.mkdir(parents=True)
    for member in archive:
        place = Path(member.name)
        if place.is_absolute() or ".." in place.parts:
            raise tarfile.TarError(f"it has a file outside of it: {member.name}")
        if member.isdir():
            (folder / place).mkdir(parents=True, exist_ok=True)
        elif (file := archive.extractfile(member) if member.isfile() else None) is not None:
            (folder / place).parent.mkdir(parents=True, exist_ok=True)
            with file, (folder / place).open("wb") as copy:
                shutil.copyfileobj(file, copy)
