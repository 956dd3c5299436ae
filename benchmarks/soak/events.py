"""What happens to the stack: each event begins, and is over when the stack has its full capacity again."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable

from benchmarks.soak.stack import SoakFailed, Stack
from tableside.deployment.stack_processes import Role, find, runs

Event = Callable[[Stack], None]
RECYCLE_AFTER = 100
"""Requests after which a worker is replaced in the event `recycle`."""


def _replaced(stack: Stack, act: Callable[[], object], old: set[int] | None = None) -> None:
    """Do `act`, and wait until as many other workers are ready as the stack has and those in `old` are gone."""
    old = stack.ready_workers() if old is None else old
    act()

    ready: set[int] = set()

    def is_over() -> bool:
        nonlocal ready
        ready = stack.ready_workers()
        return not old & ready and len(ready) >= stack.workers

    try:
        stack.wait(is_over, "new workers are ready and the old ones are gone")
    except SoakFailed as problem:
        raise SoakFailed(f"{problem} (old: {sorted(old)}, ready at last: {sorted(ready)})") from None


def restart(stack: Stack) -> None:
    """`supervisorctl restart 'web:*'`."""
    _replaced(stack, lambda: stack.supervisorctl("restart", "web:*"))


def reload(stack: Stack) -> None:
    """`supervisorctl signal HUP 'web:*'`."""
    _replaced(stack, lambda: stack.supervisorctl("signal", "HUP", "web:*"))


def upgrade(stack: Stack) -> None:
    """The link `current` is flipped to another release folder, and `tableside restart` follows it."""

    def act() -> None:
        stack.flip(stack.new_release())
        _restart_and_wait(stack)

    _replaced(stack, act)
    folder = os.path.realpath(f"/proc/{stack.master()}/cwd")
    if folder != os.path.realpath(stack.current):
        raise SoakFailed(f"after the upgrade gunicorn runs in {folder}, and `current` leads elsewhere")


def _restart_and_wait(stack: Stack) -> None:
    """`tableside restart`, which returns when the new workers serve."""
    done = stack.tableside("restart")
    if done.returncode:
        raise SoakFailed(f"tableside restart: {done.stderr}")


def recycle(stack: Stack) -> None:
    """Every worker reaches `server.max_requests_per_worker`; then the setting is taken away again."""
    config = stack.current / "tableside.toml"
    config.write_text(f"[server]\nmax_requests_per_worker = {RECYCLE_AFTER}\n")
    try:
        _replaced(stack, lambda: _restart_and_wait(stack))
        master = stack.master()
        _replaced(stack, lambda: None)
        if stack.master() != master:
            raise SoakFailed("the workers were replaced with their master, and not by their number of requests")
    finally:
        config.unlink()
        _replaced(stack, lambda: _restart_and_wait(stack))


def kill_worker(stack: Stack) -> None:
    """SIGKILL of a worker."""
    victim = min(stack.ready_workers())
    _replaced(stack, lambda: os.kill(victim, signal.SIGKILL), {victim})


def kill_master(stack: Stack) -> None:
    """SIGKILL of the gunicorn master."""
    master = stack.master()
    _replaced(stack, lambda: os.kill(master, signal.SIGKILL))


def kill_keeper(stack: Stack) -> None:
    """SIGKILL of the process that supervisor runs as `web`: the next one goes on with the workers that are there."""
    keeper = stack.pid_of("web")
    os.kill(keeper, signal.SIGKILL)
    stack.wait(
        lambda: stack.pid_of("web") not in (0, keeper) and len(stack.ready_workers()) >= stack.workers,
        "a new keeper runs",
    )


def kill_holders(stack: Stack) -> None:
    """SIGKILL of both socket holders, then a restart of web."""
    holders = [stack.pid_of(f"sockets:sockets_{number}") for number in (0, 1)]
    for holder in holders:
        os.kill(holder, signal.SIGKILL)
    stack.wait(
        lambda: all(stack.pid_of(f"sockets:sockets_{number}") not in (0, *holders) for number in (0, 1)),
        "both socket holders are back",
    )
    restart(stack)


def restart_nginx(stack: Stack) -> None:
    """`supervisorctl restart nginx`."""
    _replace_nginx(stack, lambda _: stack.supervisorctl("restart", "nginx"))


def kill_nginx_master(stack: Stack) -> None:
    """SIGKILL of nginx's master."""
    _replace_nginx(stack, lambda master: os.kill(master, signal.SIGKILL))


def _replace_nginx(stack: Stack, act: Callable[[int], object]) -> None:
    """Do `act` with the pid of nginx's master, and wait until another nginx serves alone."""
    old = find(stack.run_dir, Role.NGINX_MASTER, Role.NGINX_WORKER)
    act(next(process.pid for process in old if process.role is Role.NGINX_MASTER))

    def is_over() -> bool:
        return not any(map(runs, old)) and bool(find(stack.run_dir, Role.NGINX_WORKER)) and stack.is_ready()

    stack.wait(is_over, "a new nginx answers")


def kill_supervisord(stack: Stack) -> None:
    """SIGKILL of supervisord, then `tableside run` again."""

    def act() -> None:
        os.kill(stack.pid_in("supervisord.pid"), signal.SIGKILL)
        stack.start()

    _replaced(stack, act)


EVENTS: dict[str, Event] = {
    "restart": restart,
    "hup": reload,
    "upgrade": upgrade,
    "recycle": recycle,
    "kill-worker": kill_worker,
    "kill-master": kill_master,
    "kill-keeper": kill_keeper,
    "kill-holders": kill_holders,
    "restart-nginx": restart_nginx,
    "kill-nginx-master": kill_nginx_master,
    "kill-supervisord": kill_supervisord,
}
"""Every event by name, in the order in which a round runs them."""
