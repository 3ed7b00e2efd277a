"""The fork server finds no room for some of them: ``NO_ROOM`` has their numbers."""

from __future__ import annotations

import errno
import itertools
import os

REFUSED = [int(number) for number in os.environ["NO_ROOM"].split(",")]
_fork = os.fork
_fork_server = os.getpid()
_forks = itertools.count(1)


def _try() -> int:
    if os.getpid() == _fork_server and next(_forks) in REFUSED:
        raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))
    return _fork()


os.fork = _try
