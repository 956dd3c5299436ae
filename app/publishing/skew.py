"""Refuses an artifact that another minor version of scikit-learn wrote, before it is loaded.

Fitted attributes change between minor versions, and an estimator that loads all the same may answer otherwise.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from tableside.contracts.environment import environment
from tableside.errors import PublishFailed
from tableside_contract.artifact_versions import library_versions, sklearn_versions
from tableside_contract.environment import same_minor

SKLEARN = "scikit-learn"


@dataclass(frozen=True)
class Gate:
    """Decides whether an artifact may be loaded in this environment.

    policy: `repository.environment_skew`. has_answers: whether the trainer's answers will be compared, without which
    `warn` is not enough. here: the versions of the environment that is to run the artifact.
    """

    policy: Literal["refuse", "warn"] = "refuse"
    has_answers: bool = False
    here: Mapping[str, str] = field(default_factory=environment)

    def check(self, label: str, versions: Sequence[str]) -> None:
        """Raise PublishFailed if one of the scikit-learn versions that wrote the artifact is of another minor."""
        here = self.here.get(SKLEARN, "none")
        others = [version for version in versions if not same_minor(version, here)]
        if not others or (self.policy == "warn" and self.has_answers):
            return
        raise PublishFailed(f"{label} was written with {SKLEARN} {' and '.join(others)}, {self._text(here)}")

    def _text(self, here: str) -> str:
        text = (
            f"but this environment has {here}. Answers may change with the minor version. Train the model again with "
            f"{here}; or make a training record where it was trained (python -m tableside_contract), so that its "
            "answers there can be compared; or serve it in its own environment (--environment NAME)"
        )
        if self.policy == "warn":
            needed = "the trainer's answers: a training record, or --expect FILE"
            return f'{text}. repository.environment_skew = "warn" needs {needed}'
        return (
            f'{text}. With the trainer\'s answers, repository.environment_skew = "warn" publishes it here if they agree'
        )


def completed(found: Mapping[str, str], there: Mapping[str, str]) -> dict[str, str]:
    """Return the versions that wrote an artifact; those that are not known exactly are those of its environment.

    found: what the artifact and the files beside it say, such as `2.x` for numpy. there: the environment's versions.
    """
    return {**there, **{package: version for package, version in found.items() if ".x" not in version}}


def written_with(artifact: Path | bytes, *others: Mapping[str, str]) -> tuple[dict[str, str], list[str]]:
    """Return the versions that wrote an artifact, and all versions of scikit-learn that are named for it.

    The file itself says which scikit-learn wrote it; others: what files beside it say, the most reliable one first.
    Raises PublishFailed when the file cannot be read.
    """
    try:
        in_file, libraries = sklearn_versions(artifact), library_versions(artifact)
    except OSError as problem:
        raise PublishFailed(f"{artifact!s}: {problem.strerror or problem}") from problem
    found: dict[str, str] = {SKLEARN: " and ".join(in_file)} if in_file else {}
    versions = dict.fromkeys(in_file)
    for other in others:
        for package, version in other.items():
            found.setdefault(package, version)
        if SKLEARN in other:
            versions.setdefault(other[SKLEARN])
    return {**libraries, **found}, [*versions]
