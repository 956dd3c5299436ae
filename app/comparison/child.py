"""The process that loads two versions and compares their answers, so that none of that happens in the one that asks.

`python -m tableside.comparison.child JOB` (a ComparisonJob as JSON) writes an AnswerComparison as JSON to stdout. It is
confined as a preflight is, and loads by the same checks: signature, hashes, environment, consent, types, golden rows.
"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

import msgspec

from tableside.errors import ContractBroken, TablesideError
from tableside.preflight.child import end_with_parent
from tableside.preflight.confinement import confine
from tableside.settings import Environment, Repository

MODULE = "tableside.comparison.child"


class ComparisonJob(msgspec.Struct, frozen=True):
    """The argument of the process.

    root: the repository. old, new: name and number. parent: the pid of the starting process. data: the file with the
    rows; empty for the golden rows. environments: those that models may name.
    """

    root: str
    old: tuple[str, int]
    new: tuple[str, int]
    policy: Repository
    parent: int
    data: str = ""
    environments: dict[str, Environment] = {}


def main() -> None:
    """Compare by the job in `sys.argv[1]`. The kernel ends the process by SIGALRM if a load takes too long."""
    job = msgspec.json.decode(sys.argv[1], type=ComparisonJob)
    result = os.dup(1)
    os.dup2(2, 1)  # a model may print; only the result may reach the reader of stdout
    end_with_parent(job.parent)
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    confine()
    content = msgspec.json.encode(_compare(job))
    while content:
        content = content[os.write(result, content) :]
    os._exit(0)  # without running destructors of models, which could crash


def _compare(job: ComparisonJob) -> object:
    from tableside.comparison import report, row_sources
    from tableside.model_process.environment_pools import private
    from tableside.preflight.checks import load_contracted
    from tableside.repository import integrity, model_toml
    from tableside.runtimes.router import RoutedRuntime

    root, source = Path(job.root), job.data or "golden rows"
    environments = private(job.environments, job.policy.load_timeout_s)
    loaded = []
    for name, number in (job.old, job.new):
        signal.setitimer(signal.ITIMER_REAL, job.policy.load_timeout_s)
        try:
            contract = integrity.read_contract(root, name, number, job.policy.trusted_keys)
            runtime = load_contracted(root, contract, job.policy, None, environments)
            config = model_toml.read(root, name)
            if isinstance(runtime, RoutedRuntime):
                runtime.wanted = config.runtime == "auto"
        except ContractBroken as problem:
            return report.AnswerComparison(source, problem=f"{name}/{number} does not load: {problem}")
        except Exception as problem:  # noqa: BLE001 - a broken artifact may raise anything
            reason = f"{name}/{number} does not load: {type(problem).__name__}: {problem}"
            return report.AnswerComparison(source, problem=reason)
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
        words = {column: frozenset(each) for column, each in config.columns.missing_words.items()}
        loaded.append(report.Side(contract, runtime, words))
    try:
        rows = row_sources.of_file(Path(job.data)) if job.data else None
    except TablesideError as problem:
        return report.AnswerComparison(source, problem=str(problem))
    return report.compare_answers(loaded[0], loaded[1], rows)


if __name__ == "__main__":
    main()
