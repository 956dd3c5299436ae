"""The locked requirements are complete: installing them looks nothing up and leaves no requirement unmet."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

import pytest
from packaging.markers import default_environment
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

pytestmark = pytest.mark.no_greenlets

REQUIREMENTS = Path(__file__).parents[2] / "requirements"
ENVIRONMENTS = [
    {
        **default_environment(),
        "python_version": version,
        "python_full_version": f"{version}.0",
        "platform_machine": machine,
    }
    for version, machine in itertools.product(("3.11", "3.12", "3.13", "3.14"), ("x86_64", "aarch64"))
]


def label(environment: dict[str, str]) -> str:
    return f"{environment['python_version']}-{environment['platform_machine']}"


def locked(environment: dict[str, str], *names: str) -> dict[str, Requirement]:
    """Distribution name to its line, over the locked files of those names, in that environment."""
    found = {}
    for name in names:
        for line in (REQUIREMENTS / f"{name}.txt").read_text().splitlines():
            if line and not line.startswith((" ", "#")):
                requirement = Requirement(line.rstrip("\\ "))
                if holds(requirement, environment):
                    found[canonicalize_name(requirement.name)] = requirement
    return found


def holds(requirement: Requirement, environment: dict[str, str], extra: str = "") -> bool:
    return requirement.marker is None or requirement.marker.evaluate({**environment, "extra": extra})


def demands(lock: dict[str, Requirement], environment: dict[str, str]) -> Iterator[tuple[str, Requirement]]:
    """(who, what) for each requirement of each locked distribution, followed through the extras that are asked for."""
    extras = {name: set(line.extras) for name, line in lock.items()}
    waiting = sorted(extras)
    while waiting:
        name = waiting.pop()
        for text in metadata.requires(name) or []:
            wanted = Requirement(text)
            if not any(holds(wanted, environment, extra) for extra in ("", *extras[name])):
                continue
            yield name, wanted
            key = canonicalize_name(wanted.name)
            if key in extras and not wanted.extras <= extras[key]:
                extras[key] |= wanted.extras
                waiting.append(key)


@pytest.mark.parametrize("names", [("base",), ("base", "dev")], ids="+".join)
@pytest.mark.parametrize("environment", ENVIRONMENTS, ids=label)
def test_the_lock_meets_every_requirement_of_what_it_locks(names: tuple[str, ...], environment: dict[str, str]) -> None:
    """Each requirement, extras and markers included, is a locked distribution of a version that it allows."""
    lock = locked(environment, *names)
    unmet = []
    for who, wanted in demands(lock, environment):
        line = lock.get(canonicalize_name(wanted.name))
        if line is None:
            unmet.append(f"{who} requires {wanted}: not locked")
        elif not wanted.specifier.contains(next(iter(line.specifier)).version, prereleases=True):
            unmet.append(f"{who} requires {wanted}: locked is {line}")
    assert not unmet


OF_TESTS = sorted(f"environments/{file.stem}" for file in (REQUIREMENTS / "environments").glob("*.in"))


@pytest.mark.parametrize("name", ["installer", "base", "onnx", "tracing", "dev", "bench", "libraries", *OF_TESTS])
def test_each_line_has_one_version_and_its_hashes(name: str) -> None:
    """`==` and at least one sha256 for each distribution, no address of an index, no option."""
    text = (REQUIREMENTS / f"{name}.txt").read_text()
    assert "://" not in text
    assert not [line for line in text.splitlines() if line.startswith("-")]
    for entry in text.replace("\\\n", " ").splitlines():
        if entry and not entry.lstrip().startswith("#"):
            line = Requirement(entry.partition(" --hash")[0])
            assert [specifier.operator for specifier in line.specifier] == ["=="], entry
            assert "--hash=sha256:" in entry, entry


@pytest.mark.parametrize("environment", ENVIRONMENTS, ids=label)
def test_the_files_agree_with_each_other(environment: dict[str, str]) -> None:
    """A distribution that stands in two files has the same version in both: they are installed into one environment."""
    for one, other in itertools.combinations(("base", "onnx", "tracing", "dev", "libraries"), 2):
        first, second = locked(environment, one), locked(environment, other)
        for name in first.keys() & second.keys():
            assert first[name].specifier == second[name].specifier, name


def test_what_is_installed_is_what_is_locked() -> None:
    """The environment that runs this test has the locked versions, so what it proves holds for the lock."""
    for name, line in locked({**default_environment()}, "installer", "base", "dev").items():
        assert line.specifier.contains(metadata.version(name), prereleases=True), name
