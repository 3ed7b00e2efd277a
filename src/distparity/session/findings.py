"""What a device saw go wrong while a case ran: it fails a case whose numbers are right."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from distparity.core.outcome import Outcome, Status
from distparity.worlds.world import Answer

__all__ = ["with_findings"]

#: So many findings are told; a fact counts all of them.
MOST = 20


def with_findings(outcome: Outcome, runs: Iterable[Answer]) -> Outcome:
    """The outcome of a case, given what the devices of its worlds saw.

    Numbers that are wrong stay the case's message; the findings are told below it.
    """
    found = list(dict.fromkeys(line for run in runs for line in run.findings))
    if not found or outcome.status not in (Status.PASSED, Status.FAILED):
        return outcome
    detail = "\n".join(["the device found:", *(f"  {line}" for line in found[:MOST])])
    if outcome.status is Status.FAILED:
        facts = {**outcome.facts, "findings_beside": len(found)}
        return replace(outcome, detail=f"{outcome.detail}\n{detail}", facts=facts)
    facts = {**outcome.facts, "findings": len(found), "diagnosis": found[0]}
    message = f"right numbers, but the device found: {found[0]}"
    return Outcome(Status.FAILED, message, detail, facts, failure="findings")
