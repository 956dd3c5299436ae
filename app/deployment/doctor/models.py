"""The repository against this host: model.toml, libraries, and what the current generation refuses."""

from __future__ import annotations

import platform
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from tableside.contracts.environment import environment
from tableside.contracts.schema import Contract
from tableside.deployment.doctor.finding import Finding, Level
from tableside.deployment.doctor.set_up import SetUp
from tableside.errors import ContractBroken
from tableside.install_hints import install_hint
from tableside.model_process.known_environments import LibrariesByName
from tableside.process.generation_words import GenerationWords
from tableside.repository import consent_file, integrity, model_toml, model_toml_checks, paths, version_record
from tableside.repository.model_toml import ModelConfig
from tableside.serving.generations import FOLDER, Generations
from tableside.serving.lifecycle import State
from tableside.serving.statement import EMPTY, Statement
from tableside.serving.version_status import merge_statuses, read_statuses
from tableside_contract.environment import same_minor

MODELS, LIBRARIES, PYTHON = "models", "libraries", "Python"
COMPARED = ("numpy", "pandas", "scipy", "skops", "joblib")
"""Libraries whose minor version may change answers or what can be read; scikit-learn's must not differ at all."""
OLDEST, NEWEST = (3, 11), (3, 14)
"""The versions of Python that are tested."""


def check(set_up: SetUp) -> Iterator[Finding]:
    """Yield the problems of models and libraries."""
    yield from _python(set_up)
    root = set_up.settings.repository_path
    if not root.is_dir():
        yield Finding(
            Level.ERROR, MODELS, "the model repository does not exist", str(root), "the stack does not start",
            "Set repository.path, or publish a model into it",
        )  # fmt: skip
        return
    libraries = LibrariesByName(set_up.settings)
    differing: dict[str, list[str]] = {}
    warned: dict[str, list[str]] = {}
    slower: dict[str, list[str]] = {}
    for name in paths.models(root):
        try:
            config = model_toml.read(root, name)
        except ContractBroken as problem:
            yield Finding(
                Level.ERROR, MODELS, f"model.toml of {name} cannot be used", str(problem),
                "the model is served as before the change, or not at all", f"Correct {root / name / paths.MODEL_TOML}",
            )  # fmt: skip
            continue
        for line in model_toml_checks.contradictions(root, name, config):
            yield Finding(
                Level.WARNING, MODELS, f"model.toml of {name} contradicts the repository", line,
                "that part of it has no effect", f"Correct {root / name / paths.MODEL_TOML}",
            )  # fmt: skip
        yield from _versions(set_up, name, config, libraries, differing, warned, slower)
    for warning, versions in sorted(warned.items()):
        yield Finding(
            Level.WARNING, LIBRARIES, f"other libraries than at publish: {_some(versions)}", warning,
            "they are served by libraries that they were not trained with", "Publish again here",
        )  # fmt: skip
    for library, versions in sorted(slower.items()):
        yield Finding(
            Level.NOTE, LIBRARIES, f"slower backends compute some versions: {_some(versions)}",
            f"{library} is not installed", "their predictions take longer",
            f"Run: {install_hint('onnx')}. Then run `tableside restart`",
        )  # fmt: skip
    for difference, versions in sorted(differing.items()):
        yield Finding(
            Level.NOTE, LIBRARIES, f"{len(versions)} versions were published with another library",
            f"{difference}: {_some(versions)}",
            "their golden rows are compared at each load, so that a version which answers differently is not served",
            "Publish them again here, or serve them in their own environment",
        )  # fmt: skip
    yield from _refused(set_up)
    yield from _served(set_up)


def _some(versions: Sequence[str]) -> str:
    """Return the first versions of a list in words."""
    return f"{', '.join(versions[:5])}{', ...' * (len(versions) > 5)}"


def _python(set_up: SetUp) -> Iterator[Finding]:
    here = tuple(map(int, platform.python_version_tuple()[:2]))
    if not OLDEST <= here <= NEWEST:
        yield Finding(
            Level.WARNING, PYTHON, "this version of Python is not tested", f"Python {platform.python_version()}",
            "the stack may not start, or answer differently", "Use Python 3.11 to 3.14",
        )  # fmt: skip
    if set_up.environ.get("PYTHONOPTIMIZE"):
        yield Finding(
            Level.WARNING, PYTHON, "Python's checks are off", f"PYTHONOPTIMIZE={set_up.environ['PYTHONOPTIMIZE']}",
            "assertions of libraries are left out, so that a mistake goes on unseen",
            "Remove PYTHONOPTIMIZE from the environment of the stack",
        )  # fmt: skip


def _versions(
    set_up: SetUp, name: str, config: ModelConfig, libraries: LibrariesByName, differing: dict[str, list[str]],
    warned: dict[str, list[str]], slower: dict[str, list[str]],
) -> Iterator[Finding]:  # fmt: skip
    """Yield the versions that cannot be served.

    differing, warned: get the versions that were made with other libraries, by what differs and by the warning of it.
    slower: gets those whose fast backends lack a library, by its name.
    """
    settings = set_up.settings
    root = settings.repository_path
    for number in config.wanted(paths.versions(root, name)) if config.enabled else ():
        key = f"{name}/{number}"
        try:
            contract = _contract(set_up, name, number)
            here = libraries.find(model_toml.environment_of(name, config, settings.repository))
            warning = integrity.check_environment(contract, settings.repository.environment_skew, here)
        except ContractBroken as problem:
            yield Finding(
                Level.ERROR, LIBRARIES if problem.failure_kind == "environment" else MODELS, f"{key} cannot be served",
                str(problem), "requests for it get 503", "Do what the message says, then run `tableside reload`",
            )  # fmt: skip
            continue
        if warning:
            warned.setdefault(warning, []).append(key)
        for library in integrity.missing_libraries(contract) if here is None else ():
            slower.setdefault(library, []).append(key)
        for difference in _differences(contract, here or environment()):
            differing.setdefault(difference, []).append(key)


def _contract(set_up: SetUp, name: str, number: int) -> Contract:
    """Return the contract of a version. Raises ContractBroken as its load would, as far as that is seen without reading
    the artifact: `tableside verify` reads it.
    """
    policy, root = set_up.settings.repository, set_up.settings.repository_path
    contract = integrity.read_contract(root, name, number, policy.trusted_keys)
    integrity.check_checksums(root, contract)
    consent_file.check(root, contract, Path(policy.consent_file))
    version_record.check(root, name, number)
    if not (paths.version_folder(root, name, number) / contract.artifact.file).is_file():
        missing = f"{name}/{number}/{contract.artifact.file}"
        raise ContractBroken(f"{missing} is missing. Restore it from a copy, or publish the model again")
    return contract


def _differences(contract: Contract, here: Mapping[str, str]) -> Iterator[str]:
    for package in COMPARED:
        then, now = contract.environment.get(package), here.get(package)
        if then and now and not same_minor(then, now):
            yield f"{package} {then} at publish, {now} here"


def _served(set_up: SetUp) -> Iterator[Finding]:
    """Yield what the workers report of versions, beside what their generation refuses."""
    refusals = current_statement(set_up).refusals
    for (name, number), entry in sorted(merge_statuses(read_statuses(set_up.statuses)).items()):
        if entry.state is State.READY and not entry.current:
            yield Finding(
                Level.ERROR, MODELS, f"{name}/{number} is served only until the next restart", entry.reason,
                "workers that start later cannot load it: requests for it get 503 then",
                "Do what the message says, then run `tableside reload`",
            )  # fmt: skip
        elif entry.state is State.UNAVAILABLE and entry.failure_kind and (name, number) not in refusals:
            yield Finding(
                Level.ERROR, MODELS, f"{name}/{number} is not served by every worker",
                f"{entry.failure_kind}: {entry.reason}", "requests for it get 503",
                "Do what the message says, then run `tableside reload`",
            )  # fmt: skip


def _refused(set_up: SetUp) -> Iterator[Finding]:
    statement = current_statement(set_up)
    for (name, number), refusal in sorted(statement.refusals.items()):
        yield Finding(
            Level.ERROR, MODELS, f"every worker refuses {name}/{number}",
            f"generation {statement.generation}, {refusal.kind}: {refusal.reason}", "requests for it get 503",
            "docs/guide/operate.md has the ways out by the reason; then run `tableside reload`",
        )  # fmt: skip
    for name, model in sorted(statement.models.items()):
        if model.problem and not model.refused:
            yield Finding(
                Level.ERROR, MODELS, f"model.toml of {name} is not in force", model.problem,
                "the model is served as before the change", "Correct the file; the workers read it by themselves",
            )  # fmt: skip


def current_statement(set_up: SetUp) -> Statement:
    """Return the statement that most workers serve; an empty one without workers, or if it is lost."""
    numbers = [number for each in set_up.statuses if isinstance(number := each.get("generation"), int) and number]
    if not numbers:
        return EMPTY
    try:
        generations = Generations(set_up.settings.run_dir / FOLDER, GenerationWords.alone())
        return generations.read(max(numbers, key=numbers.count))
    except ContractBroken:
        return EMPTY
