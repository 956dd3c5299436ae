"""The guard of nginx: when its logs are opened again, and when its workers are renewed."""

from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path

import pytest

from tableside.deployment.nginx_guard import (
    CHECK_EVERY_S,
    MAX_GENERATIONS,
    RENEW_EVERY_S,
    NginxGuard,
    busy_connections,
    open_files,
)

pytestmark = pytest.mark.no_greenlets
HERE = [os.getpid()]


def guard(folder: Path, connections: int, busy: int | None) -> NginxGuard:
    return NginxGuard(folder, 100, 2, connections, 1, lambda: busy)


def test_logs_are_opened_again_after_they_were_renamed(tmp_path: Path) -> None:
    """USR1 goes out once for each time that a log has become too large, and logs are looked at once a second."""
    watching = guard(tmp_path, 10**6, 0)
    log = tmp_path / "nginx-access.log"
    log.write_text("x" * 101)
    assert watching.check(0.0, lambda: HERE) == [signal.SIGUSR1]
    assert not log.exists()
    log.write_text("x" * 101)
    assert watching.check(CHECK_EVERY_S / 2, lambda: HERE) == []
    assert watching.check(CHECK_EVERY_S, lambda: HERE) == [signal.SIGUSR1]
    assert watching.check(2 * CHECK_EVERY_S, lambda: HERE) == []


@pytest.mark.parametrize(
    ("table", "busy", "renews"),
    [
        (2.0, 10**6, True),  # exactly half full
        (2.1, 10**6, False),
        (1.0, 0, False),  # idle connections: nginx closes them itself
        (1.0, None, True),  # it does not answer any more
    ],
)
def test_workers_are_renewed_when_slow_clients_fill_them(
    tmp_path: Path, table: float, busy: int | None, renews: bool
) -> None:
    """HUP goes out when a worker has half of its connections open and these are not idle."""
    files = open_files(HERE[0])
    watching = guard(tmp_path, int(table * files), busy)
    assert (watching.check(0.0, lambda: HERE) == [signal.SIGHUP]) is renews
    assert ("slow clients" in watching.reason) is renews


def test_workers_are_renewed_when_one_has_died(tmp_path: Path) -> None:
    """The count of requests that it shared with the others begins anew; a renewal, which replaces all, is no death."""
    with subprocess.Popen(["sleep", "60"]) as one, subprocess.Popen(["sleep", "60"]) as other:
        watching = guard(tmp_path, 10**6, 0)
        assert watching.check(0.0, lambda: [one.pid, other.pid]) == []
        assert watching.check(10.0, lambda: HERE) == [], "both were replaced"
        assert watching.check(20.0, lambda: [*HERE, one.pid]) == [], "one more"
        one.kill()
        one.wait()
        assert watching.check(30.0, lambda: [*HERE, other.pid]) == [signal.SIGHUP]
        assert "died" in watching.reason
        assert watching.check(40.0, lambda: [*HERE, other.pid]) == []
        other.kill()


def test_renewals_are_bounded(tmp_path: Path) -> None:
    """There are some seconds between two renewals, and none while many old workers still run."""
    watching = guard(tmp_path, 2, None)
    times = [at * CHECK_EVERY_S for at in range(int(2 * RENEW_EVERY_S / CHECK_EVERY_S))]
    assert sum(bool(watching.check(now_s, lambda: HERE)) for now_s in times) == 2
    assert watching.check(100.0, lambda: HERE * MAX_GENERATIONS) == []
    assert watching.check(200.0, lambda: HERE * (MAX_GENERATIONS - 1)) == [signal.SIGHUP]


def test_what_has_ended_has_no_connections(tmp_path: Path) -> None:
    """A worker that is gone has no open files, and an nginx that is gone does not answer."""
    assert open_files(0) == 0
    assert open_files(HERE[0]) > 3
    assert busy_connections(tmp_path / "nginx-1.sock") is None
