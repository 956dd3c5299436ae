"""Models that a new release cannot serve go on in the interpreter of the release that serves them now."""

from __future__ import annotations

from collections.abc import Collection, Iterable

from tableside.cli.release_check import Refused, Report
from tableside.model_process import known_environments
from tableside.setting_variables import ENV_PREFIX

ENVIRONMENTS = f"{ENV_PREFIX}ENVIRONMENTS__"
MODEL_ENVIRONMENTS = f"{ENV_PREFIX}REPOSITORY__MODEL_ENVIRONMENTS"


def movable(refused: Iterable[Refused], served: Collection[tuple[str, int]]) -> list[str]:
    """Return the models that can run in the old interpreter: every version that is served has other libraries only.

    An environment holds for all versions of a model, so that one which the new release can serve keeps them all there.
    """
    skewed = {(each.name, each.version) for each in refused if each.is_skewed}
    names = sorted({name for name, _ in skewed})
    return [name for name in names if all(key in skewed for key in served if key[0] == name)]


def variables(found: Report, models: Collection[str], python: str) -> tuple[str, dict[str, str]]:
    """Return the name of an environment with the old interpreter, and the settings that let the models run in it.

    found: what the new release says of itself. python: the old interpreter. The settings are environment variables.
    Raises ContractBroken if the interpreter does not run.
    """
    minor = ".".join(known_environments.installed(python)["scikit-learn"].split(".")[:2])
    name, number = f"release-{minor}", 1
    while found.environments.get(name, python) != python:
        number += 1
        name = f"release-{minor}-{number}"
    assigned = [*found.model_environments, *(f"{model}={name}" for model in models)]
    return name, {f"{ENVIRONMENTS}{name.upper()}__PYTHON": python, MODEL_ENVIRONMENTS: ",".join(assigned)}
