"""`tableside push`: publishes a version, or an estimator with its sample, on a server on another machine."""

from __future__ import annotations

import hashlib
import tarfile
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import IO

import click

from tableside import sizes
from tableside.cli import models, remote, render, step_progress
from tableside.cli.options import breaking_option, json_option, repository_option
from tableside.cli.remote import Content, part, remote_options, wait_for_end
from tableside.errors import PublishFailed, StackError

_IN_MEMORY_BYTES = 1 << 24


class _Counted:
    """A file that is sent, and shows how much of it is gone."""

    def __init__(self, file: IO[bytes], size: int, step: Callable[[str], None]) -> None:
        self._file, self._size, self._sent, self._step = file, size, 0, step

    def read(self, size: int = -1, /) -> bytes:
        """Read up to `size` bytes."""
        from tableside.publishing.progress import show_share

        content = self._file.read(size)
        self._sent += len(content)
        show_share(self._step, self._sent, self._size)
        return content


@click.command()
@click.argument("name")
@click.argument("what")
@click.option("--sample", type=click.Path(path_type=Path), help="The sample for a file with a model: .csv or .parquet.")
@click.option("--target", help="Name of the target column, which is dropped from the sample.")
@click.option("--next", "renumber", is_flag=True, help="Give a version the model's next number, and not its own.")
@breaking_option
@remote_options
@repository_option
@json_option
def push(
    name: str, what: str, sample: Path | None, target: str | None, renumber: bool, breaking: bool, to: str | None,
    key_file: Path | None, repository: Path | None, as_json: bool,
) -> None:  # fmt: skip
    """Publish WHAT as a version of the model NAME on the server at --to.

    WHAT is a version or an alias of NAME in the repository here, the folder of a version, a training record, or with
    --sample a skops file, an ONNX graph or a booster's own file. The server checks it as it would load it, and the
    command returns when its workers have decided.
    """
    if not to:
        raise StackError(f"say where to: --to https://HOST:PORT, or set {remote.URL_VARIABLE}")
    server = remote.of_url(to, key_file)
    files = _files(name, what, sample, repository)
    query = {"number": "next" if renumber else "keep", **({"target": target} if target else {})}
    query |= {"breaking": "true"} if breaking else {}
    with step_progress.progress() as step, tempfile.SpooledTemporaryFile(_IN_MEMORY_BYTES) as packed:
        step(f"packing {len(files)} files")
        _pack(files, packed)
        size = packed.tell()
        packed.seek(0)
        digest = hashlib.file_digest(packed, "sha256").hexdigest() if size else ""
        packed.seek(0)
        step(f"sending {sizes.in_words(size)} to {server.name}")
        answer = server.ask(
            "POST", f"models/{part(name)}/versions", {**query, "sha256": digest},
            body=_Counted(packed, size, step), size=size,
        )  # fmt: skip
        done = wait_for_end(server, answer.or_raise(), step)
    if as_json:
        render.as_json(done)
    else:
        _print(done, server.name)
    if done.get("state") != "READY" and done.get("workers"):
        raise SystemExit(1)


def _files(name: str, what: str, sample: Path | None, repository: Path | None) -> list[tuple[Path, str]]:
    """Return the files to send, each with its name in the archive. Raises PublishFailed or ModelNotFound."""
    path = Path(what)
    if path.is_file():
        if sample is None:
            raise PublishFailed(f"{what} needs a sample with rows like the training data: --sample FILE")
        if not sample.is_file() or sample.suffix not in (".csv", ".parquet"):
            raise PublishFailed(f"{sample} is no .csv or .parquet file")
        return [(path, path.name), (sample, f"sample{sample.suffix}")]
    if sample is not None:
        raise PublishFailed(f"--sample goes with a file that holds a model, and {what} is none")
    if not path.is_dir() or what.isdigit():
        wanted = what.removeprefix(f"{name}/").removeprefix(f"{name}@")  # as other commands take it
        root, found, number = models.find(f"{name}/{wanted}", repository)
        path = root / found / str(number)
    files = sorted(each for each in path.rglob("*") if each.is_file() and "__pycache__" not in each.parts)
    if not files:
        raise PublishFailed(f"{path} has no files")
    return [(each, str(each.relative_to(path))) for each in files]


def _pack(files: Sequence[tuple[Path, str]], into: IO[bytes]) -> None:
    """Write a tar file of ordinary files: links are followed, and owners and times are left out."""
    with tarfile.open(fileobj=into, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for path, name in files:
            member = tarfile.TarInfo(name)
            with path.open("rb") as file:
                member.size = path.stat().st_size
                archive.addfile(member, file)


def _print(done: Content, where: str) -> None:
    version = f"{done.get('name')}/{done.get('version')}"
    was_there = " (it had exactly this version already)" if done.get("was_there") else ""
    click.echo(f"published {version} on {where}{was_there}")
    outputs = done.get("outputs")
    listed = ", ".join(map(str, outputs)) if isinstance(outputs, list) else ""
    click.echo(f"  {done.get('estimator')}: {done.get('columns')} columns, {listed}")
    click.echo(
        f"  {done.get('golden_rows')} golden rows, artifact {sizes.in_words(int(str(done.get('size_bytes', 0))))}"
    )
    notes = done.get("notes")
    for note in notes if isinstance(notes, list) else []:
        click.echo(f"note: {note}")
    if not done.get("workers"):
        click.echo(f"no worker is running there: the next start serves {version}")
    elif done.get("state") == "READY":
        click.echo(f"served by {done.get('workers')} workers, generation {done.get('generation')}")
    else:
        click.echo(f"{version} is {done.get('state') or 'not served'}: {done.get('reason')}", err=True)
