"""Restarts, killed processes and upgrades fail no request of a constant stream of POSTs, and make none wait.

test_soak.py has the events that operators meet, one after another; here are their results and their combinations.
"""

from __future__ import annotations

import os
import shutil
import signal
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from tableside.deployment import instances
from tests.e2e.conftest import BIN, PROJECT, Stack, until
from tests.e2e.scrapes import Scrapes, complaints
from tests.e2e.traffic import Traffic

pytestmark = pytest.mark.e2e
SILENCE_S = 1.0
"""The longest time in which the stack may answer nothing at all."""
SCRAPE_TIMEOUT_S = 10.0
"""Prometheus' own `scrape_timeout`: it has no value of a longer scrape."""
REPLACED_S = 120
Trained = dict[str, Any]


def workers(stack: Stack) -> list[int]:
    """Return the pids of the workers that are ready."""
    return [worker["pid"] for worker in stack.admin_call("/admin/api/workers")["workers"] if worker.get("ready")]


def traffic_to(stack: Stack, trained: Trained) -> Traffic:
    """Return a stream of requests for each example model, with the answers of its estimator."""
    targets = []
    for name, (estimator, sample) in trained.items():
        rows = sample.iloc[:3]
        answer = {"outputs": estimator.predict(rows).tolist()}
        body = {"inputs": {column: stack_cells(rows[column]) for column in rows.columns}}
        targets.append((f"/v1/models/{name}:predict", body, answer))
    path, body, expected = targets[0]
    return Traffic(stack.data, path, body, expected, more=targets[1:])


def stack_cells(column: Any) -> list[Any]:
    return [None if value != value else value for value in column.tolist()]


def under_traffic(
    stack: Stack, trained: Trained, event: Callable[[], Any], is_over: Callable[[], bool] | None = None
) -> Traffic:
    """Run `event` during the stream; wait until two workers serve that did not before, and all that did have ended.

    is_over: another condition to wait for. No request may fail, and there may be no silence.
    """
    old = set(workers(stack))

    def replaced() -> bool:
        new = set(workers(stack))
        return not old & new and len(new) == 2

    with traffic_to(stack, trained) as traffic:
        traffic.wait_for_more(50)
        event()
        assert until(is_over or replaced, REPLACED_S), stack.logs()
        traffic.wait_for_more(200)
    assert traffic.failures == []
    assert traffic.longest_silence_s < SILENCE_S
    return traffic


def pid_of(stack: Stack, program: str) -> int:
    return int(stack.ctl("pid", program).strip())


def master_of(stack: Stack) -> int:
    """Return the pid of the only gunicorn master."""
    (instance,) = until(lambda: alone if len(alone := list(instances.find(stack.run_dir).values())) == 1 else [])
    assert instance.master is not None
    return instance.master.pid


def told(stack: Stack) -> str:
    """Return what the keeper and gunicorn logged last, without the lines of requests."""
    lines = (stack.run_dir / "log" / "web.log").read_text().splitlines()
    return "\n".join([line for line in lines if '"source":"access"' not in line][-100:])


def test_restarts_in_a_row_fail_no_request(stack: Stack, trained: Trained) -> None:
    """A restart before the last one is over, and HUPs meanwhile, leave one instance that serves, and a new keeper."""
    keeper, master = pid_of(stack, "web"), master_of(stack)

    def event() -> None:
        for _ in range(3):
            stack.ctl("restart", "web:*")
        for _ in range(3):
            stack.ctl("signal", "HUP", "web")

    under_traffic(stack, trained, event)
    assert pid_of(stack, "web") not in (0, keeper)
    assert master_of(stack) != master


def test_the_command_restarts_and_waits(stack: Stack, trained: Trained) -> None:
    """`tableside restart` returns when the new workers serve."""
    old = set(workers(stack))

    def event() -> None:
        done = stack.cli("restart")
        assert (done.returncode, done.stdout) == (0, "the new instance serves\n"), done.stderr
        assert len(set(workers(stack)) - old) == 2

    under_traffic(stack, trained, event)


def test_killed_keeper_changes_nothing(stack: Stack, trained: Trained) -> None:
    """After SIGKILL of the keeper supervisor starts another, which goes on with the workers that are there."""
    keeper, master, old = pid_of(stack, "web"), master_of(stack), set(workers(stack))
    under_traffic(
        stack, trained, lambda: os.kill(keeper, signal.SIGKILL), lambda: pid_of(stack, "web") not in (0, keeper)
    )
    assert (master_of(stack), set(workers(stack))) == (master, old)
    keeper = pid_of(stack, "web")
    under_traffic(stack, trained, lambda: os.kill(master, signal.SIGKILL))
    assert pid_of(stack, "web") == keeper
    assert master_of(stack) != master


def test_killed_keeper_and_master_fail_no_request(stack: Stack, trained: Trained) -> None:
    """The next keeper finds workers without a master, and replaces them."""
    keeper, master = pid_of(stack, "web"), master_of(stack)

    def event() -> None:
        os.kill(keeper, signal.SIGKILL)
        os.kill(master, signal.SIGKILL)

    under_traffic(stack, trained, event)


def test_killed_socket_holder_fails_no_request(stack: Stack, trained: Trained) -> None:
    """After SIGKILL of a socket holder the next one gets the sockets from the other holder."""
    victim = pid_of(stack, "sockets:sockets_0")

    def event() -> None:
        os.kill(victim, signal.SIGKILL)
        stack.ctl("restart", "web:*")

    under_traffic(stack, trained, event)


def test_metrics_count_every_request_through_the_deaths(stack: Stack, trained: Trained) -> None:
    """A SIGKILL of a worker loses no counts, but for the answers that it had just given (decision 0008)."""

    def total() -> float:
        _, text, _ = stack.call("/metrics", admin=True)
        lines = [line for line in text.splitlines() if line.startswith("tableside_requests_total") and '"v1"' in line]
        return sum(float(line.rpartition(" ")[2]) for line in lines)

    before = total()
    victim = workers(stack)[0]
    traffic = under_traffic(
        stack, trained, lambda: os.kill(victim, signal.SIGKILL),
        lambda: victim not in workers(stack) and len(workers(stack)) == 2,
    )  # fmt: skip
    # Each client may lose one: the worker counts at the next turn of its event loop. A request whose worker was killed
    # after counting and before answering counts once more on its retry.
    assert -traffic.clients <= total() - before - traffic.answered <= 4


def test_scrapes_go_on_through_restarts_and_deaths(
    stack: Stack, trained: Trained, record_property: Callable[[str, object], None]
) -> None:
    """Old, new and killed workers at once: each scrape is answered soon, no counter goes back, promtool accepts all."""
    with Scrapes(stack) as scrapes:
        under_traffic(stack, trained, lambda: stack.ctl("restart", "web:*"))
        victim = workers(stack)[0]
        under_traffic(
            stack, trained, lambda: os.kill(victim, signal.SIGKILL),
            lambda: victim not in workers(stack) and len(workers(stack)) == 2,
        )  # fmt: skip
    assert set(scrapes.outcomes) == {"200"}
    assert scrapes.outcomes["200"] > 20
    assert scrapes.backwards == []
    record_property("said", f"{scrapes.outcomes['200']} scrapes, the slowest took {scrapes.slowest_s:.2f} s")
    assert scrapes.slowest_s < SCRAPE_TIMEOUT_S
    assert complaints(scrapes.text) == ""


def test_a_hung_worker_holds_no_scrape_up(stack: Stack) -> None:
    """A worker that has stopped answers nothing; scrapes are answered by the other one, with the counts of both."""
    hung = workers(stack)[0]
    os.kill(hung, signal.SIGSTOP)
    try:
        with Scrapes(stack) as scrapes:
            assert until(lambda: scrapes.outcomes.total() >= 20, 60), scrapes.outcomes
    finally:
        os.kill(hung, signal.SIGCONT)
    assert set(scrapes.outcomes) == {"200"}
    assert scrapes.backwards == []


def test_stop_web_stops_it(stack: Stack) -> None:
    """A program that stays stopped has no processes after some seconds; a start serves again."""
    stack.ctl("stop", "web")
    assert until(lambda: not instances.find(stack.run_dir), 90), stack.logs()
    stack.ctl("start", "web")
    stack.wait_ready()


PROBE = '''
import json, os, sys

_inner = application.wsgi_app


def probed(environ, start_response):
    """Answers with this worker's pid, its release, and the names of its modules without the test's mark."""
    if "HTTP_X_CODE" not in environ:
        return _inner(environ, start_response)
    ours = {name: module for name, module in sys.modules.items() if name.split(".")[0] == "tableside"}
    report = {
        "pid": os.getpid(),
        "release": os.path.basename(os.environ["TABLESIDE_PROJECT"]) + "=" + os.path.realpath(__file__).split("/")[-2],
        "marked": sum(hasattr(module, "MARKED_BY_TEST") for module in ours.values()),
        "unmarked": sorted(name for name, module in ours.items() if not hasattr(module, "MARKED_BY_TEST")),
    }
    body = json.dumps(report).encode()
    start_response("200 OK", [("Content-Type", "application/json"), ("Content-Length", str(len(body)))])
    return [body]


application.wsgi_app = probed
'''


def make_release(folder: Path) -> Path:
    """Copy the code to a folder, as a release with an interpreter of its own, whose workers report their release."""
    for name in ("app", "blueprints", "deploy", "src", "training"):  # src/tableside is a link to app
        ignored = shutil.ignore_patterns("__pycache__", "*.egg-info")
        shutil.copytree(PROJECT / name, folder / name, symlinks=True, ignore=ignored)
    for name in ("gunicorn.conf.py", "supervisord.conf", "wsgi.py"):
        shutil.copy(PROJECT / name, folder / name)
    (folder / ".venv").symlink_to(BIN.parent)
    with (folder / "wsgi.py").open("a") as code:
        code.write(PROBE)
    return folder


def code_of_workers(stack: Stack) -> list[dict[str, Any]]:
    """Return the probe's report of each of the two ready workers."""
    found: dict[int, dict[str, Any]] = {}
    pids = set(until(lambda: ready if len(ready := workers(stack)) == 2 else []))

    def is_complete() -> bool:
        report = stack.call("/v2/health/live", headers={"X-Code": "?"})[1]
        found[report["pid"]] = report
        return pids <= set(found)

    assert until(is_complete), (pids, found)
    return [found[pid] for pid in pids]


def releases_of(stack: Stack) -> set[str]:
    return {report["release"] for report in code_of_workers(stack)}


@pytest.fixture(scope="module")
def released(make_stack: Callable[..., Stack], tmp_path_factory: pytest.TempPathFactory) -> Stack:
    """A stack that was started in the folder `current`, a link to the release `one`."""
    folder = tmp_path_factory.mktemp("releases")
    stack = make_stack(start=False)
    make_release(folder / "one")
    stack.project = folder / "current"
    stack.project.symlink_to(folder / "one")
    stack.python = stack.project / ".venv" / "bin" / "python"
    stack.environ |= {"PYTHONPATH": str(stack.project / "src"), "PWD": str(stack.project)}
    stack.start()
    assert until(lambda: len(workers(stack)) == 2, REPLACED_S)
    return stack


def mark(release: Path) -> None:
    for file in [*(release / "app").rglob("*.py"), *(release / "blueprints").rglob("*.py")]:
        file.write_text(file.read_text() + "\nMARKED_BY_TEST = True\n")


def test_hup_serves_the_code_on_disk_of_every_package(released: Stack) -> None:
    """Workers run the code from the start until a HUP, also those that start later; after it they run the code on disk.

    This includes the worker class. HUP replaces the master, and keeps the keeper.
    """
    keeper, master = pid_of(released, "web"), master_of(released)
    mark(released.project)
    assert [report["marked"] for report in code_of_workers(released)] == [0, 0]
    victim = workers(released)[0]
    os.kill(victim, signal.SIGKILL)
    assert until(lambda: victim not in workers(released) and len(workers(released)) == 2)
    assert [report["marked"] for report in code_of_workers(released)] == [0, 0]
    old = set(workers(released))
    released.ctl("signal", "HUP", "web:*")
    assert until(lambda: not old & set(workers(released)) and len(workers(released)) == 2, 60), released.logs()
    assert pid_of(released, "web") == keeper
    assert master_of(released) != master
    for report in code_of_workers(released):
        assert report["unmarked"] == []
        assert report["marked"] > 50


def test_code_that_cannot_be_imported_replaces_nothing(released: Stack, trained: Trained) -> None:
    """HUP and `tableside restart` with broken code leave the workers serving, and say why; corrected code is taken."""
    old, broken = set(workers(released)), released.project / "app" / "serving" / "registry.py"
    good = broken.read_text()
    broken.write_text("def broken(:\n")
    with traffic_to(released, trained) as traffic:
        try:
            released.ctl("signal", "HUP", "web")
            log = released.run_dir / "log" / "web.log"
            assert until(lambda: "the earlier one goes on serving" in log.read_text(), REPLACED_S)
            done = released.cli("restart")
            assert done.returncode == 1
            assert "did not come up: its gunicorn ended before it was ready" in done.stderr
            assert "What served before goes on serving" in done.stderr
            assert set(workers(released)) == old
        finally:
            broken.write_text(good)
        done = released.cli("restart")
        assert done.returncode == 0, done.stderr
        traffic.wait_for_more(50)
    assert traffic.failures == []
    assert not old & set(workers(released))


@pytest.mark.parametrize("is_killed", [True, False], ids=["killed", "restart"])
def test_a_keeper_that_cannot_start_ends_nothing(released: Stack, trained: Trained, is_killed: bool) -> None:
    """With code that the keeper itself cannot import the workers serve until it is corrected and replaces them.

    A keeper that is killed leaves no guardian behind: nobody sees the restart that follows.
    """
    old, broken = set(workers(released)), released.project / "app" / "deployment" / "instances.py"
    good = broken.read_text()
    broken.write_text("def broken(:\n")
    with traffic_to(released, trained) as traffic:
        restart = threading.Thread(target=released.ctl, args=("restart", "web:*"))  # it returns when a keeper runs
        if is_killed:
            keeper = pid_of(released, "web")
            if keeper:  # 0 if it has just executed itself anew, and could not
                with suppress(ProcessLookupError):
                    os.kill(keeper, signal.SIGKILL)
            assert until(lambda: "BACKOFF" in released.ctl("status", "web"), REPLACED_S)
        restart.start()
        try:
            assert until(lambda: "BACKOFF" in released.ctl("status", "web"), REPLACED_S)
            traffic.wait_for_more(50)
            assert set(workers(released)) == old
        finally:
            broken.write_text(good)
        restart.join(REPLACED_S)
        replaced = until(lambda: not old & set(workers(released)) and len(workers(released)) == 2, REPLACED_S)
        assert replaced, told(released)
    assert traffic.failures == []
    assert traffic.longest_silence_s < SILENCE_S


def flip(stack: Stack, release: Path) -> None:
    link = stack.project.with_name("current.new")
    link.symlink_to(release)
    link.replace(stack.project)


def without_a_minor(release: Path, *, everywhere: bool = False) -> Path:
    """Make a release behave as if its interpreter had another minor version of scikit-learn than any model.

    everywhere: also as if every other environment had another one.
    """
    condition = "True" if everywhere else "here is None"
    with (release / "app" / "repository" / "integrity.py").open("a") as code:
        code.write(
            "\n\n_differences = environment_differences\n\n\n"
            "def environment_differences(contract, here=None):\n"
            f"    return ['scikit-learn was another'] if {condition} else _differences(contract, here)\n"
        )
    return release


def test_a_flipped_link_is_an_upgrade(released: Stack, trained: Trained) -> None:
    """After the link `current` was flipped, `tableside restart` and `supervisorctl restart` run the other release.

    One whose libraries cannot serve what is served replaces nothing, whichever command is used.
    """
    assert releases_of(released) == {"current=one"}
    old = set(workers(released))
    flip(released, without_a_minor(make_release(released.project.with_name("skewed"))))
    released.ctl("signal", "HUP", "web")
    log = released.run_dir / "log" / "web.log"
    assert until(lambda: "it does not serve breast-cancer/1 (scikit-learn was" in log.read_text(), REPLACED_S)
    assert until(lambda: set(workers(released)) == old), "the new ones are listed until they have ended"
    flip(released, without_a_minor(make_release(released.project.with_name("none")), everywhere=True))
    done = released.cli("restart")
    assert done.returncode == 1, done.stderr
    assert until(lambda: set(workers(released)) == old), done.stderr
    assert "it does not serve breast-cancer/1 (scikit-learn was" in done.stderr
    two = make_release(released.project.with_name("two"))
    template = two / "deploy" / "nginx" / "nginx.conf.j2"
    template.write_text(template.read_text().replace("send_timeout 15s;", "send_timeout 16s;"))
    flip(released, two)
    said: list[str] = []
    under_traffic(released, trained, lambda: said.append(released.cli("restart").stderr))
    assert releases_of(released) == {"current=two"}
    assert "nginx" not in said[0], "nginx goes on as the old release has started it"
    under_traffic(released, trained, lambda: released.ctl("restart", "web:*"))
    assert releases_of(released) == {"current=two"}
    doctor = released.cli("doctor").stdout
    assert "NOTE    settings: nginx (data) runs as another release has started it" in doctor, doctor
    assert "restart 'nginx:*'" in doctor
    released.ctl("restart", "nginx:*")
    assert until(lambda: "nginx (data)" not in (found := released.cli("doctor")).stdout and found.returncode == 0)
    assert "send_timeout 16s;" in (released.run_dir / "nginx.conf").read_text()


def test_a_release_in_another_folder_is_an_upgrade(released: Stack, trained: Trained) -> None:
    """`tableside restart --release` goes on in the other folder, also after a restart and the death of the keeper."""
    release = make_release(released.project.with_name("three"))
    under_traffic(released, trained, lambda: released.cli("restart", "--release", str(release)).check_returncode())
    assert releases_of(released) == {"three=three"}
    under_traffic(released, trained, lambda: released.ctl("restart", "web:*"))
    assert releases_of(released) == {"three=three"}
    keeper = pid_of(released, "web")
    os.kill(keeper, signal.SIGKILL)
    assert until(lambda: pid_of(released, "web") not in (0, keeper))
    under_traffic(released, trained, lambda: released.ctl("signal", "HUP", "web"))
    assert releases_of(released) == {"three=three"}


def test_models_of_another_minor_go_on_in_the_old_interpreter(released: Stack, trained: Trained) -> None:
    """A release with other libraries serves them as an environment, with an interpreter that no link can change."""
    release = without_a_minor(make_release(released.project.with_name("four")))
    said: list[str] = []

    def event() -> None:
        done = released.cli("restart", "--release", str(release))
        assert done.returncode == 0, done.stderr
        said.append(done.stderr)

    before = master_of(released)
    interpreter = instances.find(released.run_dir).popitem()[1].interpreter
    under_traffic(released, trained, event)
    assert master_of(released) != before
    assert f"breast-cancer, diabetes, iris, wine: go on in {interpreter}, the environment release-" in said[0]
    assert "model_release-" in released.ctl("status")
    under_traffic(released, trained, lambda: released.ctl("restart", "web:*"))
    assert releases_of(released) == {"four=four"}
    assert released.call("/v2/models/iris/ready")[0] == 200


def test_a_release_that_cannot_serve_everything_is_refused(released: Stack, tmp_path: Path) -> None:
    """Neither a folder without a release, nor broken code, nor a release that lacks a version replaces anything."""
    old, now = set(workers(released)), releases_of(released)

    def refused(folder: Path, status: int) -> str:
        done = released.cli("restart", "--release", str(folder))
        assert done.returncode == status, done.stdout + done.stderr
        assert until(lambda: (set(workers(released)), releases_of(released)) == (old, now)), "as before"
        return done.stderr

    assert "it is no release of Tableside" in refused(tmp_path, 2)
    broken = make_release(tmp_path / "broken")
    (broken / "app" / "factory.py").write_text("def broken(:\n")
    assert "does not run: SyntaxError" in refused(broken, 2)
    losing = make_release(tmp_path / "losing")
    with (losing / "app" / "preflight" / "checks.py").open("a") as code:
        code.write(
            "\n\n_checked = check_version\n\n\ndef check_version(root, name, *others):\n"
            "    if name == 'wine':\n        raise ContractBroken('lost by the test')\n"
            "    return _checked(root, name, *others)\n"
        )
    assert "it does not serve wine/1 (lost by the test)" in refused(losing, 1)
    assert released.call("/v2/models/wine/ready")[0] == 200
