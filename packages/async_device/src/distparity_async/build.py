"""The C++ part of the device, built against the torch that is here, once per torch.

``python -m distparity_async.build`` builds it ahead of the first use, and says how long it took.
"""

from __future__ import annotations

import fcntl
import hashlib
import importlib.util
import os
import shlex
import shutil
import subprocess
import sys
import sysconfig
import time
from pathlib import Path
from types import ModuleType

__all__ = ["absent", "command", "load"]

NAME = "_distparity_async"
SOURCE = Path(__file__).with_name("device.cpp")
#: Variables: the compiler, and the folder in which what was built is kept.
COMPILER, FOLDER = "CXX", "DISTPARITY_ASYNC_CACHE"


def compiler() -> str | None:
    """The C++ compiler by its path (``CXX``, else ``c++``, ``g++`` or ``clang++``), or None."""
    named = shlex.split(os.environ.get(COMPILER, ""))
    for name in named[:1] or ["c++", "g++", "clang++"]:
        found = shutil.which(name)
        if found is not None:
            return found
    return None


def absent() -> str | None:
    """Why the device cannot be built here, as the fact that was asked; None where it can."""
    if built().is_file():
        return None
    if compiler() is None:
        asked = os.environ.get(COMPILER) or "c++, g++ or clang++"
        return f"there is no C++ compiler ({asked} on PATH), which asim is built with at first use"
    header = Path(sysconfig.get_path("include"), "Python.h")
    if not header.is_file():
        return f"there is no {header}, Python's headers, against which asim is built"
    return None


def built() -> Path:
    """Where the built module is, or will be: one place per torch, Python and source."""
    import torch

    digest = hashlib.sha256(SOURCE.read_bytes())
    digest.update(f"{torch.__version__} {torch.version.git_version} {torch.__file__}".encode())
    default = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache", "distparity-async")
    folder = Path(os.environ.get(FOLDER) or default)
    suffix = sysconfig.get_config_var("EXT_SUFFIX")
    return folder / f"torch-{torch.__version__}-{digest.hexdigest()[:16]}" / f"{NAME}{suffix}"


def command(target: Path) -> list[str]:
    """The one call of the compiler that builds it."""
    import torch

    home = Path(torch.__file__).parent
    folders = [home / "include", home / "include/torch/csrc/api/include"]
    folders += [Path(sysconfig.get_path("include"))]
    abi = int(torch._C._GLIBCXX_USE_CXX11_ABI)
    return [
        *(shlex.split(os.environ.get(COMPILER, "")) or [str(compiler())]),
        # NDEBUG as torch was built: its headers differ by it.
        *(
            "-std=c++20" if _newer_torch() else "-std=c++17",
            "-DNDEBUG",
            "-O1",
            "-g0",
            "-w",
            "-fPIC",
            "-shared",
        ),
        *(f"-I{folder}" for folder in folders),
        f"-D_GLIBCXX_USE_CXX11_ABI={abi}",
        *(f"-DTORCH_EXTENSION_NAME={NAME}", str(SOURCE)),
        *(f"-L{home / 'lib'}", "-lc10", "-ltorch_cpu", "-ltorch_python"),
        *(f"-Wl,-rpath,{home / 'lib'}", "-o", str(target)),
    ]


def _newer_torch() -> bool:
    """Whether torch's headers are written in C++20, which they are from 2.11 on."""
    import torch

    major, minor = torch.__version__.split(".")[:2]
    return (int(major), int(minor)) >= (2, 11)


def load() -> ModuleType:
    """The module, built first where it is not there.

    Raises ``ImportError`` where it cannot be built, with the compiler's first errors.
    """
    if NAME in sys.modules:
        return sys.modules[NAME]
    target = built()
    if not target.is_file():
        build(target)
    spec = importlib.util.spec_from_file_location(NAME, target)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[NAME] = module
    spec.loader.exec_module(module)
    return module


def build(target: Path) -> None:
    """Build it; of several processes that want it at once, one does."""
    reason = absent()
    if reason is not None:
        raise ImportError(reason)
    target.parent.mkdir(parents=True, exist_ok=True)
    with target.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if target.is_file():
            return
        partial = target.with_suffix(".partial")
        done = subprocess.run(command(partial), capture_output=True, text=True, check=False)
        if done.returncode:
            errors = [line for line in done.stderr.splitlines() if "error" in line][:5]
            raise ImportError("asim cannot be built: " + "; ".join(errors or [done.stderr[-500:]]))
        partial.replace(target)


def main() -> int:
    import torch

    started = time.perf_counter()
    try:
        load()
    except ImportError as error:
        print(f"distparity-async: {error}", file=sys.stderr)
        return 1
    seconds = time.perf_counter() - started
    print(f"distparity-async for torch {torch.__version__}: {built()} ({seconds:.1f} s)")
    return 0


if __name__ == "__main__":
    sys.exit(main())
