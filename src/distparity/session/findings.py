"""What a device reported during a case: such a finding fails a case whose numbers are right."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from distparity.core.outcome import Outcome, Status
from distparity.worlds.world import Answer

__all__ = ["with_findings"]

#: The most findings that are listed; a fact counts all of them.
MOST = 20


def with_findings(outcome: Outcome, runs: Iterable[Answer]) -> Outcome:
    """Add the findings of the worlds' devices to the outcome of a case.

    If the numbers are wrong, they stay the case's message and the findings follow in the detail.
    """
    found = list(dict.fromkeys(line for run in runs for line in run.findings))
    if not found or outcome.status not in (Status.PASSED, Status.FAILED):
        return outcome
    detail = "\n".join(["the device reported:", *(f"  {line}" for line in found[:MOST])])
    outcome = replace(outcome, findings=tuple(found))
    if outcome.status is Status.FAILED:
        facts = {**outcome.facts, "findings_beside": len(found)}
        return replace(outcome, detail=f"{outcome.detail}\n{detail}", facts=facts)
    facts = {**outcome.facts, "findings": len(found), "diagnosis": found[0]}
    message = f"the numbers are right, but the device reported: {found[0]}"
    return replace(
        outcome,
        status=Status.FAILED,
        message=message,
        detail=detail,
        facts=facts,
        failure="findings",
    )
