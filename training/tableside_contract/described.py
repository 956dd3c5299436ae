"""Describes the estimator of a file, for a server that must not load it: facts, versions and an artifact, no rows."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TypedDict

from tableside_contract import record
from tableside_contract.environment import environment
from tableside_contract.facts import Facts, describe
from tableside_contract.unheld import smallest_unheld

FILE = "described.json"


class Description(TypedDict):
    """The content of `described.json`. unheld: which part no skops file can hold, and why; empty if one holds all."""

    facts: Facts
    trained_with: dict[str, str]
    artifact: record.Artifact
    unheld: str


def describe_file(model: Path, folder: Path) -> Description:
    """Load the estimator of a file and write its description and its artifact into an existing folder.

    Loading a joblib or pickle file runs the code in it. Raises RecordFailed.
    """
    estimator = record.load(model)
    facts = describe(estimator)
    artifact = record.write_artifact(estimator, folder)
    found = Description(
        facts=facts, trained_with=environment(facts["libraries"]), artifact=artifact,
        unheld="" if artifact["file"] == record.SKOPS else smallest_unheld(estimator),
    )  # fmt: skip
    (folder / FILE).write_text(json.dumps(found, ensure_ascii=False), encoding="utf-8")
    return found
