"""What the controller adds to a case over several nodes, with real ranks and with stand-ins.

Real ranks are forked on two hosts (network namespaces on this machine; needs root) that join by
``distparity join``. They have torch and a process group, and a task that only asks a device a constant.

The stand-ins for many nodes are one other process on this machine. They join as nodes do (TLS, the token,
frames), and their ranks answer every task at once: no torch, no fork. The door, the scheduler, its worlds
and the controller's end of each node are those of a run in both.
"""

from __future__ import annotations

import contextlib
import functools
import json
import math
import resource
import select
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

import two_hosts
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
ARGS = {"device": "cpu", "scenario": "multiple_forward", "more": "x" * 400}
#: A task in which a rank does next to nothing.
TASK = "patience"
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


#: Where the controller listens, and what makes the nodes join at a port: returns what waits for their end.
Where = tuple[str, Callable[[int], Callable[[], object]]]


@contextlib.contextmanager
def stand_ins(count: int) -> Iterator[Where]:
    """``count`` nodes in one process."""

    def join(port: int) -> Callable[[], object]:
        words = [sys.executable, __file__, "--stand-in", str(port), "--nodes", str(count)]
        return functools.partial(subprocess.Popen(words).wait, 30)

    yield "127.0.0.1", join


@contextlib.contextmanager
def real() -> Iterator[Where]:
    """Two hosts on which ``distparity join`` forks ranks."""
    with two_hosts.two_hosts() as hosts, tempfile.TemporaryDirectory() as place:
        address = f"{hosts.net}.254"
        token = Path(place, "token")
        token.write_text(TOKEN)
        token.chmod(0o600)

        def join(port: int) -> Callable[[], object]:
            words = [sys.executable, "-m", "distparity", "join", f"{address}:{port}"]
            words += ["--token-file", str(token)]
            made = [hosts.start(host, words, Path(place, f"log{host}")) for host in (1, 2)]
            return lambda: [one.wait(30) for one in made]

        yield address, join


def measure(where: Where, nodes: int, each: int, repeat: int, count: int) -> dict[str, Any]:
    """One size: seconds of each case on all ranks, cases of two ranks a second, and memory.

    The rate is that of ``count`` cases.
    """
    before = memory()
    address, join = where
    door = Door(TOKEN, address, 0, lambda _: "")
    launcher = FakeLauncher()
    scheduler = Scheduler(launcher, room=nodes * each)
    scheduler.fleet.takers.clear()
    ended = join(door.port)
    for number in range(1, nodes + 1):
        guest = door.guests.get(timeout=60)
        node = RemoteNode(number, str(guest.about["name"]), guest, launcher.setup)
        scheduler.add_node(node, cores=each)
    while len(scheduler.fleet.takers) < nodes:
        scheduler.turn(0.1)
    scheduler.fleet.cpu_ranks = each

    def one(size: int) -> float:
        began = time.perf_counter()
        done = scheduler.run(job(Task(Spec("cpu", size, placement="spread"), TASK, dict(ARGS))))
        assert isinstance(done, Answer)
        assert len(done.results) == size
        return time.perf_counter() - began

    started = one(nodes * each)
    cpu = time.process_time()
    cases = [one(nodes * each) for _ in range(repeat)]
    cpu = (time.process_time() - cpu) / repeat
    held = memory() - before
    pair = Spec("cpu", 2, placement="packed")

    def pairs(number: int) -> float:
        began = time.perf_counter()
        made = scheduler.side_by_side(range(number), lambda _: job(Task(pair, TASK, dict(ARGS))))
        assert all(isinstance(done, Answer) for _, done in made)
        return number / (time.perf_counter() - began)

    # The first of them start their worlds.
    pairs(count // 2)
    rate = pairs(count)
    for left in scheduler.fleet.remote:
        left.hang_up()
    scheduler.close()
    launcher.finish()
    door.close()
    ended()
    return {"start": started, "cases": cases, "cpu": cpu, "rate": rate, "memory": held}


#: Of one size: its ranks, and milliseconds of a case and of the controller's CPU time.
Point = tuple[int, float, float]


def plot(stand_ins: list[Point], real: list[Point]) -> str:
    """Draw a case's time and the controller's CPU time over the ranks, as SVG with logarithmic axes."""
    left, top, wide, high = 60, 58, 420, 220
    low, span = math.log10(0.5), math.log10(200) - math.log10(0.5)
    sizes = [point[0] for point in (*real, *stand_ins)]
    first, last = math.log2(sizes[0]), math.log2(sizes[-1])

    def place(ranks: float, ms: float) -> tuple[float, float]:
        x = left + wide * (math.log2(ranks) - first) / ((last - first) or 1.0)
        return x, top + high * (1 - (math.log10(ms) - low) / span)

    size = f'width="{left + wide + 60}" height="{top + high + 50}"'
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" {size} font-family="sans-serif" font-size="12">'
    ]
    lines.append('<rect width="100%" height="100%" fill="white"/>')
    for ms in (1, 5, 10, 50, 100):
        y = place(sizes[0], ms)[1]
        colour = "#b00" if ms == AIM else "#ccc"
        lines.append(
            f'<line x1="{left}" x2="{left + wide}" y1="{y:.1f}" y2="{y:.1f}" stroke="{colour}"/>'
        )
        lines.append(f'<text x="{left - 6}" y="{y + 4:.1f}" text-anchor="end">{ms} ms</text>')
    for ranks in sizes:
        x = place(ranks, 1)[0]
        lines.append(f'<text x="{x:.1f}" y="{top + high + 18}" text-anchor="middle">{ranks}</text>')
    lines.append(
        f'<text x="{left + wide / 2}" y="{top + high + 38}" text-anchor="middle">ranks</text>'
    )
    drawn = (
        ("a case, stand-ins", "#036", "none", 1, stand_ins),
        ("the controller's CPU, stand-ins", "#036", "4", 2, stand_ins),
        ("a case, real ranks", "#a50", "none", 1, real),
        ("the controller's CPU, real ranks", "#a50", "4", 2, real),
    )
    for number, (name, colour, dash, which, points) in enumerate(drawn):
        if not points:
            continue
        path = " ".join("{:.1f},{:.1f}".format(*place(one[0], one[which])) for one in points)
        look = f'fill="none" stroke="{colour}" stroke-width="2" stroke-dasharray="{dash}"'
        lines.append(f'<polyline points="{path}" {look}/>')
        y = 14 + 13 * number
        lines.append(f'<line x1="{left + 10}" x2="{left + 40}" y1="{y - 4}" y2="{y - 4}" {look}/>')
        lines.append(f'<text x="{left + 46}" y="{y}">{name}</text>')
    return "\n".join([*lines, "</svg>", ""])


def main() -> None:
    parser = arguments(__doc__, repeat=20)
    parser.add_argument("--nodes", type=int, nargs="*", default=[8, 32, 128])
    parser.add_argument(
        "--plot", type=Path, metavar="FILE.svg", help="draw what FILE of --markdown has"
    )
    parser.add_argument("--ranks-per-node", type=int, default=8)
    parser.add_argument(
        "--real", type=int, nargs="*", default=[2, 4, 8, 16], help="real ranks over two nodes"
    )
    parser.add_argument("--stand-in", type=int, metavar="PORT", help="be the nodes")
    parser.add_argument("--json", action="store_true", help="print what one size measures")
    given = parser.parse_args()
    if given.stand_in is not None:
        StandIns(given.stand_in, *given.nodes).serve()
        return
    if given.json:
        nodes, each = given.nodes[0], given.ranks_per_node
        joined = real() if given.real else stand_ins(nodes)
        with joined as where:
            count = 200 if given.real else 1000
            print(json.dumps(measure(where, nodes, each, given.repeat, count)))
        return
    what = (
        f"A case is on all ranks, which do next to nothing; median and slowest of {given.repeat}."
    )
    why = two_hosts.why_not() if given.real else ""
    if given.real and not why:
        table = Table("real_nodes", HEADINGS)
        table.notes = [what, "Ranks with torch, in a process group over two hosts on this machine."]
        _fill(table, [(2, ranks // 2) for ranks in given.real], given.repeat, real=True)
        publish(table, given.markdown)
    elif why:
        print(f"real ranks: {why}")
    if given.nodes:
        table = Table("many_nodes", HEADINGS)
        table.notes = [what, "The stand-ins for the nodes use the same cores."]
        sizes = [(nodes, given.ranks_per_node) for nodes in given.nodes]
        _fill(table, sizes, given.repeat, real=False)
        publish(table, given.markdown)
    if given.plot is not None and given.markdown is not None:
        page = given.markdown.read_text()
        given.plot.write_text(plot(_points(page, "many_nodes"), _points(page, "real_nodes")))


def _fill(table: Table, sizes: list[tuple[int, int]], repeat: int, *, real: bool) -> None:
    """A row for each size, which is a number of nodes and of ranks on each."""
    for nodes, each in sizes:
        # A process of its own for each size, so that memory is that size's.
        words = [sys.executable, __file__, "--json", "--nodes", str(nodes)]
        words += ["--ranks-per-node", str(each), "--repeat", str(repeat)]
        words += ["--real", *(["2"] if real else [])]
        done = subprocess.run(words, stdout=subprocess.PIPE, text=True, check=True)
        found = json.loads(done.stdout.splitlines()[-1])
        cases = sorted(1000 * seconds for seconds in found["cases"])
        table.add(
            nodes,
            nodes * each,
            f"{cases[len(cases) // 2]:.1f}",
            f"{cases[-1]:.1f}",
            f"{1000 * found['cpu']:.1f}",
            f"{found['rate']:.0f}",
            f"{1000 * found['start']:.0f}",
            f"{found['memory']:.1f}",
        )
        print(" ".join(table.rows[-1]), flush=True)


def _points(page: str, name: str) -> list[Point]:
    """The rows of a table in a page."""
    there = page.partition(f"<!-- {name} -->")[2].partition(f"<!-- /{name} -->")[0]
    rows = [line.strip("| ").split(" | ") for line in there.splitlines() if line.startswith("| ")]
    return [(int(row[1]), float(row[2]), float(row[4])) for row in rows if row[0].isdecimal()]


if __name__ == "__main__":
    main()
