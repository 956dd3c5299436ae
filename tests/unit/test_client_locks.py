"""The environments of real clients (`make test-clients`) are locked with hashes, and name no address of a registry."""

from __future__ import annotations

import json
import re

from tests.clients import environments


def test_every_python_client_is_locked() -> None:
    """Each list of requirements has a lock, in which every distribution has a version and a hash."""
    for wanted in sorted(environments.LOCKS.glob("*.in")):
        lock = wanted.with_suffix(".txt").read_text()
        for line in wanted.read_text().splitlines():
            if name := re.match(r"[\w.-]+", line):
                assert re.search(rf"^{re.escape(name[0])}(\[\w+\])?==", lock, re.MULTILINE), (wanted.name, line)
        entries = re.split(r"^(?=[A-Za-z0-9])", lock, flags=re.MULTILINE)[1:]
        assert entries
        assert [entry for entry in entries if "==" not in entry or "--hash=sha256:" not in entry] == []
        assert "://" not in re.sub(r"^ *#.*", "", lock, flags=re.MULTILINE)


def test_every_package_of_node_is_locked() -> None:
    """Each package has a version and a hash, and no address."""
    lock = json.loads((environments.NODE / "package-lock.json").read_text())
    packages = {name: entry for name, entry in lock["packages"].items() if name}
    assert {f"node_modules/{name}" for name in lock["packages"][""]["dependencies"]} <= packages.keys()
    assert [name for name, entry in packages.items() if "integrity" not in entry or "resolved" in entry] == []
