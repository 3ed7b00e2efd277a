"""What a package index shows: the project's addresses, and the README with links that work there.

`DISTPARITY_REPOSITORY` is the address of the repository (https://...), and `DISTPARITY_CONTACT` the
maintainers' e-mail address; the publishing workflow sets both. Without the first there are no links, and the
README names what it would link to: an index has no other files.
"""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path
from typing import Any

from hatchling.metadata.plugin.interface import MetadataHookInterface

REPOSITORY, CONTACT = "DISTPARITY_REPOSITORY", "DISTPARITY_CONTACT"


class Addresses(MetadataHookInterface):
    """Hatchling's hook for the fields `authors`, `readme` and `urls`."""

    PLUGIN_NAME = "custom"

    def update(self, metadata: dict[str, Any]) -> None:
        root = Path(self.root)
        repository = os.environ.get(REPOSITORY, "").rstrip("/")
        source = f"{repository}/tree/{_revision(root, metadata['version'])}" if repository else ""
        readme = (root / "README.md").read_text(encoding="utf-8")
        contact = os.environ.get(CONTACT)
        email = {"email": contact} if contact else {}
        metadata["authors"] = [{"name": "distparity maintainers", **email}]
        metadata["readme"] = {"content-type": "text/markdown", "text": linked(readme, source)}
        if repository:
            metadata["urls"] = {
                "Homepage": repository,
                "Source": source,
                "Documentation": f"{source}/docs/README.md",
                "Changelog": f"{source}/CHANGELOG.md",
                "Issues": f"{repository}/issues",
            }


def _revision(root: Path, version: str) -> str:
    """The tag of a release, else the commit of the sources."""
    if re.fullmatch(r"[\d.]+", version):
        return f"v{version}"
    done = subprocess.run(
        ["git", "rev-parse", "HEAD"], cwd=root, capture_output=True, text=True, check=False
    )
    return done.stdout.strip() or "HEAD"


def linked(text: str, source: str) -> str:
    """``text`` with every relative link below ``source``, or without such links and images."""

    def link(found: re.Match[str]) -> str:
        image, words, target = found.groups()
        if re.match(r"[a-z]+:|#", target):
            return found[0]
        if source:
            base = source.replace("/tree/", "/raw/", 1) if image else source
            return f"{image}[{words}]({base}/{target})"
        return "" if image else words

    return re.sub(r"(!?)\[([^\]]+)\]\(([^)\s]+)\)", link, text)
