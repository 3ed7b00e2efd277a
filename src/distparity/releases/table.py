"""The matrix: which torch releases there are, for which Pythons, and where each device's wheel is.

The noxfile, ``ci/`` and ``distparity`` itself read this one table. It needs only the standard
library, so that an interpreter without torch, pytest or distparity can load it.

A new torch release is one line in :data:`RELEASES`.
"""

from __future__ import annotations

import base64
import http.client
import os
import re
import ssl
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

__all__ = [
    "ANSWER_LIMIT",
    "BESIDE_TORCH",
    "INDEX",
    "INDEX_VARIABLE",
    "LOCAL",
    "NIGHTLY",
    "REGISTRY",
    "RELEASES",
    "ROWS",
    "NoSuchCell",
    "Row",
    "Source",
    "installing",
    "nightlies",
    "patches",
    "row",
    "source",
]

#: PyTorch's own index. A mirror, or an index of one's own, takes its place by this variable or the
#: noxfile's ``--index``; below it are the folders ``cpu``, ``cu130``, ``nightly/cpu``, ...
INDEX = "https://download.pytorch.org/whl"
INDEX_VARIABLE = "DISTPARITY_TORCH_INDEX"

#: The registry's wheel, which runs on cpu and, where there is a driver, on cuda.
REGISTRY = "registry"

#: What torch's collectives of objects, and with them FSDP1's optimizer state, go through, and what
#: its wheels nevertheless do not ask for.
BESIDE_TORCH = "numpy"

#: Seconds that an index may take to begin its answer.
ANSWER_LIMIT = 20.0


class NoSuchCell(Exception):
    """This torch does not exist for this Python or this device, or cannot be had here."""


@dataclass(frozen=True)
class Row:
    """One torch: ``requirement`` is what is installed, ``pythons`` what it has wheels for."""

    name: str
    requirement: str
    pythons: tuple[str, ...]
    #: Folder below the index for each kind of device; :data:`REGISTRY` for the registry's wheel.
    sources: dict[str, str]
    tag: str
    #: Folders that have a short name too: ``cuda`` for this torch's default CUDA build.
    builds: dict[str, str] = field(default_factory=dict)

    @property
    def session(self) -> str:
        return f"tests-{self.name}"

    @property
    def pinned(self) -> bool:
        """False where the same requirement means another torch tomorrow."""
        return "==" in self.requirement

    @property
    def title(self) -> str:
        """What the row's session does, in one imperative line."""
        if self.tag == "stable":
            return f"Run the suite with torch {self.requirement.partition('==')[2]}."
        if self.tag == "nightly":
            return "Run the suite with the newest nightly torch."
        return "Run the suite with the torch that is in the interpreter running nox."


@dataclass(frozen=True)
class Source:
    """What to install, and from where: ``index`` is None for the registry."""

    requirement: str
    index: str | None

    def __str__(self) -> str:
        return f"{self.requirement} from {self.index or 'the registry'}"

    @property
    def for_uv(self) -> list[str]:
        """What `uv pip install` is given."""
        if self.index is None:
            return [self.requirement]
        return [self.requirement, "--upgrade-package", "torch", "--index", self.index]

    def reach(self) -> None:
        """Say in one line that the index has nothing, before an installer says it in twenty.

        Raises :class:`NoSuchCell`.
        """
        if self.index is not None:
            self.page(0)

    def page(self, most: int = -1) -> str:
        """The first bytes of what the index says of torch: a page of links, or a folder's names.

        Raises :class:`NoSuchCell`.
        """
        if self.index is None:
            raise NoSuchCell("the registry is asked for one torch, not for all that it has")
        url = urllib.parse.urlsplit(self.index)
        try:
            if url.scheme == "file":
                folder = Path(urllib.request.url2pathname(url.path), "torch")
                return "\n".join(sorted(path.name for path in folder.iterdir()))
            request = _request(f"{self.index}/torch/")
            with urllib.request.urlopen(request, timeout=ANSWER_LIMIT) as answer:
                return urllib.parse.unquote(answer.read(most).decode("utf-8", "replace"))
        except urllib.error.HTTPError as error:
            raise NoSuchCell(f"the index {self.index} has no torch: {error}") from None
        except (OSError, ValueError, http.client.HTTPException) as error:
            reason = getattr(error, "reason", error)
            raise NoSuchCell(f"the index {self.index} does not answer: {reason}") from None


def installing() -> dict[str, str]:
    """Variables for whatever installs; those that are set already are left as they are."""
    # Imports of torch take twice as long without bytecode; pip compiles it, uv when told.
    wanted = {"UV_COMPILE_BYTECODE": "1"}
    if ssl.create_default_context().cert_store_stats()["x509_ca"]:
        # What the system trusts, uv shall trust as well, as pip's Python does: many networks have an
        # authority of their own. The second is the name before uv 0.11.
        wanted |= {"UV_SYSTEM_CERTS": "1", "UV_NATIVE_TLS": "1"}
    return {name: value for name, value in wanted.items() if name not in os.environ}


def _request(address: str) -> urllib.request.Request:
    """What is asked of an address; its user and password go where HTTP has a place for them."""
    url = urllib.parse.urlsplit(address)
    user, _, host = url.netloc.rpartition("@")
    request = urllib.request.Request(url._replace(netloc=host).geturl())
    if user:
        secret = base64.b64encode(urllib.parse.unquote_to_bytes(user)).decode()
        request.add_header("Authorization", f"Basic {secret}")
    return request


def _release(version: str, pythons: str, cuda: str, xpu: str | None = "xpu") -> Row:
    """A released torch. ``cuda`` is the folder of its default CUDA build on PyTorch's index."""
    sources = {"auto": REGISTRY, "cpu": REGISTRY, "cuda": REGISTRY}
    if xpu is not None:
        sources["xpu"] = xpu
    name = ".".join(version.split(".")[:2])
    return Row(name, f"torch=={version}", _span(pythons), sources, "stable", {"cuda": cuda})


def _span(pythons: str) -> tuple[str, ...]:
    first, last = pythons.split("-")
    return tuple(f"3.{minor}" for minor in range(int(first[2:]), int(last[2:]) + 1))


#: The newest patch of each minor release, with the Pythons that distparity and its wheels share.
RELEASES = (
    # Intel's wheels begin at 2.5: https://docs.pytorch.org/docs/2.5/notes/get_start_xpu.html
    _release("2.4.1", "3.10-3.12", "cu121", xpu=None),
    _release("2.5.1", "3.10-3.13", "cu124"),
    _release("2.6.0", "3.10-3.13", "cu124"),
    _release("2.7.1", "3.10-3.13", "cu126"),
    _release("2.8.0", "3.10-3.13", "cu128"),
    _release("2.9.1", "3.10-3.14", "cu128"),
    _release("2.10.0", "3.10-3.14", "cu128"),
    _release("2.11.0", "3.10-3.14", "cu130"),
    _release("2.12.1", "3.10-3.14", "cu130"),
    _release("2.13.0", "3.10-3.14", "cu130"),
    _release("2.14.1", "3.10-3.14", "cu130"),
    # Python 3.10 ended, and torch dropped it.
    _release("2.15.0", "3.11-3.15", "cu132"),
)

#: Any build of the nightly index. ``>=0.dev0`` admits pre-releases of torch, and of nothing else.
NIGHTLY = Row(
    "nightly",
    "torch>=0.dev0",
    _span("3.11-3.14"),
    {"auto": "nightly/cpu", "cpu": "nightly/cpu", "cuda": "nightly/cu130", "xpu": "nightly/xpu"},
    "nightly",
    {"cuda": "cu130"},
)

#: The torch that the interpreter running nox has already; nothing is installed over it.
LOCAL = Row("local", "", (), {}, "local")

ROWS = (*RELEASES, NIGHTLY, LOCAL)

#: Devices whose torch is a build of the vendor's own, bound to the vendor's release.
VENDOR_BUILDS = {"hpu": "Habana's build of torch", "npu": "the torch that torch_npu was built for"}


def row(name: str) -> Row:
    """The row by its name; raises :class:`NoSuchCell` naming the known ones."""
    for found in ROWS:
        if found.name == name:
            return found
    raise NoSuchCell(f"unknown torch {name!r}; known: {', '.join(r.name for r in ROWS)}")


def patches() -> list[Row]:
    """Every release of the table with the patch releases before it, in order."""
    found = []
    for newest in RELEASES:
        minor, _, patch = newest.requirement.rpartition(".")
        found += [replace(newest, requirement=f"{minor}.{n}") for n in range(int(patch) + 1)]
    return found


def nightlies(source: Source) -> list[Row]:
    """Every dated build that the index of ``source`` has, in the order of their dates.

    Where a day has two (a version was begun), the newer version is that day's. Raises
    :class:`NoSuchCell` when the index does not answer.
    """
    names = set(re.findall(r"torch-([\d.]+\.dev(\d{8}))(?:\+\w+)?-", source.page()))
    newest = {date: name for name, date in sorted(names, key=lambda one: _numbers(one[0]))}
    return [replace(NIGHTLY, requirement=f"torch=={newest[date]}") for date in sorted(newest)]


def _numbers(version: str) -> list[int]:
    return [int(number) for number in re.findall(r"\d+", version)]


def source(
    row: Row, devices: Sequence[str] = (), wheel: str | None = None, index: str | None = None
) -> Source:
    """Where the row's torch for these devices comes from.

    ``wheel`` names a build instead (``cpu``, ``cuda``, ``cu126``, ``rocm6.4``, ``xpu``: a folder of
    PyTorch's index, or ``registry``), and ``index`` another index in place of PyTorch's own. Raises
    :class:`NoSuchCell`.
    """
    base = _base(index)
    if wheel is None:
        folder = _folder(row, devices)
    else:
        folder = row.builds.get(wheel, wheel)
        folder = f"nightly/{folder}" if row.tag == NIGHTLY.tag and wheel != REGISTRY else folder
    return Source(row.requirement, None if folder == REGISTRY else f"{base}/{folder}")


def _base(index: str | None) -> str:
    return (index or os.environ.get(INDEX_VARIABLE) or INDEX).rstrip("/")


def _folder(row: Row, devices: Sequence[str]) -> str:
    found = {}
    for device in devices:
        if device in VENDOR_BUILDS:
            build = VENDOR_BUILDS[device]
            advice = "run `nox -s tests-local` where that is installed"
            raise NoSuchCell(f"{device} needs {build}: {advice}")
        if device == "xpu" and device not in row.sources:
            since = next(r.name for r in RELEASES if device in r.sources)
            raise NoSuchCell(
                f"there is no torch {row.name} for xpu: its wheels begin at torch {since}"
            )
        # Every wheel serves the cpu, and a device not known here may be another package's own.
        if device not in ("auto", "cpu") and device in row.sources:
            found[device] = row.sources[device]
    if len(set(found.values())) > 1:
        raise NoSuchCell(f"no one wheel of torch {row.name} serves {' and '.join(found)}")
    return next(iter(found.values()), row.sources["auto"])
