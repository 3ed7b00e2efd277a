"""One real run over two hosts on this machine, whose link is cut while a case is under way."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import two_hosts
from two_hosts import AFTER, BEFORE, UNDER_WAY, Trial

KILLED = "basic/fault-sigkill-ws2-float32"


@pytest.fixture(scope="module")
def trial(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Trial]:
    why = two_hosts.why_not()
    if why:
        pytest.skip(why)
    with two_hosts.two_hosts() as hosts:
        found = Trial(hosts, tmp_path_factory.mktemp("hosts"))
        found.words += ["--case", KILLED]
        found.start()
        found.until(lambda: {BEFORE, KILLED} <= found.results.keys())
        found.case_under_way()
        hosts.cut(2)
        found.until(lambda: UNDER_WAY in found.results)
        # It has lost the controller, and ends its ranks.
        found.until(lambda: found.two.poll() is not None, 15)
        found.until(lambda: found.one.poll() is not None)
        yield found


def test_ranks_are_on_both_hosts(trial: Trial) -> None:
    outcome = trial.results[BEFORE][1]
    assert outcome["status"] == "passed"
    assert outcome["facts"]["nodes"] == f"{trial.hosts.name(1)} {trial.hosts.name(2)}"


def test_a_rank_that_dies_there_is_told_with_its_host_and_its_output(trial: Trial) -> None:
    outcome = trial.results[KILLED][1]
    assert outcome["message"].startswith(f"rank 1 on {trial.hosts.name(2)} killed by SIGKILL")
    assert outcome["failure"] == "crash"


def test_a_cut_link_is_known_within_five_seconds(trial: Trial) -> None:
    at, outcome = trial.results[UNDER_WAY]
    name = trial.hosts.name(2)
    assert outcome["message"].startswith(f"rank 1 on {name} is gone: {name} has sent no heartbeat")
    # And what the ranks that are left say of themselves.
    assert at - trial.began < 5 + 2


def test_what_needs_both_hosts_is_not_available_then(trial: Trial) -> None:
    outcome = trial.results[AFTER][1]
    assert outcome["status"] == "not available"
    assert "need 2 nodes, and 1 is left" in outcome["message"]
    assert trial.one.returncode == 1
    assert trial.left() == []
    assert "the controller has sent no heartbeat" in trial.log(2)
