"""The instances of a run folder: every gunicorn master with its workers, those whose master has died included.

They are found in /proc, so that a full disk, a removed file or the death of any process hides none.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from tableside.deployment import releases
from tableside.deployment.layout import moved
from tableside.deployment.releases import Release
from tableside.process import process_table
from tableside.process.instance_names import INSTANCE_ID, RUN_DIR
from tableside.process.process_table import Found, Process
from tableside.setting_variables import FOLDER_VARIABLE
from tableside.settings import Settings, load

SUPERVISOR = "TABLESIDE_SUPERVISOR"
"""The variable that names the supervisord under which an instance was started: its pid and start time."""

FOLDER = "TABLESIDE_RELEASE_FOLDER"
"""The variable with the folder of an instance's release, without links: a link may lead elsewhere by now."""


@dataclass(frozen=True)
class Instance:
    """One gunicorn master and its workers. master: None if it has died.

    supervisor, folder: the values of SUPERVISOR and FOLDER. release: as the operator named it; a link may be in it.
    environ: the environment that its gunicorn was started with.
    """

    name: str
    supervisor: str
    master: Process | None
    workers: tuple[Process, ...]
    folder: str = ""
    release: Release | None = None
    environ: Mapping[str, str] = field(default_factory=dict, compare=False)

    @property
    def interpreter(self) -> str:
        """The path of its interpreter without a link to its folder, which may lead elsewhere later."""
        if self.release is None:
            return ""
        return moved(self.release.python, Path(self.release.project), Path(self.folder or self.release.project))

    @property
    def flipped_release(self) -> Release | None:
        """The release, if it was started through a link that leads to another folder by now; otherwise None."""
        if self.release is None or not self.folder or os.path.realpath(self.release.project) == self.folder:
            return None
        return self.release

    def next_settings(self) -> Settings:
        """Return the settings of an instance that would replace this one now. Raises SettingsError.

        The variables are those of this one, which a shell need not have; the settings file is read as it is now.
        """
        folder = {FOLDER_VARIABLE: self.release.project} if self.release else {}
        return load({**folder, **self.environ})

    def terminate(self) -> None:
        """Make it drain: SIGTERM to the master, which passes it on, or to each worker if the master has died."""
        for process in (self.master,) if self.master else self.workers:
            process_table.send(process, signal.SIGTERM)

    def kill(self) -> None:
        """End all its processes at once, the master first: it would replace its workers."""
        for process in (*((self.master,) if self.master else ()), *self.workers):
            process_table.send(process, signal.SIGKILL)


def environment(
    release: Release, environ: Mapping[str, str], name: str, run_dir: Path, supervisor: str
) -> dict[str, str]:
    """Return the environment of a new instance of this name. environ: that of the web keeper."""
    return releases.environment(release, environ) | {
        INSTANCE_ID: name,
        RUN_DIR: str(run_dir),
        SUPERVISOR: supervisor,
        FOLDER: os.path.realpath(release.project),
        "SPT_NOENV": "1",  # setproctitle, where it is installed, must leave the environment as it is
    }


def find(run_dir: Path) -> dict[str, Instance]:
    """Return the instances of this run folder by name, the oldest first."""
    groups: dict[str, list[Found]] = {}
    for found in process_table.find("gunicorn", INSTANCE_ID):
        if is_same_folder(found.environ.get(RUN_DIR, ""), run_dir):
            groups.setdefault(found.environ[INSTANCE_ID], []).append(found)
    return {name: _instance(name, groups[name]) for name in sorted(groups)}


def newest(found: dict[str, Instance]) -> Instance | None:
    """Return the one that was started last of what `find` has found; None if there is none."""
    return next(reversed(found.values()), None)


def settings_of_stack(settings: Settings) -> Settings:
    """Return the settings of the stack that runs in the run folder of these, with its variables; these if none runs.

    Raises SettingsError.
    """
    running = newest(find(settings.run_dir))
    return running.next_settings() if running else settings


def _instance(name: str, group: Iterable[Found]) -> Instance:
    members = list(group)
    # gunicorn is started in a session of its own, which its master leads and its workers inherit.
    master = next((each.process for each in members if each.leads_session), None)
    workers = tuple(each.process for each in members if not each.leads_session)
    environ = members[0].environ
    return Instance(
        name,
        environ.get(SUPERVISOR, ""),
        master,
        workers,
        environ.get(FOLDER, ""),
        releases.running(environ),
        environ,
    )


def is_same_folder(text: str, folder: Path) -> bool:
    """Return whether a path from the environment of a process names this folder."""
    if text == str(folder):
        return True
    try:
        return bool(text) and os.path.samefile(text, folder)
    except OSError:
        return False
