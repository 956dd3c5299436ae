"""Requests to wrong hosts, from other sites' pages, with forged log lines; statistics; a start that is open to all."""

from __future__ import annotations

import subprocess
from collections.abc import Callable

from benchmarks.attacks.rows import Limits
from benchmarks.attacks.stage import PROJECT, Answer, Outcome, Stage
from benchmarks.free_ports import free_port

GUARD = "tests/blueprints/test_guard.py"
STATS, STATS_CPU_MS = 50, 5.0
FORGED = "2026-01-01T00:00:00Z error web: forged"
START_LIMIT_S = 60


def attack(stage: Stage) -> None:
    """All of them, in turn."""
    evil = {"Host": "evil.example"}
    _request(stage, "DNS rebinding: a page reads /metrics", "200", 421, GUARD,
             lambda: stage.ask("/metrics", headers=evil, admin=True))  # fmt: skip
    _request(stage, "DNS rebinding: a prediction", "200", 421, GUARD,
             lambda: stage.ask("/v1/models/iris:predict", b'{"instances": [[1, 1, 1, 1]]}', evil))  # fmt: skip
    other = {**stage.admin_key(), "Origin": "https://evil.example"}
    _request(stage, "a page of another site posts a reload", "done", 403, GUARD,
             lambda: stage.ask("/admin/api/reload", b"", other, method="POST", admin=True))  # fmt: skip
    _request(stage, "/v2/models/stats", "24 ms each on the event loop", 200, "tests/e2e/test_triton_client.py",
             lambda: stage.ask("/v2/models/stats"), STATS)  # fmt: skip
    stage.attack("a path forges a line of `tableside logs`", "title set, line forged", lambda: _forge(stage),
                 lambda _: Limits(), "tests/unit/test_cli.py")  # fmt: skip
    stage.attack("open to the network without keys and TLS", "started, open to all", lambda: _open(stage),
                 lambda _: Limits(), "tests/unit/test_tls.py")  # fmt: skip


def _request(
    stage: Stage, name: str, before: str, expected: int, test: str, send: Callable[[], Answer], times: int = 20
) -> None:
    def act() -> Outcome:
        answers = {(answer.status, answer.text) for answer in (send() for _ in range(times))}
        is_right = {status for status, _ in answers} == {expected}
        return Outcome(0, "; ".join(sorted(text for _, text in answers)), is_right, times)

    stage.attack(name, before, act, lambda _: Limits(cpu_ms=STATS_CPU_MS), test)


def _forge(stage: Stage) -> Outcome:
    """Ask for a path with an escape sequence and a line break, and read the log as an operator does."""
    path = f"/v2/models/%1B]0;owned%07%0A{FORGED.replace(' ', '%20')}"
    answer = stage.ask(path)
    printed: list[str] = []

    def is_logged() -> bool:
        printed[:] = stage.stack.tableside("logs", "-n", "2000").stdout.split("\n")
        return any("owned" in line for line in printed)

    stage.stack.wait(is_logged, "the request is in the log", 60)
    is_right = not any("\x1b" in line or "\x07" in line or line.startswith(FORGED) for line in printed)
    return Outcome(len(path), f"{answer.status}; one line, escaped" if is_right else "printed as it came", is_right)


def _open(stage: Stage) -> Outcome:
    """Start another stack on all addresses. If it started, it would be ended at once."""
    environ = {
        **stage.stack.environ, "PYTHONPATH": str(stage.stack.current / "src"),
        "TABLESIDE__SERVER__LISTEN": f"0.0.0.0:{free_port()}",
        "TABLESIDE__SERVER__ADMIN_LISTEN": f"127.0.0.1:{free_port()}",
        "TABLESIDE__SERVER__RUN_DIR": str(stage.kept / "open-run"),
    }  # fmt: skip
    command = [str(stage.stack.current / ".venv" / "bin" / "python"), "-m", "tableside.cli", "run"]
    with subprocess.Popen(
        command, cwd=PROJECT, env=environ, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    ) as process:
        try:
            said = process.communicate(timeout=START_LIMIT_S)[0].decode()
        except subprocess.TimeoutExpired:
            process.terminate()
            process.communicate()
            return Outcome(0, "it started", False)
    is_right = process.returncode != 0 and "server.open" in said
    return Outcome(0, f"refuses to start, status {process.returncode}" if is_right else said[-200:], is_right)
