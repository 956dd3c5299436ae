"""Publishes a model that runs in an environment of its own: the estimator is never loaded in this process."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec
import pandas as pd

from tableside.contracts.consent_digest import PICKLE, own_types
from tableside.contracts.environment import sha256
from tableside.contracts.schema import Artifact, Contract
from tableside.errors import ContractBroken, PublishFailed, RequestRejected, TablesideError
from tableside.model_process import known_environments
from tableside.model_process.process_pool import PrivateProcess, load_version
from tableside.publishing import artifact_files, consent_record, draft_folder, environment_files, publish, sample, skew
from tableside.publishing.contract_learning import learn_contract
from tableside.publishing.draft_folder import Terms
from tableside.publishing.effort import FULL, QUICK
from tableside.publishing.environment_files import Place, ReadModel
from tableside.publishing.missing_cells import Nullable
from tableside.publishing.progress import Progress, silent
from tableside.publishing.remote_estimator import RemoteEstimator
from tableside.publishing.sources import Request
from tableside.repository import integrity, model_toml, model_toml_edits, paths, signing_keys
from tableside.repository.signing_keys import Signer
from tableside.runtimes import golden, trusted_types
from tableside.settings import Settings


@dataclass(frozen=True)
class Published:
    """A contract, and what the user should know of how it was made."""

    contract: Contract
    notes: tuple[str, ...]


def publish_in_environment(
    name: str, source: Path, environment: str, settings: Settings, request: Request, *, repository: Path,
    version: int | None = None, alias: str | None = None, nullable: Nullable = (), quick: bool = False,
    consent_path: Path | None = None, progress: Progress = silent, sign: Path | None = None, breaking: bool = False,
) -> Published:  # fmt: skip
    """Publish a model whose versions run in `environment`, and write that into its model.toml.

    source: a joblib, pickle or skops file, which is loaded by the environment's interpreter only, an MLflow directory,
    or a training record. request: its sample and how it is read. The other arguments are those of `publish.publish`.
    Raises PublishFailed, and leaves no version, when the model cannot be published.
    """
    publish.check_arguments(repository, name, version, alias, 0.0)
    signer = signing_keys.read(sign, repository) if sign is not None else None
    _check_model(repository, name, environment, request.as_pickle)
    if request.code is not None or request.as_pickle or request.allow_code:
        consent_path = consent_record.place(consent_path, repository)
    try:
        place = _place(environment, settings, request.as_pickle, source)
        with tempfile.TemporaryDirectory(prefix="tableside-") as work:
            progress(f"asking the estimator in the environment {environment}")
            model = environment_files.read(source, request, place, settings.repository, Path(work))
            made = _Publication(name, model, place, settings, nullable, quick, progress)
            published = made.publish(repository, version, signer, Terms(alias, breaking))
    except (ContractBroken, RequestRejected) as problem:
        raise PublishFailed(f"environment {environment!r}: {problem}") from problem
    consent_record.record(consent_path, repository, published.contract)
    if alias is not None:
        model_toml_edits.set_alias(repository, name, alias, published.contract.version)
    return published


def _check_model(root: Path, name: str, environment: str, as_pickle: bool) -> None:
    """Raise PublishFailed if the model, or another one, stands in the way of running in the environment.

    Published versions may run elsewhere, and a model has one environment. A pickle runs in processes of its own.
    """
    try:
        now = model_toml.read(root, name).environment
    except ContractBroken as problem:
        raise PublishFailed(f"{problem}. Correct the file first") from problem
    if now != environment and paths.versions(root, name):
        place = f"in the environment {now!r}" if now else "in the server's own environment"
        raise PublishFailed(
            f"the versions of {name!r} run {place}, and a model has one environment. Publish under another name"
        )
    for other in model_toml.others_in(root, name, environment):
        if as_pickle or model_toml.holds_pickle(root, other):
            raise PublishFailed(
                f"a pickle runs in processes of its own, and the model {other} names the environment {environment!r} "
                "too. Define another environment with the same interpreter, [environments.NAME] in tableside.toml, and "
                "name that one"
            )


def _place(environment: str, settings: Settings, as_pickle: bool, source: Path) -> Place:
    """The environment and its versions. Raises PublishFailed if it is not there or lacks what a model process needs."""
    known = known_environments.known(settings)
    if environment not in known:
        unknown = known_environments.unknown(environment, known, "--environment names")
        raise PublishFailed(f"{unknown}. {_requirements(source)}")
    python = known[environment].python
    found = known_environments.installed(python)
    needed = [package for package in known_environments.NEEDED if package != "skops" or not as_pickle]
    missing = known_environments.lacking(found, needed)
    if missing:
        raise PublishFailed(
            f"the environment {environment!r} lacks {', '.join(missing)}, which a model process imports. "
            f"{known_environments.how_to_install(python, missing)}"
        )
    return Place(environment, python, found)


def _requirements(source: Path) -> str:
    """What requirements.txt has to name: the release that wrote the file, as far as it says so."""
    wrote = skew.written_with(source)[0] if source.is_file() else {}
    release = wrote.get(skew.SKLEARN, "")
    pinned = f"{skew.SKLEARN}=={release}" if release and " " not in release else skew.SKLEARN
    others = ", ".join(package for package in known_environments.NEEDED if package != skew.SKLEARN)
    where = f", which wrote {source.name}" if "==" in pinned else " with the release that trained the model"
    return f"The requirements name {pinned}{where}, and {others}, and what else the model imports"


class _Publication:
    """One publish: what every step of it needs."""

    def __init__(
        self, name: str, model: ReadModel, place: Place, settings: Settings, nullable: Nullable, quick: bool,
        progress: Progress,
    ) -> None:  # fmt: skip
        self._name = name
        self._model = model
        self._place = place
        self._policy = settings.repository
        self._nullable = nullable
        self._quick = quick
        self._progress = progress

    def publish(self, root: Path, version: int | None, signer: Signer | None, terms: Terms) -> Published:
        """Learn the contract from the estimator in its environment, and write the version. signer: signs it."""
        model, artifact = self._model, self._model.artifact
        described = Artifact(artifact.name, sha256(artifact), artifact.stat().st_size)
        process = PrivateProcess(self._place.name, self._place.python, self._policy.load_timeout_s)
        try:
            here = process.versions_of_libraries(self._give_up_at_s)
            types = _types(artifact)
            remote = RemoteEstimator(process, artifact, described.sha256, model.facts, self._trusted(types), model.code)
            frame, notes = model.rows(remote.estimator)
            self._progress("learning the contract")
            contract = msgspec.structs.replace(
                self._learn(remote, sample.as_frame(frame, None)), environment=dict(here), types=types,
                trained_with=dict(model.trained_with), source=dict(model.source), artifact=described,
                quick=self._quick,
            )  # fmt: skip
            integrity.check_environment(contract, "refuse", here)
            draft_folder.check_clients(root, contract, version, terms)
            return Published(self._write(contract, process, root, version, signer, terms), tuple(notes))
        finally:
            process.close()

    @property
    def _give_up_at_s(self) -> float:
        return time.monotonic() + self._policy.load_timeout_s

    def _trusted(self, types: Sequence[str]) -> tuple[str, ...]:
        """The types that may be in the artifact: the server's, the operator's, and those of the model's own code."""
        operators = trusted_types.expand(self._policy.trusted_types, self._policy.trusted_libraries)
        code = self._model.code
        own = [kind for kind in types if code is not None and kind.startswith(f"{code.package}.")]
        return (*trusted_types.TRUSTED, *operators, *own)

    def _learn(self, remote: RemoteEstimator, frame: pd.DataFrame) -> Contract:
        model = self._model
        try:
            contract = learn_contract(
                self._name, remote, frame, QUICK if self._quick else FULL, nullable=self._nullable,
                optional=model.optional, expected=model.answers,
            )  # fmt: skip
        except TablesideError:
            raise
        except Exception as problem:
            raise PublishFailed(
                f"the contract of {remote.facts['estimator']} cannot be learned: {type(problem).__name__}: {problem}"
            ) from problem
        # They were answered by the release that trained it: another one is refused before.
        return msgspec.structs.replace(contract, golden=msgspec.structs.replace(contract.golden, origin="trainer"))

    def _write(
        self, contract: Contract, process: PrivateProcess, root: Path, version: int | None, signer: Signer | None,
        terms: Terms,
    ) -> Contract:  # fmt: skip
        """Write the version into a draft, replay its golden rows in the environment, and rename it."""
        code = self._model.code
        with draft_folder.draft_in(root / contract.name) as draft:
            self._progress("replaying the golden rows from the artifact")
            contract = artifact_files.write_code(draft, contract, code)
            artifact = draft / contract.artifact.file
            artifact.write_bytes(self._model.artifact.read_bytes())
            trusted = (*self._trusted(contract.types), *own_types(contract))
            runtime = load_version(
                process, contract, artifact, trusted, self._give_up_at_s, code.files if code is not None else {}
            )
            golden.replay(contract, runtime.run, runtime.prepare)
            model_toml_edits.set_environment(root, contract.name, self._place.name)
            folder = root / contract.name
            return draft_folder.rename_to_version(folder, draft, contract, version, signer, terms=terms)


def _types(artifact: Path) -> tuple[str, ...]:
    """The types in a skops file that skops does not trust by itself; a pickle does not say."""
    if artifact.name == PICKLE:
        return ()
    import skops.io

    return tuple(sorted(skops.io.get_untrusted_types(file=artifact)))
