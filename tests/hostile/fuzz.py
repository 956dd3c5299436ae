"""`make fuzz`: hostile bodies, mutated bodies and mutated files, one after the other, for a time.

Usage: python -m tests.hostile.fuzz [--seconds N] [--seed N] [--keep FOLDER] [--share F] [--published FOLDER].
What is found is written to FOLDER (a file each) and printed. share: how much of a round is done, which else is 260
inputs. published: a repository of models to change the files of; without one, the examples are published first.
Exit status: 0 when nothing was found.
"""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from hypothesis import HealthCheck, Phase, given, seed, settings

from examples import train
from tests.hostile import bodies, files, mutations, probe
from tests.hostile.models import MODELS
from tests.spellings import Request, spellings

PROJECT = Path(__file__).resolve().parents[2]
ROWS = {
    "numbers": [[0.5, 1.0, -2.0, 3e9]] * 3,
    "mixed": [[1.5, 3, "a", "red", 2, True, "2020-01-01"], [None, None, None, "pale", 1, False, None]] * 2,
    "words": [list("abcdefg"), [None] * 7],
}
"""Rows whose requests are mutated, in every format."""


class Fuzz:
    """Counts what was sent and loaded, and keeps what took too much, died or raised."""

    def __init__(self, number: int, keep: Path) -> None:
        self._seed, self._keep = number, keep
        self.seen: Counter[str] = Counter()
        self.found: list[str] = []

    def note(self, kind: str, problem: str, content: bytes) -> None:
        """Count one input, and keep it if there is a problem."""
        self.seen[kind] += 1
        if problem:
            self._keep.mkdir(parents=True, exist_ok=True)
            file = self._keep / f"{kind.replace(' ', '-').replace('/', '-')}-{len(self.found)}"
            file.write_bytes(content)
            self.found.append(f"{kind}: {problem} ({file})")
            print(self.found[-1], flush=True)

    def generated(self, server: probe.Probe, number: int, many: int) -> None:
        """Send bodies of the strategies of `bodies`."""

        @seed(number)
        @settings(max_examples=many, deadline=None, database=None, phases=(Phase.generate,),
                  suppress_health_check=list(HealthCheck))  # fmt: skip
        @given(bodies.hostile_requests())
        def send(sent: tuple[str, Request]) -> None:
            model, request = sent
            self.note("generated body", probe.problem(server, request, model)[0], request.body)

        send()

    def mutated_bodies(self, server: probe.Probe, chance: random.Random, many: int) -> None:
        """Send changed requests of every format."""
        for _ in range(many):
            model = chance.choice(sorted(ROWS))
            whole = [(n, r) for n, r in spellings(MODELS[model], ROWS[model], chance) if r.body]
            name, request = chance.choice(whole)
            changed = Request(request.path, mutations.in_bytes(request.body, chance), request.headers)
            self.note(f"body {name}", probe.problem(server, changed, model)[0], changed.body)

    def mutated_files(self, tried: files.Files, chance: random.Random, many: int) -> None:
        """Load changed files of every kind."""
        for kind in files.KINDS:
            for _ in range(many // len(files.KINDS)):
                content = tried.changed(kind, chance)
                self.note(f"file {kind}", tried.problem(kind, content), content)


def examples(folder: Path, root: Path | None) -> list[files.Files]:
    """The example models, published, each with the MLflow directory of the test data."""
    if root is None:
        root = folder / "published"
        train.publish_all(root)
    mlflow = PROJECT / "tests/data/mlflow/iris_skops"
    return [files.Files(each / "1", mlflow, folder / each.name, each.name) for each in sorted(root.iterdir())]


def main() -> int:
    """Run for the time. Return the exit status."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--keep", type=Path, default=Path(tempfile.gettempdir()) / "tableside-fuzz")
    parser.add_argument("--share", type=float, default=1.0)
    parser.add_argument("--published", type=Path)
    given_ = parser.parse_args()
    chance, fuzz = random.Random(given_.seed), Fuzz(given_.seed, given_.keep)
    end_s = time.monotonic() + given_.seconds
    with tempfile.TemporaryDirectory(prefix="ts-fuzz-") as folder:
        tried = examples(Path(folder), given_.published)
        with probe.Probe(Path(folder) / "run") as server:
            rounds: list[Callable[[], None]] = [
                lambda: fuzz.generated(server, chance.randrange(2**32), int(40 * given_.share)),
                lambda: fuzz.mutated_bodies(server, chance, int(100 * given_.share)),
                lambda: fuzz.mutated_files(chance.choice(tried), chance, int(120 * given_.share)),
            ]
            while time.monotonic() < end_s:
                for each in rounds:
                    each()
    for kind, count in sorted(fuzz.seen.items()):
        print(f"  {count:6d}  {kind}")
    print(f"fuzz: {fuzz.seen.total()} inputs, seed {given_.seed}, {len(fuzz.found)} found")
    return 1 if fuzz.found else 0


if __name__ == "__main__":
    sys.exit(main())
