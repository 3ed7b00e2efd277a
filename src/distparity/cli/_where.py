"""The options of all subcommands that run cases: where, and which cases."""

from __future__ import annotations

import argparse

from distparity.session import arguments

_SHARED = ("--device", "--device-plugin", "--world-size", "--case-timeout", "--include", "--select")


def add_where(parser: argparse.ArgumentParser, *more: str, **defaults: str) -> None:
    arguments.declare(parser.add_argument, *_SHARED, "--scenario", *more, **defaults)
