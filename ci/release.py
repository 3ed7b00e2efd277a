"""Build the wheel and the sdist into dist/, check them, and print what to push: `nox -s release`.

With a version (`nox -s release -- 0.2.0`) they are built as they will be once it is tagged; without one,
the version is that of the tag. Nothing is pushed. Run it in an environment of its own, with a torch and without distparity: the wheel is
installed there, alone, and runs a case.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
DIST = ROOT / "dist"
#: What the maintainers give where they publish: ci/metadata.py.
GIVEN = ("DISTPARITY_REPOSITORY", "DISTPARITY_CONTACT")
#: pyroma's rating, of 10, where they are not given.
RATING = 8


def main() -> int:
    """Check everything, and print all that is wrong; returns the exit code."""
    planned = sys.argv[1] if len(sys.argv) > 1 else None
    if planned is not None:
        os.environ["SETUPTOOLS_SCM_PRETEND_VERSION"] = planned
    shutil.rmtree(DIST, ignore_errors=True)
    _run(sys.executable, "-m", "build", "--outdir", str(DIST), str(ROOT))
    (wheel,), (sdist,) = DIST.glob("*.whl"), DIST.glob("*.tar.gz")
    version = wheel.name.split("-")[1]
    wrong = [
        *_state(version, planned),
        *contents(wheel, sdist, _tracked()),
        *_tools(wheel, sdist),
        *_alone(wheel),
    ]
    for complaint in wrong:
        print(f"release: {complaint}", file=sys.stderr)
    if not wrong:
        print(f"\n{wheel.name} and {sdist.name} are right.")
        for name in GIVEN:
            if not os.environ.get(name):
                print(f"They lack what ${name} says: it is not set.")
        tag = f"git tag -s v{version} -m 'distparity {version}' && " if planned else ""
        print(f"To publish them:\n\n{tag}git push origin v{version}")
    return min(len(wrong), 1)


def _state(version: str, planned: str | None) -> Iterator[str]:
    if _output("git", "status", "--porcelain"):
        yield "the tree has changes that are not committed"
    if re.fullmatch(r"\d+\.\d+\.\d+", version) is None:
        yield f"the version {version} is not that of a tag: nox -s release -- X.Y.Z"
    if planned is not None and _output("git", "tag", "--list", f"v{planned}"):
        yield f"there is a tag v{planned} already"
    if changes := list((ROOT / "changelog").glob("*.md")):
        yield f"changelog/ has {len(changes)} files: nox -s changelog -- {version}"
    if f"\n## {version}" not in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"):
        yield f"CHANGELOG.md has no section {version}"


def contents(wheel: Path, sdist: Path, tracked: set[str]) -> Iterator[str]:
    """What a distribution has and should not have, or the other way round; ``tracked`` is git's list."""
    with tarfile.open(sdist) as archive:
        names = {one.name.partition("/")[2] for one in archive if not one.isdir()}
    yield from _differences(sdist, names - {"PKG-INFO"}, tracked)
    with zipfile.ZipFile(wheel) as packed:
        names = {name for name in packed.namelist() if ".dist-info/" not in name}
    source = {name.removeprefix("src/") for name in tracked if name.startswith("src/")}
    programs = {f"distparity/{name}" for name in tracked if name.startswith("defects/")}
    yield from _differences(wheel, names, source | programs)


def _differences(path: Path, found: set[str], expected: set[str]) -> Iterator[str]:
    for word, names in (("has", found - expected), ("lacks", expected - found)):
        if names:
            yield f"{path.name} {word} {', '.join(sorted(names)[:5])} ({len(names)} in all)"


def _tracked() -> set[str]:
    return set(_output("git", "ls-files").splitlines())


def _tools(wheel: Path, sdist: Path) -> Iterator[str]:
    for words in (
        ["twine", "check", "--strict", str(wheel), str(sdist)],
        ["check-wheel-contents", str(wheel)],
    ):
        if subprocess.run(words, check=False).returncode:
            yield f"{words[0]} found something"
    least = 10 if all(os.environ.get(name) for name in GIVEN) else RATING
    said = _output("pyroma", "--min", str(least), str(sdist), check=False)
    # What is missing for the rest of the rating is for the maintainers to know.
    print(said)
    rating = re.search(r"Final rating: (\d+)/10", said)
    if rating is None or int(rating[1]) < least:
        yield f"pyroma: {said}"


def _alone(wheel: Path) -> Iterator[str]:
    """Install the wheel, without the sources, and run a case."""
    _run(
        sys.executable,
        "-m",
        "pip",
        "install",
        "--quiet",
        "--force-reinstall",
        "--no-deps",
        str(wheel),
    )
    with tempfile.TemporaryDirectory() as folder:
        words = ["run", "--device", "cpu", "basic/fsdp2-ws2-float32"]
        done = subprocess.run([sys.executable, "-m", "distparity", *words], cwd=folder, check=False)
    if done.returncode:
        yield "the installed wheel does not run a case"


def _run(*words: str) -> None:
    subprocess.run(words, check=True, cwd=ROOT)


def _output(*words: str, check: bool = True) -> str:
    return subprocess.run(words, check=check, cwd=ROOT, stdout=subprocess.PIPE, text=True).stdout


if __name__ == "__main__":
    sys.exit(main())
