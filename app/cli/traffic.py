"""The commands that try a version on a part of a model's traffic: traffic and shadow."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import click

from tableside.cli import release_steps, remote_commands, render
from tableside.cli.local_audit import Given, audited
from tableside.cli.options import breaking_option, json_option, repository_option
from tableside.cli.release_steps import Place
from tableside.cli.remote_commands import at_server_change

if TYPE_CHECKING:
    from tableside.repository.release_edits import Change
    from tableside.repository.traffic_edits import Kind

PERCENT = click.FloatRange(0, 100)


def changes_trial(given: Given) -> bool:
    """Return whether a command changes the traffic, and does not only show it."""
    return any(given.get(name) is not None for name in ("canary", "percent", "sticky", "cpu_share")) or bool(
        given["stop"]
    )


@click.command()
@click.argument("name")
@click.option("--canary", metavar="VERSION", help="The version that answers a part of the requests: number or alias.")
@click.option("--percent", type=PERCENT, help="How large that part is.")
@click.option("--sticky", metavar="HEADER", help="Requests with the same value of this header get the same version.")
@click.option("--stop", is_flag=True, help="End the canary.")
@breaking_option
@repository_option
@json_option
@at_server_change(remote_commands.traffic)
@audited("traffic", "name", changes_trial)
def traffic(
    name: str, canary: str | None, percent: float | None, sticky: str | None, stop: bool, breaking: bool,
    repository: Path | None, as_json: bool,
) -> None:  # fmt: skip
    """Let a version of the model NAME answer a part of the requests that name no version, or change or end that.

    Without options, show what is in force and what was counted. A larger --percent keeps the callers that the canary
    answered before. A canary whose requests fail clearly more often than the rules allow is ended by itself.
    """
    from tableside.repository import model_toml, traffic_edits

    place = release_steps.find_place(repository)
    name = release_steps.find_model(place, name)
    if stop:
        _stop(place, name, "canary", as_json)
        return
    if canary is None and percent is None and sticky is None:
        _show(place, name, as_json)
        return
    now = model_toml.read(place.root, name).canary
    if canary is None and now is not None:
        canary = str(now.version)
    percent = percent if percent is not None or now is None else now.percent
    if canary is None or percent is None:
        release_steps.refuse(f"say which version gets how much: `tableside traffic {name} --canary N --percent 5`")
    _, version = release_steps.find_version(place, f"{name}/{canary}", f"traffic {name} --canary")
    share = percent
    _begin(
        place, name, version, as_json,
        lambda: traffic_edits.set_canary(place.root, name, version, share, sticky, _now(), breaking=breaking),
        f"{name}/{version} answers {share:g} % of the requests without a version. Watch: `tableside traffic {name}`. "
        f"Back: `tableside traffic {name} --stop`",
    )  # fmt: skip


@click.command()
@click.argument("model")
@click.option("--percent", type=PERCENT, help="How many of the answered requests are computed once more.")
@click.option(
    "--cpu-share", type=click.FloatRange(0, 1, min_open=True),
    help="How much of one core each worker may spend on it, as a fraction. Default: 0.05.",
)  # fmt: skip
@click.option("--stop", is_flag=True, help="End the shadow.")
@repository_option
@json_option
@at_server_change(remote_commands.shadow)
@audited("shadow", "model", changes_trial)
def shadow(
    model: str, percent: float | None, cpu_share: float | None, stop: bool, repository: Path | None, as_json: bool
) -> None:
    """Let MODEL, which is NAME/VERSION or NAME@ALIAS, compute a part of the requests once more, and compare.

    The answers have gone by then, and clients notice nothing. MODEL may be a NAME with --stop, which ends it, and
    without options, which shows what is in force and what was counted.
    """
    from tableside.repository import paths, traffic_edits

    place = release_steps.find_place(repository)
    name = release_steps.find_model(place, paths.split_spec(model)[0])
    if stop:
        _stop(place, name, "shadow", as_json)
        return
    if percent is None and cpu_share is None:
        _show(place, name, as_json)
        return
    name, version = release_steps.find_version(place, model, "shadow")
    if percent is None:
        release_steps.refuse(f"say how many requests: `tableside shadow {name}/{version} --percent 20`")
    share = percent
    _begin(
        place, name, version, as_json,
        lambda: traffic_edits.set_shadow(place.root, name, version, share, cpu_share, _now()),
        f"{name}/{version} computes {share:g} % of the requests once more. Watch: `tableside shadow {name}`. Back: "
        f"`tableside shadow {name} --stop`",
    )  # fmt: skip


def _now() -> datetime:
    return datetime.now(UTC).replace(microsecond=0)


def _begin(place: Place, name: str, version: int, as_json: bool, make: Callable[[], Change], sentence: str) -> None:
    """Begin or change a canary or shadow when every worker has loaded its version. If one cannot, nothing changes."""
    release_steps.require_sound(place, name, version)
    change, workers = release_steps.make(place, name, make, f"the trial of {name}/{version}", [(name, version)])
    release_steps.report(place, as_json, workers, sentence, {"name": name, "version": version, "before": change.former})


def _stop(place: Place, name: str, kind: Kind, as_json: bool) -> None:
    from tableside.repository import traffic_edits

    edit = partial(traffic_edits.stop, place.root, name, kind)
    change, workers = release_steps.make(place, name, edit, f"{name} without a {kind}")
    sentence = f"{name}/{change.former} is not the {kind} any more"
    release_steps.report(place, as_json, workers, sentence, {"name": name, "version": change.former, "stopped": kind})


def _show(place: Place, name: str, as_json: bool) -> None:
    """Print what is in force of a model's traffic, with what was counted."""
    import msgspec

    from tableside.repository import model_toml
    from tableside.serving import traffic_report

    report = traffic_report.report(place.settings.run_dir, name, model_toml.read(place.root, name))
    if as_json:
        render.as_json(msgspec.to_builtins(report))
        return
    from tableside.cli import traffic_lines

    for line in traffic_lines.lines(report):
        click.echo(line)
