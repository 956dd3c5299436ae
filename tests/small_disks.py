"""Run programs on a small file system that exists for them alone: a tmpfs in a mount namespace of their own.

An ordinary user makes the namespace with a user namespace around it (`unshare --map-root-user`).
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

_PROJECT = Path(__file__).resolve().parents[1]

_MOUNT = (
    'for each in $TABLESIDE_TEST_MOUNTS; do mount -t tmpfs -o "size=${each#*=}" tmpfs "${each%%=*}"; done; exec "$@"'
)


def on_small_disks(command: list[str], sizes: Mapping[Path, str]) -> list[str]:
    """Return a command that runs `command` with these folders as empty file systems of a size such as `1m`.

    The folders have to exist and have no spaces in their paths. Other processes reach them below `seen_by`.
    """
    mounts = " ".join(f"{folder}={size}" for folder, size in sizes.items())
    user = [] if os.geteuid() == 0 else ["--user", "--map-root-user"]
    return ["env", f"TABLESIDE_TEST_MOUNTS={mounts}", "unshare", "--mount", *user, "sh", "-ec", _MOUNT, "sh", *command]


def run_on_small_disk(code: str, folder: Path, size: str) -> subprocess.CompletedProcess[str]:
    """Run Python code, which gets the folder as its argument, with the folder as an empty file system of this size."""
    environ = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, [*sys.path, str(_PROJECT)]))}
    command = on_small_disks([sys.executable, "-c", code, str(folder)], {folder: size})
    return subprocess.run(command, cwd=_PROJECT, env=environ, timeout=120, capture_output=True, text=True, check=False)


def seen_by(pid: int, path: Path) -> Path:
    """Return the path by which other processes reach a file as the process `pid` sees it."""
    return Path(f"/proc/{pid}/root{path}")


def fill(folder: Path) -> Path:
    """Fill up the file system of a folder, to the last byte. Return the file that takes the space."""
    file = folder / "filler"
    with file.open("ab", buffering=0) as stream:
        for size in (1 << 20, 1 << 12, 1):
            try:
                while stream.write(b"x" * size):
                    pass
            except OSError:
                continue
    return file
