"""`tableside stop`: ends the stack of a run folder, and whatever an earlier one has left behind there."""

from __future__ import annotations

import os
import signal
import sys
from functools import partial
from pathlib import Path

from tableside.deployment.end_of_service import EndOfService
from tableside.deployment.running_stack import find_supervisors
from tableside.deployment.socket_holder import close, fetch
from tableside.deployment.stack_processes import Role, StackProcess, find, leaders, send, wait_until
from tableside.errors import StackError
from tableside.settings import Settings

_NGINX = (Role.NGINX_MASTER, Role.NGINX_WORKER)
_WEB = (Role.WEB_KEEPER, Role.GUNICORN)
_STAGES = (
    (((Role.NGINX_KEEPER,),), signal.SIGTERM, (Role.NGINX_KEEPER, *_NGINX)),
    ((_NGINX,), signal.SIGQUIT, _NGINX),
    (((Role.WEB_KEEPER,), (Role.GUNICORN,)), signal.SIGTERM, _WEB),
    (((Role.MODEL, Role.HOLDER, Role.UPLOAD),), signal.SIGTERM, (Role.MODEL, Role.HOLDER, Role.UPLOAD)),
)
"""Groups of roles, the signal that the leaders of each group get, and which processes must have ended before the next
stage. Those that serve clients end first.
"""
_KILL_WAIT_S = 10.0


def stop(settings: Settings) -> int:
    """Stop the stack of this run folder and every process that an earlier one has left behind. Return 0.

    Waits until every process has ended; what does not end in time is killed and named on stderr.
    Raises StackError if supervisord does not end, or belongs to another user.
    """
    run_dir = settings.run_dir
    supervisors = find_supervisors(run_dir)
    limit_s = settings.server.stack_stop_s
    for pid in supervisors:
        try:
            os.kill(pid, signal.SIGTERM)
        except PermissionError:
            raise StackError(
                f"server.run_dir: the stack in {run_dir} belongs to another user; stop it as that"
            ) from None
        except ProcessLookupError:
            continue
    if not wait_until(lambda: not find_supervisors(run_dir), limit_s):
        raise StackError(f"server.run_dir: the stack in {run_dir} did not stop in {limit_s:g} s; see its log folder")
    left = end(settings)
    sys.stderr.write("tableside: stopped\n" if supervisors or left else f"tableside: no stack runs in {run_dir}\n")
    return 0


def end(settings: Settings) -> list[StackProcess]:
    """End the processes of this run folder that no supervisord watches, those that serve clients first.

    Return the ones that were found. What does not end in time is killed and named on stderr.
    """
    run_dir = settings.run_dir
    found = find(run_dir)
    if not found:
        return []
    wait_s = settings.server.stop_wait_s + settings.server.lame_duck_s
    _close_ports(settings)
    for signalled, number, awaited in _STAGES:
        groups = [leaders(find(run_dir, *roles)) for roles in signalled]
        if [send(process, number) for group in groups for process in group]:
            wait_until(partial(_is_gone, run_dir, awaited), wait_s)
    stubborn = find(run_dir)
    for process in stubborn:
        send(process, signal.SIGKILL)
    if stubborn:
        sys.stderr.write(f"tableside: killed what did not end: {', '.join(map(str, stubborn))}\n")
        wait_until(lambda: not find(run_dir), _KILL_WAIT_S)
    return found


def _is_gone(run_dir: Path, roles: tuple[Role, ...]) -> bool:
    return not find(run_dir, *roles)


def _close_ports(settings: Settings) -> None:
    """Close the ports without a reset if nginx has no keeper that would do it, but a holder still has the sockets."""
    run_dir = settings.run_dir
    if find(run_dir, Role.NGINX_KEEPER) or not find(run_dir, *_NGINX):
        return
    try:
        descriptors = fetch(run_dir, timeout_s=0)
    except TimeoutError:
        return
    with EndOfService(settings, descriptors) as end_of_service:
        end_of_service.serve_on()
        end_of_service.settle()
        for process in leaders(find(run_dir, *_NGINX)):
            send(process, signal.SIGQUIT)
        end_of_service.stop_listening(*_NGINX)
    close(descriptors.values())
