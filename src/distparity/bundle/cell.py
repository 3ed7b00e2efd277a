"""The facts that a bundle needs from a cell's XML; the report reads all of it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from xml.etree import ElementTree as ET

from distparity.bundle.layout import Refused

__all__ = ["Cell", "read"]

#: The facts of a cell that the manifest repeats; the XML has more.
_FACTS = ("cell", "torch", "torch_git", "device", "device_name", "backend", "backend_version")
#: One expectation file of a run, as its XML lists it.
_FILE = re.compile(r"(?P<name>.+?) sha256:(?P<sum>[0-9a-f]{64})(?:, |$)", re.DOTALL)


@dataclass(frozen=True)
class Cell:
    """One XML file.

    ``expectations`` has the checksum of each expectation file, by the name that the run used; None
    if the XML does not say, for example because the run did not begin.
    """

    facts: dict[str, str]
    command: str
    expectations: dict[str, str] | None

    @property
    def name(self) -> str:
        return self.facts["cell"]


def read(name: str, content: bytes) -> Cell:
    """Read a cell's XML; raises :class:`Refused`, with its ``name``, if it is not one."""
    text = content.decode("utf-8", "replace")
    if "<!DOCTYPE" in text or "<!ENTITY" in text:
        raise Refused(f"{name}: hostile XML: it declares entities or a DTD")
    try:
        suite = ET.fromstring(text.encode()).find("testsuite")  # noqa: S314  without entities, as above
    except ET.ParseError as error:
        raise Refused(f"{name}: truncated, or not XML: {error}") from None
    properties = [] if suite is None else suite.findall("properties/property")
    facts = {p.get("name", "").removeprefix("distparity."): p.get("value", "") for p in properties}
    if "cell" not in facts:
        raise Refused(f"{name}: not the XML of a cell of distparity")
    said = facts.get("expectations")
    return Cell(
        {fact: facts.get(fact, "") for fact in _FACTS},
        facts.get("command", ""),
        None if said is None else _expectations(name, said),
    )


def _expectations(name: str, said: str) -> dict[str, str]:
    if said == "none":
        return {}
    found = list(_FILE.finditer(said))
    if "".join(one[0] for one in found) != said:
        raise Refused(f"{name}: its expectation files cannot be read: {said[:200]!r}")
    return {one["name"]: one["sum"] for one in found}
