"""The matrix: the torch releases, their Pythons, and where the wheel for each device is.

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

from distparity.core.near import unknown

__all__ = [
    "ANSWER_LIMIT",
    "BESIDE_TORCH",
    "BESIDE_UPSTREAM",
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
    "request",
    "row",
    "source",
]

#: PyTorch's own index. The variable, or the noxfile's ``--index``, replaces it by a mirror or an index
#: of your own, with the same folders: ``cpu``, ``cu130``, ``nightly/cpu``, ...
INDEX = "https://download.pytorch.org/whl"
INDEX_VARIABLE = "DISTPARITY_TORCH_INDEX"

#: The registry's wheel, which runs on cpu and, if there is a driver, on cuda.
REGISTRY = "registry"

#: A package that torch's collectives of objects need, and with them FSDP1's optimizer state, although
#: torch's wheels do not depend on it.
BESIDE_TORCH = "numpy"

#: What torch's helpers for its own tests import, and its wheels do not depend on.
BESIDE_UPSTREAM = ("expecttest", "hypothesis")

#: Seconds for an index to begin its answer.
ANSWER_LIMIT = 20.0


class NoSuchCell(Exception):
    """This torch does not exist for this Python or device, or cannot be installed here."""


@dataclass(frozen=True)
class Row:
    """One torch: ``requirement`` is what to install, ``pythons`` are those that it has wheels for."""

    name: str
    requirement: str
    pythons: tuple[str, ...]
    #: The folder below the index for each kind of device; :data:`REGISTRY` for the registry's wheel.
    sources: dict[str, str]
    tag: str
    #: Short names of folders: ``cuda`` is this torch's default CUDA build.
    builds: dict[str, str] = field(default_factory=dict)

    @property
    def session(self) -> str:
        return f"tests-{self.name}"

    @property
    def pinned(self) -> bool:
        """False if the same requirement may install another torch tomorrow."""
        return "==" in self.requirement

    @property
    def title(self) -> str:
        """The description of the row's session, in one imperative line."""
        if self.tag == "stable":
            return f"Run the suite with torch {self.requirement.partition('==')[2]}."
        if self.tag == "nightly":
            return "Run the suite with the newest nightly torch."
        return "Run the suite with the torch of the interpreter that runs nox."


@dataclass(frozen=True)
class Source:
    """What to install, and from where: ``index`` is None for the registry."""

    requirement: str
    index: str | None

    def __str__(self) -> str:
        return f"{self.requirement} from {self.index or 'the registry'}"

    @property
    def for_uv(self) -> list[str]:
        """The arguments for `uv pip install`."""
        if self.index is None:
            return [self.requirement]
        return [self.requirement, "--upgrade-package", "torch", "--index", self.index]

    def reach(self) -> None:
        """Check that the index answers and has torch: an installer would need twenty lines to say so.

        Raises :class:`NoSuchCell`.
        """
        if self.index is not None:
            self.page(0)

    def page(self, most: int = -1) -> str:
        """The first ``most`` bytes of the index's page about torch; all of it by default.

        Raises :class:`NoSuchCell`.
        """
        if self.index is None:
            raise NoSuchCell("the registry's releases cannot be listed: name an index")
        url = urllib.parse.urlsplit(self.index)
        try:
            if url.scheme == "file":
                folder = Path(urllib.request.url2pathname(url.path), "torch")
                return "\n".join(sorted(path.name for path in folder.iterdir()))
            asked = request(f"{self.index}/torch/")
            with urllib.request.urlopen(asked, timeout=ANSWER_LIMIT) as answer:
                return urllib.parse.unquote(answer.read(most).decode("utf-8", "replace"))
        except urllib.error.HTTPError as error:
            raise NoSuchCell(f"the index {self.index} has no torch: {error}") from None
        except (OSError, ValueError, http.client.HTTPException) as error:
            reason = getattr(error, "reason", error)
            raise NoSuchCell(f"the index {self.index} does not answer: {reason}") from None


def installing() -> dict[str, str]:
    """Environment variables for pip and uv; variables that are set already are not changed."""
    # Without bytecode, importing torch takes twice as long; pip compiles it by default, uv does not.
    wanted = {"UV_COMPILE_BYTECODE": "1"}
    if ssl.create_default_context().cert_store_stats()["x509_ca"]:
        # Let uv trust the system's certificates, as pip does: many networks have their own authority.
        # The second is the variable's name before uv 0.11.
        wanted |= {"UV_SYSTEM_CERTS": "1", "UV_NATIVE_TLS": "1"}
    return {name: value for name, value in wanted.items() if name not in os.environ}


def request(address: str) -> urllib.request.Request:
    """The request for an address; a user and password in it become an Authorization header."""
    url = urllib.parse.urlsplit(address)
    user, _, host = url.netloc.rpartition("@")
    asked = urllib.request.Request(url._replace(netloc=host).geturl())
    if user:
        secret = base64.b64encode(urllib.parse.unquote_to_bytes(user)).decode()
        asked.add_header("Authorization", f"Basic {secret}")
    return asked


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


#: The newest patch of each minor release, with the Pythons that both distparity and torch support.
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
    # Python 3.10 reached its end of life, and torch dropped it.
    _release("2.15.0", "3.11-3.15", "cu132"),
)

#: Any build of the nightly index. ``>=0.dev0`` allows pre-releases of torch, but of nothing else.
NIGHTLY = Row(
    "nightly",
    "torch>=0.dev0",
    _span("3.11-3.14"),
    {"auto": "nightly/cpu", "cpu": "nightly/cpu", "cuda": "nightly/cu130", "xpu": "nightly/xpu"},
    "nightly",
    {"cuda": "cu130"},
)

#: The torch of the interpreter that runs nox; no torch is installed.
LOCAL = Row("local", "", (), {}, "local")

ROWS = (*RELEASES, NIGHTLY, LOCAL)

#: Devices that need the vendor's own build of torch, tied to the vendor's release.
VENDOR_BUILDS = {"hpu": "Habana's build of torch", "npu": "the torch that torch_npu was built for"}


def row(name: str) -> Row:
    """The row with this name; raises :class:`NoSuchCell`, which names the known rows."""
    for found in ROWS:
        if found.name == name:
            return found
    raise NoSuchCell(str(unknown("torch", name, [found.name for found in ROWS])))


def patches() -> list[Row]:
    """Every release of the table and its earlier patch releases, in order."""
    found = []
    for newest in RELEASES:
        minor, _, patch = newest.requirement.rpartition(".")
        found += [replace(newest, requirement=f"{minor}.{n}") for n in range(int(patch) + 1)]
    return found


def nightlies(source: Source) -> list[Row]:
    """Every dated build that the index of ``source`` has, in the order of their dates.

    If one day has two builds, because a new version began, the newer version counts. Raises
    :class:`NoSuchCell` if the index does not answer.
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
            advice = "install it, and run `nox -s tests-local`"
            raise NoSuchCell(f"{device} needs {build}: {advice}")
        if device == "xpu" and device not in row.sources:
            since = next(r.name for r in RELEASES if device in r.sources)
            raise NoSuchCell(
                f"there is no torch {row.name} for xpu: its wheels begin at torch {since}"
            )
        # Every wheel runs on the cpu, and an unknown device may belong to another package.
        if device not in ("auto", "cpu") and device in row.sources:
            found[device] = row.sources[device]
    if len(set(found.values())) > 1:
        raise NoSuchCell(f"no single wheel of torch {row.name} supports {' and '.join(found)}")
    return next(iter(found.values()), row.sources["auto"])
