"""The options that several commands have, declared once: pytest's plug-in and the subcommands take
them from here, so that they mean the same everywhere.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from distparity.core import device_kinds
from distparity.core.bad_request import BadRequest
from distparity.session.nodes import PLACEMENTS, Nodes
from distparity.session.options import ARITHMETICS, Options
from distparity.session.rounds import Plan, duration
from distparity.session.selection import SELECTIONS
from distparity.session.shares import Share

__all__ = ["OF_A_RUN", "OF_PAIRS", "declare", "flags", "options", "words"]

Table = dict[str, dict[str, Any]]

#: What each pair of nodes runs if nothing was chosen: the collectives, and one training.
OF_PAIRS = tuple(
    f"{name}-ws2-float32"
    for name in (
        *("all_reduce/tensor", "reduce/tensor", "broadcast/tensor", "send_recv/tensor"),
        *("all_gather/list", "gather/list", "reduce_scatter/list", "scatter/list"),
        *("all_to_all/list", "basic/fsdp2"),
    )
)

#: By the title of a group: the options of a run.
OF_A_RUN: dict[str, Table] = {
    "which cases": {
        "--case": {
            "action": "append",
            "metavar": "PATTERN",
            "help": "only the cases with this id, scenario or family, or those that match a pattern: "
            "multiple_forward/fsdp2-ws2-float32, 'basic/*', calls; may be repeated. "
            "`distparity run` takes them without --case too",
        },
        "--scenario": {
            "action": "append",
            "metavar": "NAME",
            "help": "only the cases of this scenario or operation; may be repeated, or a list: a,b",
        },
        "--select": {
            "choices": SELECTIONS,
            "default": "default",
            "help": "how many cases: quick covers every strategy and every family of scenarios, full "
            "is all cases but those of large, which trains models of millions of parameters, order, which "
            "uses streams in more ways, sizes, which calls collectives with up to gigabytes, and generated, "
            "which has torch's operators and all other generated inputs (default %(default)s)",
        },
        "--largest": {
            "metavar": "BYTES",
            "help": "the largest message on one rank of the selection sizes: 64MiB, 4GiB (default: 64MiB "
            "on cpu, 1GiB elsewhere, or less if the device has not 32 times as much free)",
        },
        "--world-size": {
            "action": "append",
            "metavar": "N",
            "help": "ranks per world; may be repeated, or a list: 2,4",
        },
        "--include": {
            "action": "append",
            "metavar": "MODULE",
            "default": [],
            "help": "import MODULE in every rank, and run its scenarios and strategies too",
        },
        "--expectations": {
            "action": "append",
            "type": Path,
            "metavar": "FILE",
            "default": [],
            "help": "expected failures, in TOML; may be repeated",
        },
        "--no-known-defects": {
            "action": "store_true",
            "help": "do not apply the known defects of torch's releases",
        },
    },
    "on what": {
        "--device": {
            "action": "append",
            "metavar": "KIND",
            "help": "device to run on: auto (every device of this machine, the default), "
            f"{', '.join(device_kinds.kinds())}; may be repeated, or a list: cpu,cuda",
        },
        "--require": {
            "action": "append",
            "metavar": "KIND",
            "help": "run on this kind of device too, and fail if it cannot be used; may be repeated, "
            "or a list",
        },
        "--device-plugin": {
            "action": "append",
            "metavar": "MODULE:OBJECT",
            "default": [],
            "help": "load a Device class by MODULE:OBJECT, for devices under development",
        },
        "--share-devices": {
            "nargs": "?",
            "const": "auto",
            "metavar": "WAY",
            "help": "put all ranks of a world on one device, where a backend permits it (in the best "
            "way available, or in the given WAY); the results are a cell of their own",
        },
        "--backend": {
            "metavar": "STRING",
            "help": "what init_process_group is given in place of the device's own backend: ccl, or "
            "cpu:gloo,xpu:ccl; the results are a cell of their own",
        },
        "--axis": {
            "action": "append",
            "metavar": "NAME=VALUE",
            "default": [],
            "help": "a property of this machine or mode (card=BMG, mode=lazy), which is in the name of "
            "the cell and in its facts; may be repeated",
        },
        "--arithmetic": {
            "choices": ARITHMETICS,
            "default": "exact",
            "help": "exact: deterministic kernels without TF32 and the like (default); default: the "
            "kernels that torch trains with when nothing is set, in a cell of their own",
        },
    },
    "on several nodes": {
        "--placement": {
            "choices": (*PLACEMENTS, "both"),
            "help": "packed fills one node before the next, spread puts one rank on each node first "
            "(default on several nodes), both runs each case in each way",
        },
        "--each-pair": {
            "action": "store_true",
            "help": "run each case with two ranks on every pair of nodes, and of devices within each, and "
            "say which is in every pair that is wrong (default: the collectives and one training)",
        },
        "--interface": {
            "metavar": "NAME",
            "help": "the interface for traffic between ranks (default: GLOO_SOCKET_IFNAME, "
            "NCCL_SOCKET_IFNAME, or the one that reaches the controller)",
        },
        "--wait-for-nodes": {
            "type": int,
            "metavar": "N",
            "help": "wait until N nodes have joined (`distparity join`), and run on them",
        },
        "--token-file": {
            "type": Path,
            "metavar": "FILE",
            "help": "the secret by which nodes join; made if it is not there; mode 0600",
        },
        "--listen": {
            "metavar": "HOST:PORT",
            "help": "where to wait for nodes (default: any address, port 29577)",
        },
        "--nodes-from": {
            "choices": ("torchrun", "slurm"),
            "help": "the launcher that started this run on several nodes (`distparity run` says it)",
        },
        "--node-count": {
            "type": int,
            "default": 1,
            "metavar": "N",
            "help": "on how many nodes it started the run",
        },
    },
    "how": {
        "--case-timeout": {
            "type": float,
            "default": 60.0,
            "metavar": "SECONDS",
            "help": "time limit of one case (default %(default)s)",
        },
        "--no-log": {
            "action": "store_true",
            "help": "keep no record of the collectives: nothing of distparity is around them, and a "
            "hang is told with less",
        },
        "--perturb": {
            "type": int,
            "metavar": "SEED",
            "help": "delay ranks at random before they call, and keep their devices busy: what "
            "waits for what it uses has the same results (docs/order.md)",
        },
        "--worlds": {
            "type": int,
            "metavar": "RANKS",
            "help": "how many ranks may be busy at the same time (default: four per core)",
        },
        "--shuffle": {
            "nargs": "?",
            "const": "random",
            "metavar": "SEED",
            "help": "run the cases in another order; the seed is in the XML",
        },
        "--repeat": {
            "type": int,
            "metavar": "N",
            "help": "run the cases in N rounds, each in another order and with other data",
        },
        "--soak": {
            "metavar": "DURATION",
            "help": "begin new rounds until DURATION is over: 90s, 30m, 2h",
        },
        "--until-failure": {
            "action": "store_true",
            "help": "end after the first round in which a case fails; without --repeat or --soak "
            "there is no other end",
        },
        "--round": {
            "type": int,
            "metavar": "R",
            "help": "replay round R of a run with rounds; give its --shuffle too",
        },
        "--shard": {
            "metavar": "I/N",
            "help": "run only share I of N of the cases, from 1; distparity junit --join makes one "
            "cell of all shares",
        },
        "--resume": {
            "action": "store_true",
            "help": "go on after the last result of an interrupted run with the same options",
        },
        "--retry-failed": {
            "action": "store_true",
            "help": "run a failed case once more in a fresh world; if it then passes it is *flaky*",
        },
        "--allow-flaky": {
            "action": "store_true",
            "help": "report flaky cases, but do not fail the run because of them",
        },
    },
    "results": {
        "--report-dir": {
            "default": "reports",
            "metavar": "DIR",
            "help": "folder for junit-<torch>-<device>.xml (default %(default)s)",
        },
        "--cell": {
            "metavar": "NAME",
            "help": "the name of this torch in the reports (default: its version)",
        },
    },
}


def flags() -> list[str]:
    """The names of the options of a run."""
    return [flag for table in OF_A_RUN.values() for flag in table]


def declare(add: Callable[..., Any], *names: str, **defaults: Any) -> None:
    """Declare options with ``add``, which takes what argparse's ``add_argument`` takes.

    ``defaults`` are those that this command has instead, by destination.
    """
    for table in OF_A_RUN.values():
        for flag, how in table.items():
            if flag in names:
                own = defaults.get(flag[2:].replace("-", "_"))
                add(flag, **how if own is None else {**how, "default": own})


def words(values: Sequence[str] | None) -> list[str]:
    """The words of an option that may be repeated, or have a list, each once."""
    return list(dict.fromkeys(word for value in values or [] for word in value.split(",") if word))


def options(given: Any, sizes: Sequence[int] = (), **more: Any) -> Options:
    """The options of a command line; ``sizes`` are this command's world sizes if none are given.

    Raises :class:`BadRequest` for what is wrong on any machine.
    """
    worlds = getattr(given, "worlds", None)
    if worlds is not None and worlds < 1:
        raise BadRequest(f"--worlds {worlds}: it must be at least 1")
    seed = _seed(given)
    cases = list(getattr(given, "case", None) or [])
    select, each_pair = getattr(given, "select", "default"), getattr(given, "each_pair", False)
    scenarios = words(getattr(given, "scenario", None)) or None
    if each_pair and not cases and scenarios is None and select == "default":
        cases = list(OF_PAIRS)
    found = Options(
        devices=words([*(given.device or ["auto"]), *(getattr(given, "require", None) or [])]),
        world_sizes=_sizes(getattr(given, "world_size", None)) or list(sizes),
        limit=getattr(given, "case_timeout", 60.0),
        report_dir=Path(getattr(given, "report_dir", "reports")),
        cell=getattr(given, "cell", None),
        select=select,
        cases=cases,
        scenarios=scenarios,
        include=list(getattr(given, "include", [])),
        plugins=list(getattr(given, "device_plugin", [])),
        room=worlds,
        sharing=getattr(given, "share_devices", None),
        backend=getattr(given, "backend", None),
        axes=_axes(getattr(given, "axis", [])),
        largest=_bytes(getattr(given, "largest", None)),
        arithmetic=getattr(given, "arithmetic", "exact"),
        log=not getattr(given, "no_log", False),
        perturb=getattr(given, "perturb", None),
        shard=None if (shard := getattr(given, "shard", None)) is None else Share.of(shard),
        shuffle=seed,
        rounds=_rounds(given, seed),
        resume=getattr(given, "resume", False),
        retry_failed=getattr(given, "retry_failed", False),
        allow_flaky=getattr(given, "allow_flaky", False),
        expectations=list(getattr(given, "expectations", [])),
        known_defects=not getattr(given, "no_known_defects", False),
        nodes=_nodes(given),
        placement=getattr(given, "placement", None),
        each_pair=each_pair,
        **more,
    )
    found.check()
    return found


def _nodes(given: Any) -> Nodes | None:
    """The other nodes that a command line asks for."""
    by, waited = getattr(given, "nodes_from", None), getattr(given, "wait_for_nodes", None)
    if by is None and waited is None:
        return None
    if waited is not None and waited < 1:
        raise BadRequest(f"--wait-for-nodes {waited}: it must be at least 1")
    count = given.node_count - 1 if waited is None else waited
    return Nodes(by or "join", count, given.interface, given.token_file, given.listen or "")


def _seed(given: Any) -> int | None:
    """The seed of the order of cases; None to keep the order of the selection."""
    words = getattr(given, "shuffle", None)
    if words is None and not _has_rounds(given):
        return None
    if words in (None, "random"):
        return secrets.randbelow(2**31)
    if not words.isdecimal():
        raise BadRequest(f"--shuffle={words}: the seed must be a whole number")
    return int(words)


def _has_rounds(given: Any) -> bool:
    counted = [getattr(given, name, None) for name in ("repeat", "soak")]
    return counted != [None, None] or bool(getattr(given, "until_failure", False))


def _rounds(given: Any, seed: int | None) -> Plan | None:
    """The rounds that a command line asks for; None for a run without rounds."""
    number = getattr(given, "round", None)
    if number is not None:
        if given.shuffle is None or number < 0 or _has_rounds(given):
            raise BadRequest("--round R needs --shuffle=SEED, and neither --repeat nor --soak")
        assert seed is not None
        return Plan(seed, 1, first=number)
    if seed is None or not _has_rounds(given):
        return None
    if given.repeat is not None and given.repeat < 1:
        raise BadRequest(f"--repeat {given.repeat}: it must be at least 1")
    seconds = None if given.soak is None else duration(given.soak)
    return Plan(seed, given.repeat, seconds, given.until_failure)


def _axes(values: Sequence[str]) -> dict[str, str]:
    found = {}
    for value in values:
        name, _, text = value.partition("=")
        if re.fullmatch(r"[a-z][a-z0-9_]*", name) is None or not text:
            raise BadRequest(f"--axis {value}: it is NAME=VALUE, the name in small letters")
        found[name] = text
    return found


def _bytes(words: str | None) -> int | None:
    """Bytes of a size such as ``64MiB`` or ``4GiB``; None if there is none."""
    if words is None:
        return None
    found = re.fullmatch(r"(\d+)(|KiB|MiB|GiB)", words)
    if found is None or not int(found[1]):
        raise BadRequest(f"--largest {words!r}: it must be a size, for example 64MiB or 4GiB")
    return int(found[1]) << 10 * ["", "KiB", "MiB", "GiB"].index(found[2])


def _sizes(values: Sequence[str] | None) -> list[int]:
    found = [word for value in values or [] for word in value.split(",")]
    try:
        # A size that is named twice makes no case twice.
        return list(dict.fromkeys(map(int, found)))
    except ValueError:
        raise BadRequest(
            f"--world-size {','.join(values or [])!r}: it takes whole numbers, for example 2,4"
        ) from None
