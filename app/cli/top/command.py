"""The command `tableside top`."""

from __future__ import annotations

import sys
import time
from pathlib import Path

import click

from tableside.cli import remote
from tableside.cli.options import json_option
from tableside.cli.reload import find_stack
from tableside.cli.remote import Remote, remote_options
from tableside.settings import load

ANSWER_TIMEOUT_S = 10.0
"""How long an answer may take. A worker answers within milliseconds; without one the screen says so."""
WIDTH = 120
"""Of the lines where standard output is no terminal."""
SORT_NAMES = ("rate", "errors", "p99", "queue", "model")


@click.command()
@click.option(
    "--interval", type=click.FloatRange(0.2, 3600), default=2.0, show_default=True, help="Seconds between two looks."
)
@click.option("--sort", type=click.Choice(SORT_NAMES), default="rate", show_default=True, help="Order of the models.")
@click.option(
    "--once", is_flag=True, help="Print one frame after one interval. This is the default where output is no terminal."
)
@remote_options
@json_option
def top(interval: float, sort: str, once: bool, to: str | None, key_file: Path | None, as_json: bool) -> None:
    """Show what the stack does now: requests, errors, latency and queue of each model, and each worker.

    Keys: q ends it, s sorts by the next column, up, down, page up and page down scroll, g goes to the first model.
    """
    if to:
        fixed = remote.of_url(to, key_file, ANSWER_TIMEOUT_S)
        name = to
    else:
        settings = load()
        name = find_stack(settings).admin_listen

    def server() -> Remote:
        return fixed if to else remote.of_stack(settings, find_stack(settings), ANSWER_TIMEOUT_S)

    if once or as_json or not sys.stdout.isatty():
        _print_once(server(), name, interval, sort, as_json)
        return
    from tableside.cli.top import live

    live.run(server, name, interval, sort)


def _print_once(server: Remote, name: str, interval_s: float, sort: str, as_json: bool) -> None:
    from tableside.cli import render
    from tableside.cli.top import samples
    from tableside.cli.top.differences import between

    before = samples.take(server)
    time.sleep(interval_s)
    view = between(name, before, samples.take(server))
    if as_json:
        import msgspec

        render.as_json(msgspec.to_builtins(view))
        return
    from rich.console import Console

    from tableside.cli.top.screen import Frame

    console = Console(width=None if sys.stdout.isatty() else WIDTH, highlight=False)
    console.print(Frame(view, console.width, sort=sort).draw())
