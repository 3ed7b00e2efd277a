"""The table of torch releases, and where a row's torch comes from."""

from __future__ import annotations

import ssl
import subprocess
import sys

import pytest

from distparity import releases
from distparity.releases import INDEX, NIGHTLY, NoSuchCell, row, source

REGISTRY = None


@pytest.mark.parametrize(
    ("name", "devices", "wheel", "expected"),
    [
        ("2.13", [], None, REGISTRY),
        ("2.13", ["auto"], None, REGISTRY),
        ("2.13", ["cpu", "cuda"], None, REGISTRY),
        ("2.13", ["xpu"], None, "xpu"),
        ("2.13", ["cpu", "xpu"], None, "xpu"),
        ("2.13", ["somebodys"], None, REGISTRY),
        ("2.13", ["auto"], "cpu", "cpu"),
        ("2.13", ["auto"], "cuda", "cu130"),
        ("2.4", ["cuda"], "cuda", "cu121"),
        ("2.13", ["auto"], "rocm6.4", "rocm6.4"),
        ("2.13", ["xpu"], "registry", REGISTRY),
        ("nightly", ["auto"], None, "nightly/cpu"),
        ("nightly", ["cuda"], None, "nightly/cu130"),
        ("nightly", ["cpu", "xpu"], None, "nightly/xpu"),
        ("nightly", ["auto"], "rocm7.0", "nightly/rocm7.0"),
        ("nightly", ["auto"], "cuda", "nightly/cu130"),
    ],
)
def test_source_of_a_torch(
    name: str, devices: list[str], wheel: str | None, expected: str | None
) -> None:
    found = source(row(name), devices, wheel)

    assert found.requirement == row(name).requirement
    assert found.index == (expected and f"{INDEX}/{expected}")


@pytest.mark.parametrize(
    ("name", "devices", "message"),
    [
        ("2.4", ["xpu"], "there is no torch 2.4 for xpu: its wheels begin at torch 2.5"),
        (
            "2.13",
            ["hpu"],
            "hpu needs Habana's build of torch: install it, and run `nox -s tests-local`",
        ),
        ("nightly", ["cuda", "xpu"], "no single wheel of torch nightly supports cuda and xpu"),
    ],
)
def test_torch_that_there_is_not(name: str, devices: list[str], message: str) -> None:
    with pytest.raises(NoSuchCell, match=message):
        source(row(name), devices)


def test_another_index_by_option_before_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(releases.INDEX_VARIABLE, "http://mirror/whl/")

    assert source(NIGHTLY).index == "http://mirror/whl/nightly/cpu"
    assert source(NIGHTLY, index="http://own").index == "http://own/nightly/cpu"


def test_unknown_row_is_named_with_the_known_ones() -> None:
    with pytest.raises(
        NoSuchCell, match=r"'2\.3'; did you mean .*\? known: 2\.4, 2\.5, .*, local$"
    ):
        row("2.3")


def test_rows_are_in_order_and_say_what_they_are() -> None:
    minors = [int(found.name.partition(".")[2]) for found in releases.RELEASES]
    assert minors == list(range(minors[0], minors[0] + len(minors)))
    for found in releases.RELEASES:
        assert found.pinned
        assert found.requirement.startswith(f"torch=={found.name}.")
        assert found.title == f"Run the suite with torch {found.requirement[7:]}."
    assert not NIGHTLY.pinned


def test_table_needs_nothing_but_the_standard_library() -> None:
    """The programs that compute a job matrix or read a broken cell have neither torch nor pytest."""
    script = (
        "import sys; from distparity import releases; from distparity.results import junit_writer;"
        "print({name.partition('.')[0] for name in sys.modules} & {'torch', 'pytest', 'nox'})"
    )
    done = subprocess.run([sys.executable, "-c", script], stdout=subprocess.PIPE, check=True)

    assert done.stdout.strip() == b"set()"


#: How many authorities the system trusts, and what is set already -> what installers are told.
TOLD = {
    "a system with authorities": (140, {}, {"UV_SYSTEM_CERTS": "1", "UV_NATIVE_TLS": "1"}),
    "one without": (0, {}, {}),
    "what is set stays": (140, {"UV_SYSTEM_CERTS": "0"}, {"UV_NATIVE_TLS": "1"}),
}


@pytest.mark.parametrize(("known", "variables", "expected"), TOLD.values(), ids=TOLD)
def test_uv_trusts_what_the_system_trusts(
    monkeypatch: pytest.MonkeyPatch,
    known: int,
    variables: dict[str, str],
    expected: dict[str, str],
) -> None:
    for name in ("UV_SYSTEM_CERTS", "UV_NATIVE_TLS", "UV_COMPILE_BYTECODE"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(
        ssl.SSLContext, "cert_store_stats", lambda _: {"x509_ca": known}, raising=True
    )

    assert releases.installing() == {"UV_COMPILE_BYTECODE": "1", **expected}
