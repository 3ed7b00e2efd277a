"""What the controller adds to a case over many nodes: stand-ins for the nodes, whose ranks take no time.

The stand-ins are one other process on this machine. They join as nodes do (TLS, the token, frames), and
their ranks answer every task at once: no torch, no fork. The door, the scheduler, its worlds and the
controller's end of each node are those of a run.
"""

from __future__ import annotations

import functools
import json
import math
import resource
import select
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from _measure import Table, arguments, publish
from fake_ranks import FakeLauncher, job

from distparity.core.wire import Channel, Frame
from distparity.nodes import greeting
from distparity.nodes.door import Door
from distparity.nodes.remote import RemoteNode
from distparity.nodes.tunnel import CONTROLLER_LOST, Carrier, Tunnel
from distparity.worlds.scheduler import Scheduler
from distparity.worlds.world import Answer, Spec, Task

TOKEN = "t" * 32
#: The arguments of a task, about as large as those of a training.
ARGS = {"scenario": "multiple_forward", "more": "x" * 400}
#: Milliseconds of a case that the controller may take at the largest size.
AIM = 50
HEADINGS = (
    *("nodes", "ranks", "a case, ms", "slowest, ms", "the controller's CPU, ms"),
    *("cases of 2 ranks a second", "a world starts, ms", "memory, MiB"),
)


class StandIns:
    """``count`` nodes in this process, until the controller closes their connections."""

    def __init__(self, port: int, count: int) -> None:
        self.channels: dict[int, Channel] = {}
        #: By the node's descriptor and the world: its ranks there.
        self.ranks: dict[tuple[int, int], list[int]] = {}
        self.pids = 1000
        carrier = Carrier()
        for number in range(count):
            sock = greeting.greet("127.0.0.1", port, TOKEN, functools.partial(_about, number))
            channel = Channel(Tunnel(sock, CONTROLLER_LOST * 10, carrier).inside)
            self.channels[channel.fileno()] = channel

    def serve(self) -> None:
        poll = select.poll()
        for number in self.channels:
            poll.register(number, select.POLLIN)
        while self.channels:
            for number, _ in poll.poll():
                channel = self.channels[number]
                frames, alive = channel.poll()
                for frame in frames:
                    self.answer(number, channel, frame)
                if alive:
                    channel.flush()
                else:
                    poll.unregister(number)
                    self.channels.pop(number).close()

    def answer(self, number: int, channel: Channel, frame: Frame) -> None:
        world = frame.get("world")
        said: dict[str, Any] = {"op": "ready"}
        if frame["op"] == "setup":
            channel.queue({"op": "ready", "facts": {}})
            return
        if frame["op"] == "fork":
            mine = self.ranks[number, frame["world"]] = [one["rank"] for one in frame["ranks"]]
            pids = list(range(self.pids, self.pids + len(mine)))
            self.pids += len(mine)
            channel.queue({"op": "forked", "world": world, "pids": pids, "error": ""})
        elif frame["op"] == "to" and frame["message"]["op"] == "task":
            mine = self.ranks[number, frame["world"]]
            said = {"op": "answer", "id": frame["message"]["id"], "result": {"peak_memory": 0}}
            said.update(seconds=0.0, calls=1, left=[], findings=[])
        else:
            return
        told = {"op": "from", "world": world, "now": 0.0, "said": [(rank, said) for rank in mine]}
        channel.queue(told)


def _about(number: int, _: socket.socket) -> dict[str, Any]:
    return {"name": f"node{number}", "address": "127.0.0.1"}


def memory() -> float:
    """The resident memory of this process, in MiB."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() / 2**20


def measure(nodes: int, each: int, repeat: int) -> dict[str, Any]:
    """One size: seconds of each case on all ranks, cases of two ranks a second, and memory."""
    before = memory()
    door = Door(TOKEN, "127.0.0.1", 0, lambda _: "")
    launcher = FakeLauncher()
    scheduler = Scheduler(launcher, room=nodes * each)
    scheduler.fleet.takers.clear()
    words = [sys.executable, __file__, "--stand-in", str(door.port), "--nodes", str(nodes)]
    process = subprocess.Popen(words)
    for number in range(1, nodes + 1):
        guest = door.guests.get(timeout=60)
        node = RemoteNode(number, str(guest.about["name"]), guest, launcher.setup)
        scheduler.add_node(node, cores=each)
    while len(scheduler.fleet.takers) < nodes:
        scheduler.turn(0.1)
    scheduler.fleet.cpu_ranks = each

    def one(size: int) -> float:
        began = time.perf_counter()
        done = scheduler.run(job(Task(Spec("cpu", size, placement="spread"), "none", dict(ARGS))))
        assert isinstance(done, Answer)
        assert len(done.results) == size
        return time.perf_counter() - began

    started = one(nodes * each)
    cpu = time.process_time()
    cases = [one(nodes * each) for _ in range(repeat)]
    cpu = (time.process_time() - cpu) / repeat
    held = memory() - before
    pair = Spec("cpu", 2, placement="packed")

    def pairs(count: int) -> float:
        began = time.perf_counter()
        made = scheduler.side_by_side(range(count), lambda _: job(Task(pair, "none", dict(ARGS))))
        assert all(isinstance(done, Answer) for _, done in made)
        return count / (time.perf_counter() - began)

    # The first of them start their worlds.
    pairs(400)
    rate = pairs(1000)
    for left in scheduler.fleet.remote:
        left.hang_up()
    scheduler.close()
    launcher.finish()
    door.close()
    process.wait(30)
    return {"start": started, "cases": cases, "cpu": cpu, "rate": rate, "memory": held}


def plot(rows: list[tuple[int, float, float]]) -> str:
    """Draw a case's time and the controller's CPU time over the ranks, as SVG with logarithmic axes."""
    left, top, wide, high = 60, 30, 380, 220
    low, span = math.log10(0.5), math.log10(200) - math.log10(0.5)
    first, last = (math.log2(rows[at][0]) for at in (0, -1))

    def place(ranks: float, ms: float) -> tuple[float, float]:
        x = left + wide * (math.log2(ranks) - first) / ((last - first) or 1.0)
        return x, top + high * (1 - (math.log10(ms) - low) / span)

    size = f'width="{left + wide + 60}" height="{top + high + 50}"'
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" {size} font-family="sans-serif" font-size="12">'
    ]
    lines.append('<rect width="100%" height="100%" fill="white"/>')
    for ms in (1, 5, 10, 50, 100):
        y = place(rows[0][0], ms)[1]
        colour = "#b00" if ms == AIM else "#ccc"
        lines.append(
            f'<line x1="{left}" x2="{left + wide}" y1="{y:.1f}" y2="{y:.1f}" stroke="{colour}"/>'
        )
        lines.append(f'<text x="{left - 6}" y="{y + 4:.1f}" text-anchor="end">{ms} ms</text>')
    for ranks, *_ in rows:
        x = place(ranks, 1)[0]
        lines.append(f'<text x="{x:.1f}" y="{top + high + 18}" text-anchor="middle">{ranks}</text>')
    lines.append(
        f'<text x="{left + wide / 2}" y="{top + high + 38}" text-anchor="middle">ranks</text>'
    )
    for number, (name, dash) in enumerate((("a case", "none"), ("the controller's CPU", "4"))):
        points = [place(row[0], row[1 + number]) for row in rows]
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
        look = f'fill="none" stroke="#036" stroke-width="2" stroke-dasharray="{dash}"'
        lines.append(f'<polyline points="{path}" {look}/>')
        y = 18 + 14 * number
        lines.append(f'<line x1="{left + 10}" x2="{left + 40}" y1="{y - 4}" y2="{y - 4}" {look}/>')
        lines.append(f'<text x="{left + 46}" y="{y}">{name}</text>')
    return "\n".join([*lines, "</svg>", ""])


def main() -> None:
    parser = arguments(__doc__, repeat=20)
    parser.add_argument("--nodes", type=int, nargs="+", default=[8, 32, 128])
    parser.add_argument("--plot", type=Path, metavar="FILE.svg", help="also draw it")
    parser.add_argument("--ranks-per-node", type=int, default=8)
    parser.add_argument("--stand-in", type=int, metavar="PORT", help="be the nodes")
    parser.add_argument("--json", action="store_true", help="print what one size measures")
    given = parser.parse_args()
    if given.stand_in is not None:
        StandIns(given.stand_in, *given.nodes).serve()
        return
    if given.json:
        print(json.dumps(measure(given.nodes[0], given.ranks_per_node, given.repeat)))
        return
    table = Table("many_nodes", HEADINGS)
    drawn = []
    for nodes in given.nodes:
        # A process of its own for each size, so that memory is that size's.
        words = [sys.executable, __file__, "--json", "--nodes", str(nodes)]
        words += ["--ranks-per-node", str(given.ranks_per_node), "--repeat", str(given.repeat)]
        done = subprocess.run(words, stdout=subprocess.PIPE, text=True, check=True)
        found = json.loads(done.stdout.splitlines()[-1])
        cases = sorted(1000 * seconds for seconds in found["cases"])
        drawn.append((nodes * given.ranks_per_node, cases[len(cases) // 2], 1000 * found["cpu"]))
        table.add(
            nodes,
            nodes * given.ranks_per_node,
            f"{cases[len(cases) // 2]:.1f}",
            f"{cases[-1]:.1f}",
            f"{1000 * found['cpu']:.1f}",
            f"{found['rate']:.0f}",
            f"{1000 * found['start']:.0f}",
            f"{found['memory']:.1f}",
        )
        print(" ".join(table.rows[-1]), flush=True)
    table.notes = [
        (
            f"A case has {given.ranks_per_node} ranks on every node; median and slowest of "
            f"{given.repeat} cases. The stand-ins for the nodes use the same cores."
        ),
    ]
    publish(table, given.markdown)
    if given.plot is not None:
        given.plot.write_text(plot(drawn))


if __name__ == "__main__":
    main()
