"""What a user asks of a run on several nodes."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from distparity.core.bad_request import BadRequest

__all__ = ["PLACEMENTS", "Nodes", "placements"]

#: How a world's ranks lie on nodes: ``packed`` fills one node before the next, ``spread`` puts one rank
#: on each node first.
PLACEMENTS = ("packed", "spread")


@dataclass(frozen=True)
class Nodes:
    """The nodes of a run. ``count`` is how many have to join."""

    #: "torchrun", "slurm", or "join" for those that come by themselves.
    by: str
    count: int
    interface: str | None = None
    token_file: Path | None = None
    #: Where to wait for them: ``HOST:PORT``, or either.
    listen: str = ""

    @property
    def controller_too(self) -> bool:
        """Whether the controller's machine has ranks as well."""
        return self.by != "join"


def placements(word: str | None, nodes: Nodes | None) -> tuple[str, ...]:
    """The placements that each case has; raises :class:`BadRequest` if there is one node."""
    if nodes is None:
        if word is not None:
            raise BadRequest(f"--placement {word}: this run has one node; start it on several")
        return ()
    return PLACEMENTS if word == "both" else (word or "spread",)
