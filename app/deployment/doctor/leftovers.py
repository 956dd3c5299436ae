"""Files of the run folder and drafts of the repository that no process uses any more, and sockets nobody listens on."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from tableside import sizes
from tableside.deployment.doctor.finding import Finding, Level
from tableside.deployment.doctor.set_up import SetUp
from tableside.deployment.layout import CONTROL_SOCKET, WEB_SOCKET
from tableside.process import hand_file, operations
from tableside.process.file_locks import is_locked
from tableside.repository import paths

ABOUT = "stale files"
OLD_S = 86400.0
"""Age from which on a file that is only used for moments counts as left behind."""
PASSING = ("tmp/answers", "tmp/answer_drafts", "tmp/body")
"""Folders, in the run folder, of what is on its way to or from a client."""
_CONNECT_TIMEOUT_S = 2.0


def check(set_up: SetUp) -> Iterator[Finding]:
    """Yield what was left behind."""
    run_dir = set_up.settings.run_dir
    if set_up.supervisord:
        yield from _refusing(run_dir) if set_up.behind_nginx else ()
    elif set_up.statuses:
        yield Finding(
            Level.WARNING, ABOUT, "workers run without supervisord", f"{len(set_up.statuses)} workers, no supervisord",
            "nothing starts gunicorn and nginx again when they end",
            "Run `tableside run`: it takes the workers over without a gap. Or end them with `tableside stop`",
        )  # fmt: skip
    else:
        yield from _of_former_stack(run_dir)
    yield from _old_files(set_up)
    yield from _drafts(set_up)
    lost = [each for each in operations.recent(run_dir, operations.KEEP) if each.state == "lost"]
    if lost:
        yield Finding(
            Level.NOTE, ABOUT, "operations were cut off", f"{len(lost)}, the newest {lost[0].id} ({lost[0].kind})",
            "they have not said how they ended", "Look with `tableside operations` and `tableside list`, and do again "
            "what is missing",
        )  # fmt: skip


def _refusing(run_dir: Path) -> Iterator[Finding]:
    for name in (WEB_SOCKET, CONTROL_SOCKET):
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
            probe.settimeout(_CONNECT_TIMEOUT_S)
            try:
                probe.connect(str(run_dir / name))
            except (ConnectionRefusedError, FileNotFoundError):
                yield Finding(
                    Level.ERROR, ABOUT, f"nobody listens on {name}", str(run_dir / name),
                    "new workers, and nginx, reach nobody: requests get 502",
                    "Run `tableside stop` and start the stack again",
                )  # fmt: skip
            except OSError:  # the queue is full, or the file belongs to another user
                continue


def _of_former_stack(run_dir: Path) -> Iterator[Finding]:
    """A stack that ends in order leaves sockets too, but no pid file of supervisord."""
    if (run_dir / "supervisord.pid").exists():
        left = sorted(each.name for pattern in ("*.sock", "*.pid") for each in run_dir.glob(pattern))
        yield Finding(
            Level.NOTE, ABOUT, "an earlier stack was killed", f"{', '.join(left)} in {run_dir}",
            "its files are left; the next start removes them", "Run `tableside run`",
        )  # fmt: skip


def _old_files(set_up: SetUp) -> Iterator[Finding]:
    run_dir, before_s = set_up.settings.run_dir, set_up.now.timestamp() - OLD_S
    candidates = [file for folder in PASSING for file in _files(run_dir / folder)]
    if not set_up.supervisord:
        candidates += [*run_dir.glob("*.new"), *(run_dir / operations.FOLDER).glob("*.draft")]
        in_hand = (run_dir / hand_file.FOLDER).glob("requests.*")
        candidates += [file for file in in_hand if file.name != hand_file.FILE]
    found = [file for file in candidates if 0 < _changed_s(file) < before_s]
    if found:
        size = sum(_size(file) for file in found)
        yield Finding(
            Level.WARNING, ABOUT, "files of killed processes or of another release are left",
            f"{len(found)} files, {sizes.in_words(size)}, older than a day, such as {found[0]}",
            "they take room on the disk that the stack needs", f"Remove them, in {found[0].parent} and its like",
        )  # fmt: skip


def _drafts(set_up: SetUp) -> Iterator[Finding]:
    root, before_s = set_up.settings.repository_path, set_up.now.timestamp() - OLD_S
    publishes = is_locked(set_up.settings.run_dir / "operations/uploads.lock")
    found = [] if publishes else [each for each in root.glob("*/.publishing-*") if 0 < _changed_s(each) < before_s]
    if found:
        size = sum(_size(file) for draft in found for file in _files(draft))
        yield Finding(
            Level.NOTE, ABOUT, "publishes and uploads that were killed have left drafts",
            f"{len(found)} folders, {sizes.in_words(size)}, such as {found[0]}",
            "they take room; the next publish of the model removes them", f"Run: rm -r {root}/*/.publishing-*",
        )  # fmt: skip


def _files(folder: Path) -> list[Path]:
    with suppress(OSError):
        return [each for each in folder.rglob("*") if each.is_file()]
    return []


def _changed_s(file: Path) -> float:
    with suppress(OSError):
        return file.stat().st_mtime
    return 0.0


def _size(file: Path) -> int:
    with suppress(OSError):
        return file.stat().st_size
    return 0


def newest_file_s(set_up: SetUp) -> tuple[float, Path]:
    """Return the latest time of change among the run folder's own files and those of the repository, and its file."""
    root, run_dir = set_up.settings.repository_path, set_up.settings.run_dir
    files = [run_dir / "supervisord.pid", run_dir / "stack.json", *run_dir.glob("log/*.log"), *run_dir.glob("*.conf")]
    for name in paths.models(root) if root.is_dir() else ():
        files += [root / name / paths.MODEL_TOML]
        files += [paths.version_folder(root, name, number) / paths.CONTRACT for number in paths.versions(root, name)]
    return max(((_changed_s(file), file) for file in files), default=(0.0, run_dir))
