"""Supervisord's programs as they are in force: those of the running supervisord, or of its files."""

from __future__ import annotations

import configparser
import re
import socket
from collections.abc import Iterable, Mapping
from http.client import HTTPException
from pathlib import Path
from xmlrpc.client import Error

from tableside.deployment.model_programs import connect

Programs = Mapping[str, Mapping[str, str]]
"""The settings of each program, by its name and theirs."""
_VARIABLE = re.compile(r"%\(ENV_([A-Za-z0-9_]+)\)s")
_PROGRAM = "program:"
STATE = "statename"
"""The key, of a program of a running supervisord, with the state of its processes: of one that is DOWN, if any is."""
DOWN = ("STOPPED", "BACKOFF", "EXITED", "FATAL", "UNKNOWN")
_TIMEOUT_S = 5.0


def of_files(paths: Iterable[Path], environ: Mapping[str, str]) -> Programs:
    """Return the programs of supervisord's files with the variables replaced. A missing file has none.

    Raises ValueError if a file cannot be read as such.
    """
    parser = configparser.RawConfigParser(inline_comment_prefixes=(";",), strict=False)
    try:
        parser.read(paths, encoding="utf-8")
    except (configparser.Error, UnicodeDecodeError) as problem:
        raise ValueError(" ".join(str(problem).split())) from problem
    return {
        section.removeprefix(_PROGRAM): {
            key: _VARIABLE.sub(lambda found: environ.get(found[1], found[0]), text)
            for key, text in parser.items(section)
        }
        for section in parser.sections()
        if section.startswith(_PROGRAM)
    }


def of_supervisord(run_dir: Path) -> Programs:
    """Return the programs that the running supervisord has read; none if it does not answer."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(_TIMEOUT_S)
    try:
        supervisor = connect(run_dir)
        states = {(each["group"], each["name"]): each["statename"] for each in supervisor.getAllProcessInfo()}
        found: dict[str, dict[str, str]] = {}
        for each in supervisor.getAllConfigInfo():
            program = found.setdefault(str(each["group"]), {key: str(text) for key, text in each.items()})
            state = str(states.get((each["group"], each["name"]), ""))
            if state in DOWN or STATE not in program:
                program[STATE] = state
        return found
    except (OSError, HTTPException, Error):
        return {}
    finally:
        socket.setdefaulttimeout(before)
