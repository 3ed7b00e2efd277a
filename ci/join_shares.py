"""Join the shares of cells (--shard) under a folder, before its XML is read.

    python ci/join_shares.py reports

What cannot be joined is printed. Its cell stays absent, which ``--strict`` and ci/check_reports.py tell.
The XML of shares is removed, and their side files stay. It needs only the standard library.
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "src"))

from distparity.results import join, junit_writer


def main(folder: Path) -> int:
    cells: dict[str, list[Path]] = {}
    for path in sorted(folder.rglob("*.shard-*.jsonl")):
        cells.setdefault(path.name.partition(".shard-")[0], []).append(path)
    for name, paths in cells.items():
        try:
            for joined in join.join(paths):
                print(
                    f"{name}: {len(paths)} shares, joined in {junit_writer.write_from_journal(joined)}"
                )
        except (OSError, ValueError) as error:
            print(f"{name}: {error}", file=sys.stderr)
        for path in paths:
            path.with_suffix(".xml").unlink(missing_ok=True)
    return 0


if __name__ == "__main__":
    raise SystemExit(main(Path(sys.argv[1])))
