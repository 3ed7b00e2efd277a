"""A wheel index on 127.0.0.1, in the shape of PyTorch's own, for tests and for trying the matrix.

From the command line it serves a real torch under another version, until it is stopped::

    python tests/loopback_index.py --from WHEEL_OR_ENVIRONMENT --version 2.14.0.dev20261101

and prints the address to give to ``--index`` or ``DISTPARITY_TORCH_INDEX``. It needs only the
standard library.
"""

from __future__ import annotations

import argparse
import base64
import csv
import hashlib
import io
import shutil
import signal
import sys
import tempfile
import threading
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import IO

# -- serving ---------------------------------------------------------------------------------------


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:  # noqa: A002  the base's name
        pass


@contextmanager
def serve(root: Path, handler: type[Quiet] = Quiet) -> Iterator[str]:
    """Serve the folders below ``root``, each with ``torch/`` in it; yields the index's address.

    The pages of links are the server's own listings of folders.
    """
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(handler, directory=str(root)))
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()


# -- making wheels ---------------------------------------------------------------------------------


class Member:
    """A file that goes into a wheel: its name there, and where it is, on disk or in a wheel."""

    def __init__(self, name: str, source: Path | zipfile.ZipFile) -> None:
        self.name = name
        self.source = source

    def open(self) -> IO[bytes]:
        if isinstance(self.source, zipfile.ZipFile):
            return self.source.open(self.name)
        return self.source.open("rb")

    def text(self) -> str:
        with self.open() as file:
            return file.read().decode()


class Wheel:
    """A wheel of torch in the making, stored without compression: it only passes through."""

    def __init__(self, folder: Path, version: str, tag: str) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.path = folder / f"torch-{version}-{tag}.whl"
        self.info = f"torch-{version}.dist-info"
        self._zip = zipfile.ZipFile(self.path, "w")
        self._record: list[tuple[str, str, int | str]] = []

    def add(self, name: str, source: IO[bytes]) -> None:
        digest, size = hashlib.sha256(), 0
        with self._zip.open(name, "w", force_zip64=True) as target:
            while block := source.read(1 << 20):
                digest.update(block)
                size += len(block)
                target.write(block)
        text = base64.urlsafe_b64encode(digest.digest()).rstrip(b"=").decode()
        self._record.append((name, f"sha256={text}", size))

    def add_text(self, name: str, text: str) -> None:
        self.add(name, io.BytesIO(text.encode()))

    def close(self) -> Path:
        table = io.StringIO()
        rows = [*self._record, (f"{self.info}/RECORD", "", "")]
        csv.writer(table, lineterminator="\n").writerows(rows)
        self._zip.writestr(f"{self.info}/RECORD", table.getvalue())
        self._zip.close()
        return self.path


def fake_wheel(folder: Path, version: str, code: str = "") -> Path:
    """A wheel of a ``torch`` that is nothing but ``code``, for any Python and platform."""
    wheel = Wheel(folder, version, "py3-none-any")
    wheel.add_text("torch/__init__.py", code)
    wheel.add_text(
        f"{wheel.info}/METADATA", f"Metadata-Version: 2.1\nName: torch\nVersion: {version}\n"
    )
    wheel.add_text(
        f"{wheel.info}/WHEEL",
        "Wheel-Version: 1.0\nGenerator: fake\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    )
    return wheel.close()


def renamed_wheel(source: Path, version: str, folder: Path) -> Path:
    """A wheel like ``source``, or of the torch in the environment ``source``, but of ``version``.

    Raises ``FileNotFoundError`` when there is no torch in ``source``.
    """
    members, old = _of_wheel(source) if source.is_file() else _of_environment(source)
    old_info = f"torch-{old}.dist-info"
    (about,) = (member for member in members if member.name == f"{old_info}/WHEEL")
    wheel = Wheel(folder, version, _tag(about.text()))
    for member in members:
        name = member.name.replace(old_info, wheel.info)
        if member.name in (f"{old_info}/METADATA", "torch/version.py"):
            wheel.add_text(name, member.text().replace(old, version))
        elif member.name != f"{old_info}/RECORD":
            with member.open() as file:
                wheel.add(name, file)
    return wheel.close()


def _of_wheel(path: Path) -> tuple[list[Member], str]:
    # Left open for its members: to open a wheel of thousands of files takes a while.
    wheel = zipfile.ZipFile(path)
    names = [name for name in wheel.namelist() if not name.endswith("/")]
    return [Member(name, wheel) for name in names], path.name.split("-")[1]


#: What an installer adds to the files of a wheel.
_INSTALLERS = {"INSTALLER", "REQUESTED", "direct_url.json", "uv_cache.json"}


def _of_environment(prefix: Path) -> tuple[list[Member], str]:
    infos = sorted(prefix.glob("lib/python3*/site-packages/torch-*.dist-info"))
    if not infos:
        raise FileNotFoundError(f"{prefix} is neither a wheel nor an environment with torch in it")
    with (infos[0] / "RECORD").open(newline="") as file:
        names = [row[0] for row in csv.reader(file)]
    members = [
        Member(name, infos[0].parent / name)
        for name in names
        if not name.startswith("..")
        and not name.endswith(".pyc")
        and Path(name).name not in _INSTALLERS
    ]
    return members, infos[0].name.removeprefix("torch-").removesuffix(".dist-info")


def _tag(text: str) -> str:
    """The tag in the file's name, from the tags in the text of ``WHEEL``."""
    tags = [line.split(": ")[1].split("-") for line in text.splitlines() if line.startswith("Tag:")]
    return "-".join(".".join(dict.fromkeys(part)) for part in zip(*tags, strict=True))


# -- the command line ------------------------------------------------------------------------------


def main() -> int:
    parser = argparse.ArgumentParser(description="Serve a torch under another version.")
    parser.add_argument(
        "--from",
        dest="source",
        type=Path,
        required=True,
        help="a wheel of torch, or a venv with it",
    )
    parser.add_argument("--version", required=True, help="what it shall say it is")
    parser.add_argument("--folder", default="nightly/cpu", help="default %(default)s")
    given = parser.parse_args()
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    root = Path(tempfile.mkdtemp(prefix="loopback-index-"))
    try:
        wheel = renamed_wheel(given.source, given.version, root / given.folder / "torch")
        with serve(root) as address:
            print(f"{wheel.name} in {given.folder} of\n{address}", flush=True)
            signal.pause()
    except FileNotFoundError as error:
        print(f"loopback_index: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        pass
    finally:
        shutil.rmtree(root, ignore_errors=True)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
