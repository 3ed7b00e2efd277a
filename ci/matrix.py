"""Print the job matrix for a CI system, from the one table that the noxfile reads.

    python ci/matrix.py                     # what a GitHub Actions matrix takes
    python ci/matrix.py --gitlab            # a GitLab child pipeline (JSON is YAML)
    python ci/matrix.py --jenkins           # a line a cell: its name, session, label, Python and options
    python ci/matrix.py --cells             # the cells' names, for ci/check_reports.py
    python ci/matrix.py --tag local --device hpu --python 3.12
    python ci/matrix.py --cells-from cells.toml     # the cells of this file, with each torch

It needs only the standard library, and no installed distparity.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1] / "src"))

from distparity import releases
from distparity.releases.cells import NamedCell, read

#: ``local`` is left out unless asked for: it has no torch of its own to install.
TAGS = ("stable", "nightly")


def jobs(
    tags: list[str], cells: list[NamedCell], python: str, file: str = ""
) -> list[dict[str, str]]:
    """A job for every cell that can be: a row of the table on a device, or a cell of ``file``.

    ``python`` is taken where the row has wheels for it, the row's newest elsewhere.
    """
    found = []
    for row in releases.ROWS:
        for cell in cells if row.tag in tags else []:
            try:
                if row is not releases.LOCAL:
                    releases.source(row, [cell.device])
            except releases.NoSuchCell as error:
                print(f"no job {row.name}-{cell.title}: {error}", file=sys.stderr)
                continue
            chosen = f"--cells {file} --only {cell.name}" if file else f"--device {cell.device}"
            own = any(word.startswith("--wheel") for word in cell.options)
            if cell.device == "cpu" and row is not releases.LOCAL and not own:
                # Some hundred megabytes; the registry's wheel brings CUDA's libraries, about 5 GB.
                chosen += " --wheel cpu"
            fits = python in row.pythons or not row.pythons
            found.append(
                {
                    "cell": f"{row.name}-{cell.title}",
                    "session": row.session,
                    "device": cell.device,
                    "options": chosen,
                    "runner": cell.runner,
                    "python": python if fits else row.pythons[-1],
                }
            )
    return found


def shared(found: list[dict[str, str]], count: int) -> list[dict[str, str]]:
    """``count`` jobs for each job, each with a share of its cases."""
    if count == 1:
        return found
    return [
        job
        | {
            "cell": f"{job['cell']}.shard-{index}-of-{count}",
            "options": f"{job['options']} --shard {index}/{count}",
        }
        for job in found
        for index in range(1, count + 1)
    ]


def names(found: list[dict[str, str]]) -> list[str]:
    """The names of the cells that the jobs make together."""
    return list(dict.fromkeys(job["cell"].partition(".shard-")[0] for job in found))


def jenkins(found: list[dict[str, str]]) -> list[str]:
    """A line a job, of words: a Jenkinsfile can read these without any plugin."""
    words = ("cell", "session", "runner", "python", "options")
    return [
        " ".join((job | {"runner": job["runner"] or job["device"]})[word] for word in words)
        for job in found
    ]


def gitlab(found: list[dict[str, str]], image: str) -> dict[str, Any]:
    """A child pipeline with a job for each cell, and one more that makes the report of all."""
    cells = names(found)
    return {
        "stages": ["cells", "report"],
        **{job["cell"]: _gitlab_job(job, image) for job in found},
        "report": _gitlab_report(cells, image),
    }


def _gitlab_job(job: dict[str, str], image: str) -> dict[str, Any]:
    return {
        "stage": "cells",
        "image": image.format(**job),
        "timeout": "45 minutes",
        # Shares of a cell install the same torch.
        "cache": {"key": f"{job['session']}-{job['device']}", "paths": [".cache/"]},
        "variables": {"UV_CACHE_DIR": ".cache/uv", "PIP_CACHE_DIR": ".cache/pip"},
        "script": [
            "pip install 'nox[uv]'",
            f"nox -s {job['session']} -- {job['options']}",
        ],
        **({"tags": [job["runner"]]} if job["runner"] else {}),
        "artifacts": {
            "when": "always",
            "paths": ["reports/"],
            "reports": {"junit": "reports/*.xml"},
        },
    }


def _gitlab_report(cells: list[str], image: str) -> dict[str, Any]:
    return {
        "stage": "report",
        # Also, and above all, when a cell failed.
        "when": "always",
        "image": image.format(python="3.12"),
        "timeout": "15 minutes",
        "script": [
            "pip install 'nox[uv]'",
            f"nox -s report -- reports -o report --strict {' '.join(cells)}",
        ],
        "artifacts": {"when": "always", "paths": ["report/"]},
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=str(__doc__).partition("\n")[0])
    parser.add_argument("--tag", nargs="+", choices=[*TAGS, "local"], default=TAGS)
    parser.add_argument("--device", nargs="+", default=["cpu"], help="default: cpu")
    parser.add_argument("--python", default="3.12", help="default: %(default)s")
    parser.add_argument("--image", default="python:{python}", help="of GitLab jobs")
    parser.add_argument("--cells-from", metavar="FILE", help="TOML, in place of --device")
    parser.add_argument("--shards", type=int, default=1, metavar="N", help="N jobs for each cell")
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--gitlab", action="store_true")
    form.add_argument("--jenkins", action="store_true")
    form.add_argument("--cells", action="store_true")
    given = parser.parse_args()
    try:
        cells = read(Path(given.cells_from)) if given.cells_from else None
    except releases.NoSuchCell as error:
        parser.error(str(error))
    named = cells or [NamedCell(device, device) for device in given.device]
    found = jobs(given.tag, named, given.python, given.cells_from or "")
    if not found:
        parser.error("there is no such cell")
    if given.shards < 1:
        parser.error(f"--shards {given.shards}: it must be at least 1")
    found = shared(found, given.shards)
    if given.cells:
        print(*names(found))
    elif given.jenkins:
        print("\n".join(jenkins(found)))
    elif given.gitlab:
        print(json.dumps(gitlab(found, given.image), indent=2))
    else:
        print(json.dumps({"include": found}))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
