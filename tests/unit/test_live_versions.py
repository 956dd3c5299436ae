"""A version that breaks clients does not get their requests, by any road, unless the operator says so."""

from __future__ import annotations

import json
from datetime import datetime
from pathlib import Path

import msgspec
import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner, Result
from sklearn.linear_model import LinearRegression

from tableside.cli import main
from tableside.contracts import schema
from tableside.errors import PublishFailed
from tableside.publishing import copies
from tableside.publishing.publish import publish
from tableside.repository import model_toml, paths, release_edits, traffic_edits
from tableside.repository.refusals import ReleaseRefused

TEN = pd.DataFrame(np.arange(40.0).reshape(4, 10), columns=[f"c{at}" for at in range(10)])
TWO = TEN[["c0", "c1"]]
ANSWERS = [1.0, 2.0, 3.0, 5.0]
NOW = datetime(2026, 11, 26, 12, 0, 0)
BREAKS = "8 columns are gone: 'c2', 'c3', 'c4', 'c5', 'c6' and 3 more"


def fitted(frame: pd.DataFrame) -> LinearRegression:
    return LinearRegression().fit(frame, ANSWERS)


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository with m/1, which takes ten columns."""
    root = tmp_path_factory.mktemp("live") / "models"
    publish("m", fitted(TEN), TEN, repository=root, quick=True)
    return root


@pytest.fixture
def root(published: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A repository with m/1 and m/2, which take ten columns, and the narrow m/3, which is retired."""
    monkeypatch.setenv("TABLESIDE__SERVER__RUN_DIR", str(tmp_path / "run"))
    monkeypatch.setenv("TABLESIDE__REPOSITORY__PATH", str(tmp_path / "models"))
    monkeypatch.setenv("TABLESIDE__REPOSITORY__CONSENT_FILE", str(tmp_path / "consent"))
    root = tmp_path / "models"
    wide = schema.decode((published / "m" / "1" / "contract.json").read_bytes())
    for number, columns in ((1, 10), (2, 10), (3, 2)):
        inputs = msgspec.structs.replace(wide.input, columns=wide.input.columns[:columns])
        folder = root / "m" / str(number)
        folder.mkdir(parents=True)
        made = msgspec.structs.replace(wide, version=number, input=inputs)
        (folder / "contract.json").write_bytes(schema.encode(made))
    (root / "m" / "model.toml").write_text("retired = [3]\n")
    return root


def call(*words: str) -> Result:
    return CliRunner().invoke(main, list(words))


def text(root: Path) -> str:
    return (root / "m" / "model.toml").read_text()


def test_a_narrow_version_is_not_published_over_a_wide_one(published: Path, tmp_path: Path) -> None:
    """The Python API refuses it with the differences and what to do; nothing is left. A copy is refused too."""
    model = fitted(TWO)
    with pytest.raises(PublishFailed, match=BREAKS) as refused:
        publish("m", model, TWO, repository=published, quick=True)
    assert "m/2 would take the requests without a version, which m/1 answers now, and 8 differences break" in str(
        refused.value
    )
    assert "`tableside promote m/1`, and publish again" in str(refused.value)
    assert "--breaking (in Python breaking=True, in a request breaking=true)" in str(refused.value)
    assert [*paths.published(published)] == [("m", [1])]
    publish("narrow", model, TWO, repository=published, quick=True)
    with pytest.raises(PublishFailed, match=BREAKS):
        copies.copy_version(published, "narrow", 1, "m")
    assert copies.copy_version(published, "narrow", 1, "m", breaking=True).version == 2
    with pytest.raises(PublishFailed, match="8 columns are new, and requests must send them: 'c2'"):
        publish("m", fitted(TEN), TEN, repository=published, quick=True)


@pytest.mark.parametrize(
    ("configuration", "alias", "is_refused"),
    [
        ("", None, True),
        ("retired = [2]\n", None, True),
        ("[aliases]\ndefault = 2\n", None, False),
        ("[aliases]\ndefault = 2\n", "default", True),
        ("[aliases]\ndefault = 2\nshop = 1\n", "shop", True),
        ("[aliases]\ndefault = 2\nshop = 1\n", "candidate", False),
        ("versions = [1, 2]\n", None, False),
        ("versions = [1, 2]\n", "candidate", True),
        ("versions = { latest = 1 }\n", None, True),
        ("version = 2\n", None, True),
    ],
)
def test_a_publish_is_refused_where_it_takes_requests(
    root: Path, configuration: str, alias: str | None, is_refused: bool
) -> None:
    """Requests without a version count, and those to an alias that is moved. What `default` holds back is published."""
    (root / "m" / "3" / "contract.json").unlink()
    (root / "m" / "model.toml").write_text(configuration)
    try:
        publish("m", fitted(TWO), TWO, repository=root, quick=True, alias=alias)
        assert not is_refused
    except PublishFailed as problem:
        assert BREAKS in str(problem) and is_refused, problem


def test_a_version_without_a_readable_contract_answers_nobody(root: Path) -> None:
    """The next one below it is compared: the highest version may have been damaged."""
    (root / "m" / "model.toml").unlink()
    (root / "m" / "3" / "contract.json").write_text("{")
    with pytest.raises(PublishFailed, match="which m/2 answers now"):
        publish("m", fitted(TWO), TWO, repository=root, quick=True)


def test_an_edit_that_breaks_clients_changes_nothing(root: Path) -> None:
    """Promote, a move of an alias, its removal, a new alias, a canary, the end of a retirement: each moves requests."""
    promoted = "[aliases]\ndefault = 2\nshop = 1\n"
    edits = [
        (promoted, lambda **also: release_edits.move_alias(root, "m", "default", 3, **also)),
        (promoted, lambda **also: release_edits.move_alias(root, "m", "shop", 3, **also)),
        (promoted, lambda **also: release_edits.remove_alias(root, "m", "default", **also)),
        ("versions = [2]\n", lambda **also: release_edits.move_alias(root, "m", "candidate", 3, **also)),
        (promoted, lambda **also: traffic_edits.set_canary(root, "m", 3, 5, None, NOW, **also)),
        ("retired = [3]\n", lambda **also: release_edits.retire(root, "m", 3, undo=True, **also)),
    ]
    for before, edit in edits:
        (root / "m" / "model.toml").write_text(before)
        with pytest.raises(ReleaseRefused, match=BREAKS):
            edit()
        assert text(root) == before
        edit(breaking=True)
        assert text(root) != before


def test_a_rollback_is_never_refused(root: Path) -> None:
    """The way back must not depend on a comparison: the clients of before are those that wait."""
    (root / "m" / "model.toml").write_text("[aliases]\ndefault = 3\n[history]\ndefault = [1, 3]\n")
    assert release_edits.roll_back(root, "m", 1).former == 3
    assert model_toml.read(root, "m").aliases == {"default": 1}


def test_what_answers_now_outranks_the_files(root: Path) -> None:
    """The caller may know that the highest version does not answer, because it did not load."""
    (root / "m" / "model.toml").unlink()
    release_edits.move_alias(root, "m", "default", 3)
    (root / "m" / "model.toml").unlink()
    with pytest.raises(ReleaseRefused, match="which m/2 answers now"):
        release_edits.move_alias(root, "m", "default", 3, answered=2)


def test_commands_say_what_differs(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Refused in one line with exit status 2; with --breaking the differences are notes."""
    monkeypatch.setattr("tableside.cli.release_steps.require_sound", lambda *given: None)
    (root / "m" / "model.toml").write_text("[aliases]\ndefault = 2\n")
    refused = call("promote", "m/3")
    assert (refused.exit_code, refused.stdout) == (2, "")
    assert "Look: `tableside diff m/2 m/3`. If the clients are ready, add --breaking" in refused.stderr
    done = call("promote", "m/3", "--breaking", "--json")
    assert done.exit_code == 0, done.output
    assert BREAKS in json.loads(done.stdout)["notes"][0]
    done = call("rollback", "m")
    assert "note: for clients m/2 differs from m/3, which answered the requests without a version" in done.stdout


def test_publish_prints_differences_as_notes(published: Path, root: Path, tmp_path: Path) -> None:
    """Beside `default` nothing is refused: the note says what differs and that promote asks. Live, it is a refusal."""
    (root / "m" / "model.toml").write_text("[aliases]\ndefault = 2\n")
    publish("narrow", fitted(TWO), TWO, repository=root, quick=True)
    artifact, rows = root / "narrow" / "1" / "model.skops", tmp_path / "rows.csv"
    TWO.to_csv(rows, index=False)
    words = ("publish", "m", str(artifact), "--sample", str(rows), "--quick")
    held = call(*words)
    assert held.exit_code == 0, held.output
    assert "it takes no traffic yet" in held.stdout
    note = "note: for clients it differs from m/2: 8 columns are gone: "
    assert note in held.stdout and "so `tableside promote` asks for --breaking" in held.stdout
    (root / "m" / "model.toml").write_text("versions = [1, 2, 5]\n")
    refused = call(*words)
    assert (refused.exit_code, refused.stdout) == (2, ""), refused.output
    assert BREAKS in refused.stderr
    manifest = tmp_path / "models.toml"
    manifest.write_text(
        f'[defaults]\nbreaking = true\n[[model]]\nname = "m"\nestimator = "{artifact}"\nsample = "{rows}"\n'
    )
    live = call("publish", "--from", str(manifest), "--quick")
    assert live.exit_code == 0, live.output
    assert "note: for clients m/5 differs from m/2, which answered the requests without a version before" in live.stdout
