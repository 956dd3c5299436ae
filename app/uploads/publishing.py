"""What the upload process does: unpack, publish, and wait until every worker has decided about the version."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path

from tableside.contracts.schema import Contract
from tableside.process import worker_slots
from tableside.publishing import draft_folder
from tableside.repository import paths, traffic_notes
from tableside.serving import switching
from tableside.serving.lifecycle import State
from tableside.serving.version_status import merge_statuses, read_statuses
from tableside.settings import Settings
from tableside.uploads import archive
from tableside.uploads.artifact import publish_artifact
from tableside.uploads.child import UploadJob, summary
from tableside.uploads.version import publish_folder

MARGIN_S = 30.0
"""How long the workers may take beyond `repository.load_timeout_s`."""


def publish_upload(job: UploadJob, step: Callable[[str], None]) -> dict[str, object]:
    """Publish what was sent, and return the result of the operation. Raises what stands in the way."""
    settings, name = job.settings, job.name
    root = settings.repository_path
    draft_folder.check_repository(root, name)
    step("unpacking")
    notes: list[str] = []
    was_there = False
    with draft_folder.draft_in(root / name) as draft:
        unpacked = Path(tempfile.mkdtemp(dir=draft))
        archive.unpack(Path(job.archive), unpacked, settings.server.max_upload_bytes)
        folder = archive.content_folder(unpacked)
        if (folder / paths.CONTRACT).is_file():
            breaking = job.options.breaking
            placed = publish_folder(
                settings, name, folder, draft, renumber=job.renumber, breaking=breaking, progress=step
            )
            contract, was_there = placed.contract, placed.was_there
        else:
            contract, notes = publish_artifact(settings, name, folder, job.options, step)
    notes += traffic_notes.notes(root, contract)
    step("waiting until every worker has read it")
    return {**summary(contract), "was_there": was_there, "notes": notes, **_served(settings, contract)}


def _served(settings: Settings, contract: Contract) -> dict[str, object]:
    """Make the workers read the repository, and return in which state they have the version."""
    run_dir = settings.run_dir
    if not worker_slots.held(run_dir / "worker_slots"):
        return {"generation": 0, "workers": 0, "state": State.UNAVAILABLE.value, "reason": "no worker is running"}
    outcome = switching.switch(settings, f"upload of {contract.name}/{contract.version}", retry=(contract.name,))
    statuses = worker_slots.statuses(run_dir / "worker_slots")
    merged = merge_statuses(read_statuses(statuses)).get((contract.name, contract.version))
    state, reason = (merged.state.value, merged.reason) if merged is not None else ("", "model.toml leaves it out")
    return {"generation": outcome.generation, "workers": len(statuses), "state": state, "reason": reason}
