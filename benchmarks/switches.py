"""Switches a model between two versions under load: what fails, what goes back, and how long a switch takes.

    python -m benchmarks.switches --switches 100

starts a stack of two workers with a model of two versions, and moves its alias `default` between both while clients
send requests. Some workers are killed while they prepare. It prints one line of figures.
"""

from __future__ import annotations

import argparse
import http.client
import itertools
import json
import os
import signal
import statistics
import tempfile
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
from sklearn.linear_model import LogisticRegression

from benchmarks.soak.stack import Stack
from tableside.process import worker_slots
from tableside.publishing.publish import publish
from tableside.repository import release_edits
from tableside.serving import changes
from tableside.serving.generations import Generations
from tableside.settings import Settings, load
from tableside.telemetry import logs

CLIENTS = 6
GIVE_UP_S = 240.0


@dataclass
class Figures:
    """What happened. wrong: a line for each answer that should not be. seconds: of each switch, from call to store."""

    answered: int = 0
    wrong: list[str] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    by_version: dict[str, int] = field(default_factory=dict)
    killed: int = 0
    slowest_s: float = 0.0


class SwitchedModel:
    """Clients of one model, and the switches of its alias `default`.

    answers: by `name/version`, the answer of that version to `body`. They must differ.
    """

    def __init__(self, settings: Settings, port: int, name: str, body: object, answers: Mapping[str, object]) -> None:
        self.figures = Figures()
        self._settings, self._port, self._name = settings, port, name
        self._body, self._answers = json.dumps(body), answers
        self._newest = 0
        self._lock = threading.Lock()
        self._stop = threading.Event()

    def run(self, switches: int, requests: int, kill_at: frozenset[int] = frozenset()) -> Figures:
        """Make so many switches while clients send at least so many requests. kill_at: the switches that kill a worker.

        Raises what `changes.apply` raises.
        """
        logs.configure("text", "warning")  # a line for each switch would hide the figures
        clients = [threading.Thread(target=self._client) for _ in range(CLIENTS)]
        for client in clients:
            client.start()
        try:
            for number, version in zip(range(switches), itertools.cycle((2, 1))):
                self._switch(version, number in kill_at)
            give_up_at_s = time.monotonic() + GIVE_UP_S
            while self.figures.answered < requests and time.monotonic() < give_up_at_s:
                time.sleep(0.05)
        finally:
            self._stop.set()
            for client in clients:
                client.join(60)
        return self.figures

    def _switch(self, version: int, kills: bool) -> None:
        root = self._settings.repository_path
        edit = partial(release_edits.move_alias, root, self._name, "default", version)
        killer = threading.Thread(target=self._kill_while_preparing) if kills else None
        if killer is not None:
            killer.start()
            time.sleep(0.05)
        applied = changes.apply(self._settings, self._name, edit, "a switch", [(self._name, version)])
        self.figures.seconds.append(applied.outcome.seconds)
        if killer is not None:
            killer.join(60)

    def _kill_while_preparing(self) -> None:
        """Kill a worker as soon as it is asked to prepare. Waits first until all workers serve."""
        made, slots = Generations.open(self._settings.run_dir), self._settings.run_dir / "worker_slots"
        wanted = self._settings.server.workers
        self._until(lambda: len(made.words.serving(worker_slots.held(slots))) >= wanted)
        victim = next(iter(made.words.serving(worker_slots.held(slots)).values()))
        self._until(lambda: made.words.proposed > made.words.current)
        os.kill(victim, signal.SIGKILL)
        self.figures.killed += 1

    @staticmethod
    def _until(condition: Callable[[], bool]) -> None:
        give_up_at_s = time.monotonic() + GIVE_UP_S
        while not condition() and time.monotonic() < give_up_at_s:
            time.sleep(0.001)

    def _client(self) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=60)
        path, last = f"/v1/models/{self._name}:predict", 0
        while not self._stop.is_set():
            floor, began_s = self._newest, time.monotonic()
            try:
                connection.request("POST", path, self._body)
                answer = connection.getresponse()
                content = json.loads(answer.read())
            except (OSError, http.client.HTTPException, ValueError) as problem:
                self._note("", 0, f"{type(problem).__name__}: {problem}", began_s)
                connection.close()
                continue
            served, generation = (
                answer.headers["X-Tableside-Served"],
                int(answer.headers["X-Tableside-Generation"] or 0),
            )
            wrong = self._wrong(answer.status, served, generation, max(last, floor), content)
            self._note(served, generation, wrong, began_s)
            last = max(last, generation)
        connection.close()

    def _wrong(self, status: int, served: str, generation: int, floor: int, content: object) -> str:
        if status != 200:
            return f"status {status}: {content}"
        if generation < floor:
            return f"generation {generation} after {floor}"
        return "" if content == self._answers.get(served) else f"{served} answered {content}"

    def _note(self, served: str, generation: int, wrong: str, began_s: float) -> None:
        with self._lock:
            figures = self.figures
            figures.answered += 1
            figures.slowest_s = max(figures.slowest_s, time.monotonic() - began_s)
            figures.by_version[served] = figures.by_version.get(served, 0) + 1
            self._newest = max(self._newest, generation)
            if wrong:
                figures.wrong.append(wrong)


def line_of(figures: Figures) -> str:
    """Return the figures as one line."""
    times_ms = sorted(1000 * each for each in figures.seconds)
    return (
        f"{len(times_ms)} switches, {figures.answered} requests, {len(figures.wrong)} failed or went back, "
        f"{figures.killed} workers killed; a switch takes {statistics.median(times_ms):.0f} ms in the median, "
        f"{times_ms[-1]:.0f} ms at worst; the slowest request took {1000 * figures.slowest_s:.0f} ms"
    )


def publish_two(root: Path) -> tuple[object, dict[str, object]]:
    """Publish two versions of a model `m` that answer differently, and point `default` at the first.

    Returns a body of 8 rows, and the answer of each version to it by `name/version`.
    """
    rows = pd.DataFrame({"a": np.linspace(0, 1, 40), "b": np.linspace(5, 2, 40)})
    answers: dict[str, object] = {}
    for version, labels in ((1, ("low", "high")), (2, ("high", "low"))):
        estimator = LogisticRegression().fit(rows, np.where(rows["a"] > 0.5, labels[1], labels[0]))
        publish("m", estimator, rows, repository=root, alias="default" if version == 1 else None)
        answers[f"m/{version}"] = {"predictions": estimator.predict(rows.iloc[::5]).tolist()}
    return {"instances": rows.iloc[::5].to_numpy().tolist()}, answers


def main() -> None:
    """Start a stack, switch, and print the figures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--switches", type=int, default=100)
    parser.add_argument("--requests", type=int, default=10_000)
    parser.add_argument("--kills", type=int, default=5)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="switches-") as folder:
        body, answers = publish_two(Path(folder) / "models")
        stack = Stack(Path(folder), Path(folder) / "models")
        try:
            stack.start()
            model = SwitchedModel(load(stack.environ), stack.port, "m", body, answers)
            figures = model.run(given.switches, given.requests, kills(given.switches, given.kills))
        finally:
            stack.stop()
    print(line_of(figures))
    for wrong in figures.wrong[:10]:
        print(f"  {wrong}")


def kills(switches: int, count: int) -> frozenset[int]:
    """Return the numbers of `count` switches, evenly among all."""
    return frozenset((2 * number + 1) * switches // (2 * count) for number in range(count))


if __name__ == "__main__":
    main()
