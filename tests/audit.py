"""`make audit`: asks the OSV database (osv.dev) for known weaknesses of every locked package.

Usage: python -m tests.audit [ADDRESS]. Exit status: 0 if there is none but those of
requirements/accepted-findings.toml, 1 if there is another one, 2 if the database cannot be reached. ADDRESS is that of
another server with the same API.
Source: google.github.io/osv.dev/post-v1-querybatch.
"""

from __future__ import annotations

import json
import re
import sys
import tomllib
import urllib.error
import urllib.request
from pathlib import Path

REQUIREMENTS = Path(__file__).resolve().parents[1] / "requirements"
ACCEPTED = REQUIREMENTS / "accepted-findings.toml"
ADDRESS = "https://api.osv.dev"
_LOCKED = re.compile(r"^([A-Za-z0-9._-]+)(?:\[[^\]]*\])?==([^\s;\\]+)", re.MULTILINE)
_BATCH = 500


def locked(folder: Path = REQUIREMENTS) -> list[tuple[str, str]]:
    """The name and version of every package in the locked files, those of test environments left out."""
    found = {pair for file in sorted(folder.glob("*.txt")) for pair in _LOCKED.findall(file.read_text("utf-8"))}
    return sorted(found)


def findings(packages: list[tuple[str, str]], address: str) -> dict[str, set[str]]:
    """The packages (name==version) by the id of each known weakness. Raises OSError without an answer."""
    found: dict[str, set[str]] = {}
    for at in range(0, len(packages), _BATCH):
        part = packages[at : at + _BATCH]
        queries = [{"package": {"ecosystem": "PyPI", "name": name}, "version": version} for name, version in part]
        body = json.dumps({"queries": queries}).encode()
        request = urllib.request.Request(f"{address}/v1/querybatch", body, {"Content-Type": "application/json"})
        with urllib.request.urlopen(request, timeout=60) as answer:
            results = json.load(answer)["results"]
        for (name, version), result in zip(part, results, strict=True):
            for finding in result.get("vulns", ()):
                found.setdefault(finding["id"], set()).add(f"{name}=={version}")
    return found


def accepted(file: Path = ACCEPTED) -> dict[str, str]:
    """The reason of each accepted finding by its id. Raises ValueError for one without a reason."""
    reasons: dict[str, str] = tomllib.loads(file.read_text("utf-8"))["accepted"]
    if unexplained := [name for name, reason in reasons.items() if not reason.strip()]:
        raise ValueError(f"{file.name} gives no reason for {', '.join(unexplained)}")
    return reasons


def main(address: str = ADDRESS) -> int:
    """Print each finding and the sum in one line. Return the exit status."""
    packages, known = locked(), accepted()
    try:
        found = findings(packages, address)
    except (OSError, ValueError, KeyError) as problem:
        sys.stderr.write(f"tableside: make audit: {address} gives no answer ({problem}); nothing was audited\n")
        return 2
    for name, where in sorted(found.items()):
        verdict = f"accepted: {known[name]}" if name in known else "NOT ACCEPTED"
        sys.stdout.write(f"{name}  {', '.join(sorted(where))}  {verdict}\n")
    new = found.keys() - known.keys()
    sys.stdout.write(f"{len(packages)} packages, {len(found)} findings, {len(new)} of them not accepted\n")
    return 1 if new else 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
