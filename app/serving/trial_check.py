"""Whether requests for the version that answers can be given to another one: for a canary."""

from __future__ import annotations

from pathlib import Path

from tableside.repository import integrity, model_toml, paths
from tableside.repository.refusals import ReleaseRefused
from tableside.serving import answer_comparison


def refuse_differences(root: Path, name: str, version: int) -> None:
    """Refuse a version that does not take the tables, or has not the outputs, of the one that `default` names.

    Raises ReleaseRefused with the differences.
    """
    default = model_toml.read(root, name).aliases.get(paths.DEFAULT)
    if default is None or default == version or default not in paths.versions(root, name):
        return  # refused with a better sentence by the edit
    served = integrity.read_contract(root, name, default)
    candidate = integrity.read_contract(root, name, version)
    found = answer_comparison.input_differences(served.input, candidate.input)
    found += answer_comparison.output_differences(served.outputs, candidate)
    if found:
        raise ReleaseRefused(
            f"{name}/{version} differs from {name}/{default}, so requests for the one cannot be given to the other: "
            f"{'; '.join(found)}. Nothing has changed"
        )
