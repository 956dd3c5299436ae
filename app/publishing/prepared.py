"""What publish needs to know of an estimator, wherever it was read from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from tableside.contracts.schema import Contract
from tableside.errors import PublishFailed
from tableside.own_code.importer import OwnCode
from tableside.publishing.trainers_answers import TrainersAnswers


@dataclass(frozen=True)
class Prepared:
    """The arguments of `publish` that come from a file, an MLflow directory or a training record; and notes to print.

    optional: the columns that a signature does not require. code: own code that goes into the version. content: the
    bytes of the trainer's pickle, None for a skops file. trained_with: the versions that wrote the artifact. answers:
    the trainer's answers to the rows of the sample.
    """

    estimator: object
    sample: object
    source: dict[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    optional: tuple[str, ...] = ()
    code: OwnCode | None = None
    content: bytes | None = None
    trained_with: Mapping[str, str] = field(default_factory=dict)
    answers: TrainersAnswers | None = None

    def notes_for(self, contract: Contract) -> list[str]:
        """Return the notes to print after publish, with those that depend on the published contract."""
        notes = [*self.notes]
        strict = [c.name for c in contract.input.columns if c.name in self.optional and not c.nullable]
        if strict:
            notes.append(
                f"the signature calls {', '.join(strict)} optional, but the estimator raises for a missing value "
                "there: the contract requires a value"
            )
        if contract.golden.origin == "publish":
            notes.append(self._note_on_answers(contract))
        return notes

    def _note_on_answers(self, contract: Contract) -> str:
        ways = "add --expect FILE with the trainer's answers to the sample, or publish a training record"
        covered: set[str] = set()
        if self.answers is not None:
            try:
                covered = {*self.answers.for_outputs(contract.outputs, self.answers.rows)}
            except PublishFailed:
                covered = set()
        if not covered:
            return (
                "the golden answers were computed here, so they prove this server against itself, not against the "
                f"trainer's environment. To prove more, {ways}"
            )
        rest = [output.name for output in contract.outputs if output.name not in covered]
        return (
            f"{', '.join(sorted(covered))} agree with the trainer's answers; the golden answers of "
            f"{', '.join(rest) or 'some rows'} were computed here. To prove more, {ways}"
        )
