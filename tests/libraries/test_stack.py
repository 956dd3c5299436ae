"""One model of each library in a running stack: nginx, two workers, a process for the pickle, equal to memory."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tableside.contracts.schema import Contract
from tableside.publishing.publish import publish
from tableside.publishing.sample_rows import rows_as_cells
from tableside.setting_texts import LIBRARIES
from tests.e2e.conftest import Stack, make_stack, until
from tests.e2e.traffic import Traffic
from tests.libraries import grid
from tests.libraries.comparing import in_memory
from tests.libraries.test_grid import as_frame

__all__ = ["make_stack", "published"]
pytestmark = [pytest.mark.e2e, pytest.mark.filterwarnings("ignore"), pytest.mark.timeout(600)]

WRAPPING = "Pipeline"
PICKLED = "category-encoders"
ROWS, REQUESTS = 60, 40
OTHER_THREADS = 1
"""A worker may start one more thread of its own pool while it answers."""


@pytest.fixture(scope="session")
def published(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository without the examples."""
    return tmp_path_factory.mktemp("models")


@pytest.fixture(scope="module")
def served(make_stack: Callable[..., Stack]) -> Iterator[tuple[Stack, dict[str, Contract]]]:
    """A stack with one version of each library, published with its fast backends; the pickle has an environment."""
    more = {
        "TABLESIDE__REPOSITORY__TRUSTED_LIBRARIES": ",".join(LIBRARIES),
        "TABLESIDE__ENVIRONMENTS__OWN__PYTHON": sys.executable,
    }
    stack = make_stack(start=False, **more)
    contracts = {}
    for library in grid.LIBRARIES:
        case, pickled = grid.case(library, WRAPPING), library == PICKLED
        contracts[library] = publish(
            library, case.estimator, as_frame(case), repository=stack.folder / "models", trusted_libraries=LIBRARIES,
            quick=True, as_pickle=pickled, consent_path=stack.folder / "consent.jsonl" if pickled else None,
        )  # fmt: skip
        # Rows of several requests share a call only where that changes no bit.
        own = 'environment = "own"\n' if pickled else ""
        (stack.folder / "models" / library / "model.toml").write_text(f'{own}[batching]\nrequire = "exact"\n')
    stack.start()
    stack.wait_loaded()
    yield stack, contracts
    stack.stop()


def body_and_answer(library: str, contract: Contract, count: int) -> tuple[Any, Any]:
    """So many rows of the sample in one body, and the probabilities that the estimator in memory gives."""
    case = grid.case(library, WRAPPING)
    wanted = in_memory(case, case.rows[:count].copy(), contract)["predict_proba"]
    rows = rows_as_cells(as_frame(case)[:count], contract.input)
    return {"instances": rows, "signature_name": "predict_proba"}, wanted


def as_answered(content: Any, wanted: Any) -> Any:
    """The answer's numbers in the estimator's own dtype, as Python numbers."""
    return np.array(content["predictions"], dtype=np.float64).astype(wanted.dtype).tolist()


def worker_pids(stack: Stack) -> list[int]:
    return [int(worker["pid"]) for worker in stack.admin_call("/admin/api/workers")["workers"]]


def threads_of(pid: int) -> int:
    return len(os.listdir(f"/proc/{pid}/task"))


def ticks_of(pid: int) -> int:
    """Processor time of a process, in clock ticks."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return int(fields[11]) + int(fields[12])


def states_of(stack: Stack) -> dict[str, list[str]]:
    models = stack.admin_call("/admin/api/models")["models"]
    return {model["name"]: [version["state"] for version in model["versions"]] for model in models}


def test_every_version_is_served_with_its_fast_backends(served: tuple[Stack, dict[str, Contract]]) -> None:
    """No version has a problem, and those of boosters have a route to a fast backend."""
    stack, contracts = served
    ready = {library: ["READY"] for library in grid.LIBRARIES}
    assert until(lambda: states_of(stack) == ready, 200), stack.cli("list").stdout
    for library in ("xgboost", "lightgbm", "catboost"):
        assert any(route.backend != "sklearn" for route in contracts[library].routes), library


@pytest.mark.parametrize("library", grid.LIBRARIES)
def test_answers_under_load_are_those_of_memory(library: str, served: tuple[Stack, dict[str, Contract]]) -> None:
    """Eight clients at once, both workers: each answer has the bits of memory, and no library starts a thread."""
    stack, contracts = served
    path = f"/v1/models/{library}:predict"
    for count in (1, ROWS):
        body, wanted = body_and_answer(library, contracts[library], count)
        status, content, _ = stack.call(path, body)
        assert status == 200, content
        assert as_answered(content, wanted) == wanted.tolist()
    pids = worker_pids(stack)
    assert len(pids) == 2
    with Traffic(stack.data, path, body, content) as load:
        load.wait_for_more(REQUESTS // 4)
        threads, ticks = [threads_of(pid) for pid in pids], [ticks_of(pid) for pid in pids]
        load.wait_for_more(REQUESTS)
        have_worked = until(lambda: all(ticks_of(pid) > before for pid, before in zip(pids, ticks, strict=True)), 60)
        later = [threads_of(pid) for pid in pids]
    assert load.failures == []
    assert worker_pids(stack) == pids
    assert have_worked, (pids, ticks)
    assert all(after <= before + OTHER_THREADS for before, after in zip(threads, later, strict=True)), (threads, later)


def test_workers_compute_with_one_thread(served: tuple[Stack, dict[str, Contract]]) -> None:
    """Each process of the stack that loads models has OpenMP and BLAS set to one thread."""
    stack, _ = served
    for pid in worker_pids(stack):
        environ = dict(
            line.partition("=")[::2] for line in Path(f"/proc/{pid}/environ").read_text().split("\0") if "=" in line
        )
        names = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
        assert {name: environ.get(name) for name in names} == dict.fromkeys(names, "1"), json.dumps(environ)
