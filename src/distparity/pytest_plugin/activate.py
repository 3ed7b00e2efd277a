"""The small part of the plugin that pytest loads in every run of every project.

The plugin's options have short names (``--device``) that other suites may use too. So the plugin
itself is loaded only in a run that names this package: ``pytest --pyargs distparity``, a path inside
the package, or ``-p distparity.pytest_plugin.plugin``.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from distparity.pytest_plugin import DEVICE, REPORTS

PLUGIN = "distparity.pytest_plugin.plugin"
#: A project may have this in its settings for all runs.
EXPECTATIONS = "distparity_expectations"


def pytest_addoption(parser: Any) -> None:
    declare(parser)


def declare(parser: Any) -> None:
    parser.addini(
        EXPECTATIONS,
        "files of expected failures for distparity, in addition to those of --expectations",
        "paths",
    )
    parser.addini(DEVICE, "the device of distparity.cases that name none", default="auto")
    parser.addini(
        REPORTS, "a folder for the results of distparity.cases, as distparity writes them"
    )


def pytest_pycollect_makeitem(collector: Any, name: str, obj: Any) -> Any:
    # Imported late: most runs of most projects have no cases of distparity. A test file that has some
    # has imported their class.
    declared = sys.modules.get("distparity.core.own_cases")
    if declared is None or type(obj) is not declared.OwnCases:
        return None
    from distparity.pytest_plugin import own

    return own.items(collector, name, obj)


def pytest_load_initial_conftests(early_config: Any, parser: Any, args: list[str]) -> None:
    if not early_config.pluginmanager.has_plugin(PLUGIN) and any(map(_ours, args)):
        early_config.pluginmanager.import_plugin(PLUGIN)
    if early_config.pluginmanager.has_plugin(PLUGIN):
        # Every option of every plug-in is declared by now.
        early_config.pluginmanager.get_plugin(PLUGIN).refuse_unknown(parser, args)


def _ours(argument: str) -> bool:
    if argument == "distparity" or argument.startswith(("distparity.", "distparity::")):
        return True
    if argument.startswith("-"):
        return False
    here = Path(__file__).parents[1]
    path = Path(argument.partition("::")[0])
    return path.exists() and (here == path.resolve() or here in path.resolve().parents)
