"""A change of one model: its file is edited, and all workers of the host switch to it; or neither is done."""

from __future__ import annotations

from collections.abc import Callable, Collection
from functools import partial
from typing import Generic, TypeVar

import msgspec

from tableside.control_errors import GenerationChanged
from tableside.process.offload import run_native
from tableside.repository import model_toml, model_toml_edits
from tableside.repository.release_edits import Change
from tableside.serving import switching
from tableside.serving.statement import Key
from tableside.serving.switching import Outcome
from tableside.settings import Settings
from tableside.switch_errors import SwitchRefused

Made = TypeVar("Made")


class Applied(msgspec.Struct, Generic[Made], frozen=True):
    """made: what the edit returned. outcome: the switch."""

    made: Made
    outcome: Outcome


def apply(
    settings: Settings, name: str, edit: Callable[[], Made], what: str, targets: Collection[Key] = (),
    if_generation: int | None = None, timeout_s: float | None = None, force: bool = False,
) -> Applied[Made]:  # fmt: skip
    """Edit the files of a model, and return when every worker serves what they say now.

    edit: changes the repository; it is called while no other change can be made. what: the change in a sentence, for
    the log. targets: versions that must be served afterwards. Refused versions of the model are tried again.
    if_generation: the one that the caller has seen. force: make a new generation although nothing has changed.

    Raises what `edit` raises, GenerationChanged if another generation is served than `if_generation`, and what
    `Switching.switch` raises; the model's file is then put back as it was, if the edit has returned a Change.
    """
    root = settings.repository_path
    with switching.exclusive(settings) as held:
        if if_generation is not None and held.generation != if_generation:
            raise GenerationChanged(str(if_generation), held.generation)
        made = run_native(edit)
        try:
            return Applied(made, held.switch(what, targets, retry=(name,), force=force, timeout_s=timeout_s))
        except BaseException as problem:
            if isinstance(made, Change) and made.after is not None and made.after != made.before:
                run_native(partial(model_toml_edits.restore, root, made.name, made.before, made.after))
            if isinstance(problem, SwitchRefused):
                held.note(problem)
            raise


def set_enabled(settings: Settings, name: str, enabled: bool) -> Change:
    """Turn a model on or off in its file. Raises ContractBroken for a file that cannot be read, and OSError."""
    root = settings.repository_path
    before = model_toml.text_of(root, name)
    model_toml_edits.set_enabled(root, name, enabled)
    return Change(name, None, before, model_toml.text_of(root, name))
