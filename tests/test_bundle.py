"""The bundle: what is in it, and what its check finds."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import stat
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from distparity import bundle
from distparity.bundle import layout
from distparity.core.outcome import Outcome, Status
from distparity.expectations import SHIPPED, load
from distparity.expectations.file import files_of
from distparity.results import junit_writer
from distparity.results.journal import Journal, paths

CASES = {
    "a/passed": Outcome(Status.PASSED, facts={"ratio": 0.25}),
    "a/failed": Outcome(Status.FAILED, "off by 1", "the whole account"),
}
NAMES = {
    "SHA256SUMS",
    "commands.txt",
    "environment.json",
    "logs/junit-2.13-cpu.jsonl",
    "manifest.json",
    "reports/junit-2.13-cpu.xml",
}


@pytest.fixture(autouse=True)
def _quiet_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("DISTPARITY_")]:
        monkeypatch.delenv(name)


def _cell(folder: Path, torch: str, **more: object) -> None:
    """A cell as a run leaves it."""
    folder.mkdir(exist_ok=True)
    path, xml = paths(folder, torch, "cpu")
    facts = {"torch": "2.13.0+cpu", "torch_git": "abc", "command": "pytest --device cpu", **more}
    header = {"cell": {"torch": torch, "device": "cpu"}, "facts": facts, "cases": list(CASES)}
    journal = Journal(path, xml, header)
    for case, outcome in CASES.items():
        journal.add(case, outcome)
    journal.end("finished")
    junit_writer.write_from_journal(path)


@pytest.fixture
def reports(tmp_path: Path) -> Path:
    _cell(tmp_path / "reports", "2.13")
    return tmp_path / "reports"


@pytest.fixture
def packed(reports: Path, tmp_path: Path) -> Path:
    target = tmp_path / "bundle.zip"
    bundle.pack([reports], target)
    return target


# -- making one ------------------------------------------------------------------------------------


def test_bundle_has_the_names_that_a_bundle_has(packed: Path) -> None:
    assert set(zipfile.ZipFile(packed).namelist()) == NAMES
    assert bundle.verify(packed).complaints == []


def test_bundle_says_what_was_run_and_where(packed: Path) -> None:
    archive = zipfile.ZipFile(packed)
    environment = json.loads(archive.read("environment.json"))
    (cell,) = json.loads(archive.read("manifest.json"))["cells"]

    assert archive.read("commands.txt") == b"2.13-cpu: pytest --device cpu\n"
    assert (cell["cell"], cell["torch"], cell["torch_git"]) == ("2.13-cpu", "2.13.0+cpu", "abc")
    assert {"distparity", "pytest", "pytest-timeout"} <= set(environment["versions"])
    assert environment["variables"] == {}


def test_what_is_packed_is_as_it_was(packed: Path, reports: Path, tmp_path: Path) -> None:
    archive = zipfile.ZipFile(packed)
    archive.extractall(tmp_path / "out")

    for name in ("reports/junit-2.13-cpu.xml", "logs/junit-2.13-cpu.jsonl"):
        assert archive.read(name) == (reports / Path(name).name).read_bytes()
    if shutil.which("sha256sum"):
        command = ["sha256sum", "--check", "--strict", "SHA256SUMS"]
        subprocess.run(command, cwd=tmp_path / "out", check=True, stdout=subprocess.DEVNULL)


def test_same_reports_make_the_same_bytes(packed: Path, reports: Path, tmp_path: Path) -> None:
    copy = tmp_path / "elsewhere"
    shutil.copytree(reports, copy, copy_function=shutil.copyfile)

    bundle.pack([copy], tmp_path / "again.zip")

    assert (tmp_path / "again.zip").read_bytes() == packed.read_bytes()


def test_only_what_is_named_is_packed(
    reports: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (reports / "notes.txt").write_text("mine")
    (reports / "junit-notes.txt").write_text("mine")
    (tmp_path / "mine.toml").write_text("[[expect]]")
    monkeypatch.setenv("DISTPARITY_TORCH_INDEX", "https://me:hunter22@mirror/whl")
    monkeypatch.setenv("HABANA_LOGS", "/tmp/logs")
    monkeypatch.setenv("VENDOR_TOKEN", "swordfish")

    names = bundle.pack(
        [reports], tmp_path / "b.zip", [tmp_path / "mine.toml"], ["HABANA_LOGS", "VENDOR_TOKEN"]
    )

    assert set(names) == NAMES | {"expectations/01-mine.toml"}
    archive = zipfile.ZipFile(tmp_path / "b.zip")
    assert json.loads(archive.read("environment.json"))["variables"] == {
        "DISTPARITY_TORCH_INDEX": "https://me:***@mirror/whl",
        "HABANA_LOGS": "/tmp/logs",
        "VENDOR_TOKEN": "[$VENDOR_TOKEN]",
    }


def test_report_that_holds_a_secret_is_not_packed(
    reports: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VENDOR_TOKEN", "whole account")

    with pytest.raises(
        bundle.Refused, match=r"junit-2.13-cpu\.\w+: it contains the value of VENDOR"
    ):
        bundle.pack([reports], tmp_path / "b.zip")
    assert not (tmp_path / "b.zip").exists()


# -- the expectation files of its runs -------------------------------------------------------------


@pytest.fixture
def under(tmp_path: Path) -> tuple[Path, Path]:
    """Reports of two runs, both under what is shipped and one under a vendor's file; and that."""
    folder, vendor = tmp_path / "reports", tmp_path / "a, vendor.toml"
    vendor.write_text("# nothing is expected\n")
    _cell(folder, "2.12", expectations=load([SHIPPED]).files)
    _cell(folder, "2.13", expectations=load([SHIPPED, vendor]).files)
    return folder, vendor


def test_bundle_has_the_expectation_files_of_its_runs(
    under: tuple[Path, Path], tmp_path: Path
) -> None:
    folder, vendor = under
    names = bundle.pack([folder], tmp_path / "b.zip", [vendor])

    packed = [name for name in names if name.startswith("expectations/")]
    shipped = [f"{n:02}-{path.name}" for n, path in enumerate(files_of(SHIPPED), 2)]
    assert packed == [f"expectations/{name}" for name in [f"01-{vendor.name}", *shipped]]
    archive = zipfile.ZipFile(tmp_path / "b.zip")
    sums = [hashlib.sha256(archive.read(name)).hexdigest() for name in packed]
    assert all(f"sha256:{one}" in str(load([SHIPPED, vendor]).files) for one in sums)
    assert bundle.verify(tmp_path / "b.zip").complaints == []


def test_bundle_of_a_run_under_none_has_none(tmp_path: Path) -> None:
    _cell(tmp_path / "reports", "2.13", expectations="none")

    assert set(bundle.pack([tmp_path / "reports"], tmp_path / "b.zip")) == NAMES


def test_folder_of_expectation_files_stands_for_them(tmp_path: Path) -> None:
    own = tmp_path / "waivers"
    own.mkdir()
    for name in "ab":
        (own / f"{name}.toml").write_text(f"# {name}\n")
    _cell(tmp_path / "reports", "2.13", expectations=load([own]).files)
    names = bundle.pack([tmp_path / "reports"], tmp_path / "b.zip", [own])

    assert names == sorted({*NAMES, "expectations/01-a.toml", "expectations/02-b.toml"})


def _other_version(folder: Path, vendor: Path) -> list[Path]:
    _cell(folder, "2.11", expectations=[f"known_defects/operations.toml sha256:{'0' * 64}"])
    return [vendor]


def _changed(folder: Path, vendor: Path) -> list[Path]:
    vendor.write_text("# another\n")
    return [vendor]


def _elsewhere(folder: Path, vendor: Path) -> list[Path]:
    (folder / "other.toml").write_text("# another\n")
    return [vendor, folder / "other.toml"]


def _garbled(folder: Path, vendor: Path) -> list[Path]:
    _cell(folder, "2.11", expectations="vendor.toml sha256:abc")
    return [vendor]


Given = Callable[[Path, Path], list[Path]]
LACKING: dict[str, tuple[Given, str]] = {
    "not given": (lambda _, __: [], r"2\.13-cpu ran with this file; add it: --expectations"),
    "changed since": (_changed, r"vendor\.toml: it has changed since 2\.13-cpu ran"),
    "another beside": (_elsewhere, r"other\.toml: none of the packed runs used this file"),
    "of another version": (_other_version, r"operations\.toml: 2\.11-cpu .* from another version"),
    "garbled": (_garbled, r"junit-2\.11-cpu\.xml: its expectation files cannot be read"),
    "empty folder": (lambda folder, _: [folder], r"reports: this folder has no TOML file"),
}


@pytest.mark.parametrize(("given", "message"), LACKING.values(), ids=LACKING)
def test_expectation_files_are_those_of_the_runs_or_there_is_no_bundle(
    under: tuple[Path, Path], tmp_path: Path, given: Given, message: str
) -> None:
    files = given(*under)

    with pytest.raises(bundle.Refused, match=message):
        bundle.pack([under[0]], tmp_path / "b.zip", files)
    assert not list(tmp_path.glob("*b.zip*"))


def test_check_misses_the_expectation_file_of_a_run(
    under: tuple[Path, Path], tmp_path: Path
) -> None:
    """Taken out of the lists as well, so that nothing but the XML tells of it."""
    folder, vendor = under
    path, name = tmp_path / "b.zip", f"expectations/01-{vendor.name}"
    bundle.pack([folder], path, [vendor])
    manifest = json.loads(zipfile.ZipFile(path).read("manifest.json"))
    del manifest["files"][name]
    held = {n: zipfile.ZipFile(path).read(n) for n in manifest["files"]}
    held["manifest.json"] = json.dumps(manifest).encode()
    sums = [f"{hashlib.sha256(held[n]).hexdigest()}  {n}\n" for n in sorted(held)]
    _rewrite(path, **held, SHA256SUMS="".join(sums).encode(), **{name: None})

    assert bundle.verify(path).complaints == [
        f"2.13-cpu ran with {str(vendor)!r}, which is missing or has changed since"
    ]


# -- what makes none -------------------------------------------------------------------------------

Change = Callable[[Path], None]


def _hostile(folder: Path) -> None:
    path = folder / "junit-2.13-cpu.xml"
    path.write_text("<!DOCTYPE x [<!ENTITY a 'b'>]>" + path.read_text().partition("?>")[2])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (shutil.rmtree, "no such file or folder"),
        (lambda folder: (folder / "junit-2.13-cpu.xml").unlink(), "no XML of a cell"),
        (lambda folder: (folder / "junit-2.13-cpu.xml").write_text("<a"), "truncated, or not XML"),
        (
            lambda folder: (folder / "junit-2.13-cpu.xml").write_text("<a/>"),
            "not the XML of a cell of distparity",
        ),
        (_hostile, "hostile XML"),
        (lambda folder: (folder / "junit-x.xml").symlink_to("/etc/passwd"), "a link"),
        (lambda folder: shutil.copytree(folder, folder / "more"), "has the same name"),
    ],
    ids=["folder", "no XML", "truncated", "not ours", "hostile", "link", "twice"],
)
def test_what_makes_no_bundle(reports: Path, tmp_path: Path, change: Change, message: str) -> None:
    change(reports)

    with pytest.raises(bundle.Refused, match=message):
        bundle.pack([reports], tmp_path / "b.zip")
    assert not list(tmp_path.glob("*b.zip*"))


# -- checking one ----------------------------------------------------------------------------------

REPORT = "reports/junit-2.13-cpu.xml"


def _rewrite(path: Path, **changes: bytes | None) -> None:
    """The archive with other contents; None leaves a file out."""
    old = zipfile.ZipFile(path)
    files: dict[str, bytes | None] = {name: old.read(name) for name in old.namelist()}
    files.update(changes)
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in files.items():
            if content is not None:
                archive.writestr(name, content)


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({REPORT: b"<other/>"}, f"{REPORT}: damaged: its checksum differs from the manifest's"),
        ({REPORT: None}, f"{REPORT}: missing"),
        ({"reports/junit-2.14-cpu.xml": b""}, "reports/junit-2.14-cpu.xml: additional"),
        ({"SHA256SUMS": b""}, "SHA256SUMS: damaged, or manifest.json is: they disagree"),
        ({"SHA256SUMS": None}, "SHA256SUMS: missing"),
    ],
    ids=["damaged", "missing", "additional", "sums", "no sums"],
)
def test_what_is_wrong_is_named(
    packed: Path, changes: dict[str, bytes | None], complaint: str
) -> None:
    _rewrite(packed, **changes)

    assert bundle.verify(packed).complaints == [complaint]


def test_changed_manifest_is_seen(packed: Path) -> None:
    manifest = json.loads(zipfile.ZipFile(packed).read("manifest.json"))
    manifest["files"][REPORT] = {"sha256": hashlib.sha256(b"x").hexdigest(), "size": 1}
    _rewrite(packed, **{REPORT: b"x", "manifest.json": json.dumps(manifest).encode()})

    (complaint,) = bundle.verify(packed).complaints
    assert complaint.startswith("SHA256SUMS: damaged, or manifest.json is")


def _between(content: bytes) -> bytes:
    """Something hidden between the files and their directory, with the directory's place put right."""
    at = content.index(b"PK\x01\x02")
    hidden = content[:at] + b"evil" + content[at:]
    return hidden[:-6] + (at + 4).to_bytes(4, "little") + hidden[-2:]


LOOSE: dict[str, Callable[[bytes], bytes]] = {
    "before": lambda content: b"#!/bin/sh\n" + content,
    "behind": lambda content: content + b"evil" * 10,
    "before and behind": lambda content: b"evil" + content + b"evil",
    "comment": lambda content: content[:-2] + b"\x04\x00evil",
    "between": _between,
}


@pytest.mark.parametrize("change", LOOSE.values(), ids=LOOSE)
def test_what_is_beside_the_files_is_seen(packed: Path, change: Callable[[bytes], bytes]) -> None:
    packed.write_bytes(change(packed.read_bytes()))

    (complaint,) = bundle.verify(packed).complaints
    assert complaint.startswith("it has changed since it was packed")


def test_flipped_bit_is_named(packed: Path) -> None:
    content = bytearray(packed.read_bytes())
    content[content.index(REPORT.encode()) + len(REPORT) + 40] ^= 1
    packed.write_bytes(content)

    (complaint,) = bundle.verify(packed).complaints
    assert complaint.startswith(f"{REPORT}: damaged")


@pytest.mark.parametrize(
    "name",
    [
        "../evil.xml",
        "reports/../../evil.xml",
        "/etc/cron.d/evil",
        "reports\\..\\evil.xml",
        "C:/evil.xml",
        "reports/deeper/junit-a.xml",
        "reports/",
        "reports/junit\n.xml",
        "run.sh",
        "",
    ],
)
def test_name_that_a_bundle_does_not_have_is_refused(packed: Path, name: str) -> None:
    with zipfile.ZipFile(packed, "a") as archive:
        archive.writestr(zipfile.ZipInfo(name or "\0"), "x")

    with pytest.raises(bundle.Refused, match="a bundle cannot contain a file named"):
        bundle.verify(packed)


def _link(archive: zipfile.ZipFile) -> None:
    member = zipfile.ZipInfo("reports/junit-x.xml")
    member.external_attr = (stat.S_IFLNK | 0o777) << 16
    archive.writestr(member, "/etc/passwd")


def _bomb(archive: zipfile.ZipFile) -> None:
    with archive.open("reports/junit-x.xml", "w") as file:
        for _ in range(10):
            file.write(bytes(2**20))


def _many(archive: zipfile.ZipFile) -> None:
    for number in range(50):
        archive.writestr(f"reports/junit-{number}.xml", "")


@pytest.mark.filterwarnings("ignore:Duplicate name")
@pytest.mark.parametrize(
    ("change", "message"),
    [
        (_link, "reports/junit-x.xml is not a plain file"),
        (_bomb, "reports/junit-x.xml is larger than 8 MiB"),
        (
            lambda archive: [archive.writestr(f"reports/{n}.xml", bytes(7 * 2**20)) for n in "abc"],
            "it unpacks to more than 16 MiB",
        ),
        (_many, "56 files; a bundle has at most 50"),
        (lambda archive: archive.writestr(REPORT, ""), "it has .* twice"),
    ],
    ids=["link", "large", "large together", "many", "twice"],
)
def test_archive_that_is_no_bundle_is_refused(
    packed: Path,
    change: Callable[[zipfile.ZipFile], object],
    message: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(layout, "LARGEST_FILE", 8 * 2**20)
    monkeypatch.setattr(layout, "LARGEST", 16 * 2**20)
    monkeypatch.setattr(layout, "MOST_FILES", 50)
    with zipfile.ZipFile(packed, "a", zipfile.ZIP_DEFLATED) as archive:
        change(archive)

    with pytest.raises(bundle.Refused, match=message):
        bundle.verify(packed)


def test_archive_that_lies_of_its_sizes_gives_no_more_than_it_says(packed: Path) -> None:
    """The size in the directory is the bound that the check reads by."""
    with zipfile.ZipFile(packed, "a", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("reports/junit-x.xml", bytes(2**20))
    content = packed.read_bytes()
    at = content.rindex(b"PK\x01\x02")
    packed.write_bytes(content[: at + 24] + (10).to_bytes(4, "little") + content[at + 28 :])

    assert "reports/junit-x.xml: additional" in bundle.verify(packed).complaints


@pytest.mark.parametrize(
    "manifest",
    [
        b"",
        b"[]",
        b"{}",
        b'{"format": 2, "files": {}, "cells": []}',
        b'{"format": 1, "files": {"../x": {"sha256": "", "size": 1}}, "cells": []}',
        b'{"format": 1, "files": {"commands.txt": 1}, "cells": []}',
        b'{"format": 1, "files": {"commands.txt": {"sha256": "", "size": 1e400}}, "cells": []}',
        b'{"format": 1, "files": {}, "cells": [{"cell": "\\u001b[2J"}]}',
        b"[" * 100_000,
        None,
    ],
)
def test_manifest_that_makes_no_sense_is_refused(packed: Path, manifest: bytes | None) -> None:
    _rewrite(packed, **{"manifest.json": manifest})

    with pytest.raises(bundle.Refused, match=r"bundle\.zip: "):
        bundle.verify(packed)


@pytest.mark.parametrize("content", [b"", b"PK", b"no archive" * 100, None])
def test_what_is_no_archive_is_refused(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "bundle.zip"
    if content is not None:
        path.write_bytes(content)

    with pytest.raises(bundle.Refused, match=r"bundle\.zip: "):
        bundle.verify(path)


@pytest.mark.parametrize("length", [100, 500, -1, -30])
def test_truncated_archive_is_refused(packed: Path, length: int) -> None:
    packed.write_bytes(packed.read_bytes()[:length])

    with pytest.raises(bundle.Refused, match="it is not a zip archive, or it is damaged"):
        bundle.verify(packed)


# -- the command -----------------------------------------------------------------------------------


def _bundle(*words: object) -> tuple[int, str]:
    command = [sys.executable, "-m", "distparity", "bundle", *map(str, words)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.returncode, done.stdout + done.stderr


def test_command_makes_and_checks(reports: Path, tmp_path: Path) -> None:
    path = tmp_path / "b.zip"

    assert _bundle(reports, "-o", path) == (
        0,
        "\n".join([*sorted(NAMES), f"wrote {path}", ""]),
    )
    assert _bundle("--verify", path) == (
        0,
        f"{path}: 6 files, unchanged since they were packed; cells: 2.13-cpu\n",
    )
    _rewrite(path, **{REPORT: b""})
    code, output = _bundle("--verify", path)
    assert code == 1
    assert f"{REPORT}: damaged" in output


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        ([], 4, "bundle: name the reports"),
        (["nowhere"], 4, "nowhere: no such file or folder"),
        (["--verify", "nowhere"], 1, "nowhere: No such file or directory"),
        (["--verify", "nowhere", "reports"], 4, "--verify takes one bundle"),
    ],
)
def test_command_that_cannot_be(words: list[str], code: int, message: str) -> None:
    found, output = _bundle(*words)

    assert found == code
    assert message in output
