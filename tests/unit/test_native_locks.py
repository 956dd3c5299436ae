"""In a process that gevent has patched, native threads share no lock of gevent's kind: they might wait for ever."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = """
from gevent import monkey
monkey.patch_all()
import os, sys, threading
import tableside.factory
from tableside.process.offload import make_offload
from gevent.thread import LockType

offload, taken, acquire = make_offload(2), [], LockType.acquire

def record(lock, *args, **options):
    if threading.get_native_id() != os.getpid():
        taken.append(sys._getframe(1).f_code.co_filename)
    return acquire(lock, *args, **options)

LockType.acquire = record
offload.call(lambda: __import__("never_imported_before"))
assert taken == [], taken
import numpy as np, pandas as pd
offload.call(lambda: pd.array(np.array(["a", None], dtype=object), dtype=pd.StringDtype("pyarrow")))
assert taken == [], taken
offload.call(lambda: threading.Lock().acquire())
assert len(taken) == 1, "the test sees such a lock"
"""


@pytest.mark.processes
def test_native_threads_import_and_make_texts_under_no_lock_of_gevent(tmp_path: Path) -> None:
    """A load of a version and a prediction do both, in several native threads and beside the event loop."""
    (tmp_path / "never_imported_before.py").write_text("")
    subprocess.run([sys.executable, "-c", SCRIPT], cwd=tmp_path, check=True, timeout=120)
