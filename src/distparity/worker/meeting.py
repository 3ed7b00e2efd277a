"""Leave a message in the store that torchrun has made, or get it: a process of its own, with torch.

The request comes as one line of JSON on standard input, so that a secret is on no command line; the
answer is one line of JSON.
"""

from __future__ import annotations

import datetime
import json
import sys
from typing import Any


def main() -> None:
    asked: dict[str, Any] = json.loads(sys.stdin.readline())
    import torch.distributed as dist

    store = dist.TCPStore(
        asked["host"],
        asked["port"],
        is_master=asked["serve"],
        timeout=datetime.timedelta(seconds=asked["seconds"]),
        wait_for_workers=False,
    )
    if asked["value"] is None:
        found: str | None = store.get(asked["key"]).decode()
    else:
        store.set(asked["key"], asked["value"])
        found = None
    print(json.dumps({"value": found}), flush=True)
    if asked["serve"]:
        # The store is here: it lasts as long as whoever asked.
        sys.stdin.read()


if __name__ == "__main__":
    main()
