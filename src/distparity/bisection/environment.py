"""Make an environment for each torch with uv, and one copy of this distparity for all of them."""

from __future__ import annotations

import importlib.metadata
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from distparity import releases
from distparity.bisection.candidates import Candidate
from distparity.core.bad_request import BadRequest
from distparity.core.version import __version__

__all__ = ["Environments", "NoEnvironment"]


class NoEnvironment(Exception):
    """This release cannot be installed here; the message says why, in one line."""


class Environments:
    """Makes environments in ``folder``, one after the other; deletes each unless ``keep``.

    ``beside`` are additional requirements, for example a vendor's plug-in. Raises
    :class:`BadRequest` if there is no uv.
    """

    def __init__(
        self, folder: Path | None = None, *, keep: bool = False, beside: Sequence[str] = ()
    ) -> None:
        self.keep = keep
        self.beside = list(beside)
        self.folder = folder or Path(tempfile.mkdtemp(prefix="distparity-bisect-"))
        self._made_folder = folder is None
        self.suite = self.folder / "suite"
        self._carry()

    def close(self) -> None:
        """Delete the environments, unless ``keep``."""
        if not self.keep:
            shutil.rmtree(self.folder if self._made_folder else self.suite, ignore_errors=True)

    @contextmanager
    def of(self, candidate: Candidate) -> Iterator[Path]:
        """Within it, the interpreter of an environment with that torch; raises :class:`NoEnvironment`."""
        if candidate.source is None:
            yield Path(candidate.python)
            return
        place = self.folder / f"torch-{candidate.name}"
        try:
            yield self._make(candidate, place)
        finally:
            if not self.keep:
                shutil.rmtree(place, ignore_errors=True)

    def _make(self, candidate: Candidate, place: Path) -> Path:
        assert candidate.source is not None
        try:
            candidate.source.reach()
        except releases.NoSuchCell as error:
            raise NoEnvironment(str(error)) from None
        python = place / "bin" / "python"
        _uv("venv", "--quiet", "--allow-existing", "--python", candidate.python, str(place))
        install = ["pip", "install", "--quiet", "--python", str(python)]
        if candidate.source.index is not None:
            # torch alone first: with two indexes, uv might take it from the registry.
            only = ["--no-deps", "--default-index", candidate.source.index]
            _uv(*install, *only, candidate.source.requirement)
        _uv(*install, *candidate.source.for_uv)
        _uv(*install, releases.BESIDE_TORCH, *_requirements(), *self.beside)
        return python

    def _carry(self) -> None:
        """Copy this distparity to a folder that every release's Python can import it from.

        So the same suite judges all releases, even if the installed one changes during the search.
        """
        here = Path(__file__).parents[1]
        shutil.rmtree(self.suite, ignore_errors=True)
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(here, self.suite / "distparity", ignore=ignored)
        about = importlib.metadata.distribution("distparity")
        info = self.suite / f"distparity-{__version__}.dist-info"
        info.mkdir()
        for name in ("METADATA", "entry_points.txt"):
            (info / name).write_text(about.read_text(name) or "", encoding="utf-8")


def _requirements() -> list[str]:
    found = importlib.metadata.requires("distparity") or []
    return [word for word in found if "extra ==" not in word]


def need_uv() -> None:
    """Raise :class:`BadRequest` if there is no uv."""
    if shutil.which("uv") is None:
        raise BadRequest(
            "bisect creates its environments with uv, and uv is not on PATH: "
            "`pip install uv`, or give interpreters: --python 2.7.1=/path/of/python"
        )


def _uv(*words: str) -> None:
    done = subprocess.run(
        ["uv", *words],
        env={**os.environ, **releases.installing()},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise NoEnvironment(_short(done.stderr) or f"uv ended with {done.returncode}")


def _short(text: str) -> str:
    """Join the tree of lines that uv prints into one line."""
    return " ".join(re.sub(r"[^\x00-\x7f]", " ", text).split())
