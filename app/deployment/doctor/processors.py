"""Workers, threads and model processes against the processors that the stack may use."""

from __future__ import annotations

from collections.abc import Iterator

from tableside.deployment.doctor.finding import Finding, Level
from tableside.deployment.doctor.set_up import SetUp
from tableside.model_process import known_environments

ABOUT = "processors"
THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMEXPR_NUM_THREADS")
_MOST_PER_PROCESSOR = 2
_MOST_THREADS_PER_PROCESSOR = 4


def check(set_up: SetUp) -> Iterator[Finding]:
    """Yield what is wrong with the numbers of processes and threads."""
    yield from _workers(set_up)
    yield from _libraries(set_up)
    yield from _environments(set_up)


def _workers(set_up: SetUp) -> Iterator[Finding]:
    server, cores = set_up.settings.server, set_up.processors
    figures = f"server.workers {server.workers}, processors that this stack may use {cores}"
    threads = server.workers * server.predict_threads
    if server.workers > _MOST_PER_PROCESSOR * cores:
        yield Finding(
            Level.WARNING, ABOUT, "there are more workers than processors", figures,
            "each worker has every model in memory, and they take the processors from each other",
            f"Set server.workers to {cores} (affinity and the quota of the control group count), or raise the quota",
        )  # fmt: skip
    elif 2 * server.workers <= cores:
        yield Finding(
            Level.NOTE, ABOUT, "processors stay idle", figures,
            "predictions in Python use one processor of each worker",
            f"Set server.workers to {cores}, if the memory has room for the models",
        )  # fmt: skip
    if threads > _MOST_THREADS_PER_PROCESSOR * cores and server.predict_threads > 2:
        yield Finding(
            Level.WARNING, ABOUT, "there are many more predicting threads than processors",
            f"server.workers {server.workers} x server.predict_threads {server.predict_threads} = {threads}, "
            f"processors {cores}",
            "expensive predictions slow each other and the event loops down",
            "Set server.predict_threads to 2",
        )  # fmt: skip


def _libraries(set_up: SetUp) -> Iterator[Finding]:
    for variable in THREADS:
        text = set_up.environ.get(variable, "")
        if text == "1":
            continue
        count = int(text) if text.isdecimal() and int(text) else set_up.processors
        yield Finding(
            Level.WARNING, ABOUT, f"{variable} is not 1 in the workers",
            f"{variable}={text or '(not set)'}, server.workers {set_up.settings.server.workers}, up to "
            f"{count * set_up.settings.server.workers} threads on {set_up.processors} processors",
            "the workers are the parallelism: more threads in each slow all of them down",
            f"Remove {variable} from `environment=` in supervisord.conf; `tableside run` sets it to 1",
        )  # fmt: skip


def _environments(set_up: SetUp) -> Iterator[Finding]:
    known = known_environments.known(set_up.settings)
    counts = {name: known_environments.process_count(set_up.settings, each) for name, each in known.items()}
    for name, count in sorted(counts.items()):
        if count > _MOST_PER_PROCESSOR * set_up.processors:
            yield Finding(
                Level.WARNING, ABOUT, f"the environment {name} has more model processes than processors",
                f"{count} processes, processors {set_up.processors}",
                "each has every model of the environment in memory, and they take the processors from each other",
                f"Set processes = {set_up.processors} in [environments.{name}] of tableside.toml",
            )  # fmt: skip
