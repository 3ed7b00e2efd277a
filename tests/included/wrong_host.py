"""A link or a card that is bad on one host: what ranks on $WRONG_HOST reduce is a little wrong."""

from __future__ import annotations

import os
import socket
from typing import Any

import torch.distributed as dist

_all_reduce = dist.all_reduce


def all_reduce(tensor: Any, *args: Any, **more: Any) -> Any:
    found = _all_reduce(tensor, *args, **more)
    if socket.gethostname() == os.environ.get("WRONG_HOST"):
        tensor.mul_(2)
    return found


dist.all_reduce = all_reduce
