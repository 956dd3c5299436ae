"""The commands of traffic without a running stack: what they show, what they refuse, and what they write."""

from __future__ import annotations

import json
from pathlib import Path

import msgspec
import pytest
from click.testing import CliRunner, Result

from tableside.cli import main, release_steps
from tableside.contracts import schema
from tableside.repository import model_toml
from tableside.serving import comparisons
from tableside.serving.comparisons import FOLDER, Counts, ids
from tests.skewed_environment import rewrite
from tests.unit.test_reloading import copy

DEFAULT = "[aliases]\ndefault = 1\n"
SHADOW = DEFAULT + "[shadow]\nversion = 2\npercent = 20\n[rules]\nrows = 1000\n"


@pytest.fixture
def root(small_repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A repository with iris/1, which answers, and iris/2; a run folder without a stack. No version is loaded."""
    copy(small_repository, "iris", 2)
    (small_repository / "iris" / "model.toml").write_text(DEFAULT)
    monkeypatch.setenv("TABLESIDE__SERVER__RUN_DIR", str(tmp_path / "run"))
    monkeypatch.setenv("TABLESIDE__REPOSITORY__PATH", str(small_repository))
    monkeypatch.setattr(release_steps, "require_sound", lambda place, name, version: None)
    return small_repository


def call(*words: str) -> Result:
    return CliRunner().invoke(main, list(words))


def said(*words: str) -> str:
    done = call(*words)
    assert done.exit_code == 0, done.output
    return done.stdout


def refused(*words: str) -> str:
    done = call(*words)
    assert (done.exit_code, done.stdout) == (2, ""), done.output
    return done.stderr.splitlines()[-1]


def count(root: Path, rows: int, flips: int = 0) -> None:
    """Let a worker have counted so many rows of the shadow or the canary."""
    (wanted,) = ids("iris", model_toml.read(root, "iris")).values()
    counts = Counts(wanted, flips=flips)
    counts.candidate.requests = counts.candidate.rows = counts.others.requests = counts.others.rows = rows
    counts.candidate.seconds.add(0.01)
    comparisons.write(root.parent / "run" / FOLDER, 0, [counts])


def test_a_canary_is_begun_grown_shown_and_ended(root: Path) -> None:
    """Each command says what it did and how to take it back; growing needs the percentage only."""
    done = call("traffic", "iris", "--canary", "2", "--percent", "5", "--sticky", "X-User-Id")
    assert done.exit_code == 0, done.output
    assert done.stdout == (
        "iris/2 answers 5 % of the requests without a version. Watch: `tableside traffic iris`. Back: `tableside "
        "traffic iris --stop`\n"
    )
    assert "NO running server follows this change" in done.stderr
    said("traffic", "iris", "--percent", "25")
    canary = model_toml.read(root, "iris").canary
    assert canary is not None
    assert (canary.version, canary.percent, canary.sticky) == (2, 25, "X-User-Id")
    count(root, 40)
    shown = said("traffic", "iris")
    assert shown.startswith("canary iris/2: 25 % of the requests, the same callers by X-User-Id, since 20")
    assert "  canary   40 requests, 40 rows, 0 errors, p50 " in shown
    assert shown.endswith("iris/2: collecting: 40 of 20000 rows\n")
    assert "canary 25 %: collecting: 40 of 20000 rows" in said("show", "iris/2")
    [_, row] = json.loads(said("list", "--json"))
    assert row["traffic"] == "canary 25 %: collecting: 40 of 20000 rows"
    assert json.loads(said("traffic", "iris", "--stop", "--json"))["stopped"] == "canary"
    assert said("traffic", "iris") == "iris: no canary and no shadow; version 1 answers\n"


def test_a_shadow_is_begun_and_shown(root: Path) -> None:
    """With its budget, flips and drops; as JSON too."""
    said("shadow", "iris/2", "--percent", "20", "--cpu-share", "0.1")
    count(root, 100, flips=1)
    shown = said("shadow", "iris")
    assert "shadow iris/2: 20 % of the requests, at most 10 % of a core, since 20" in shown
    assert "  flips    1 rows (1 %)" in shown
    assert json.loads(said("shadow", "iris", "--json"))["shadow"]["flip_share"] == 0.01
    assert said("shadow", "iris", "--stop").startswith("iris/2 is not the shadow any more")


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("traffic", "iris", "--percent", "5"), "say which version gets how much: `tableside traffic iris --canary N"),
        (("traffic", "iris", "--canary", "2"), "say which version gets how much"),
        (("traffic", "iris", "--canary", "7", "--percent", "5"), "model 'iris' has no version or alias '7'"),
        (("traffic", "iris", "--canary", "1", "--percent", "5"), "iris/1 is what `default` names: it answers already"),
        (("traffic", "irsi"), "Did you mean 'iris'?"),
        (("traffic", "iris", "--stop"), "model 'iris' has no canary"),
        (("shadow", "iris", "--percent", "5"), "say which version of 'iris': `tableside shadow iris/N`"),
        (("shadow", "iris/2", "--cpu-share", "0.5"), "say how many requests: `tableside shadow iris/2 --percent 20`"),
        (("shadow", "iris", "--stop"), "model 'iris' has no shadow"),
    ],
)
def test_mistakes_are_named(root: Path, words: tuple[str, ...], sentence: str) -> None:
    """Nothing has changed then, and the sentence says what to type."""
    assert sentence in refused(*words)
    assert (root / "iris" / "model.toml").read_text() == DEFAULT


def test_other_columns_are_refused_with_the_differences(root: Path) -> None:
    """A table for one version is none for the other; for a canary `--breaking` overrides it."""

    def change(contract: schema.Contract) -> schema.Contract:
        columns = schema.Input("frame", contract.input.columns[1:])
        return msgspec.structs.replace(contract, input=columns)

    rewrite(root / "iris" / "2", change)
    gone = "the column 'sepal length (cm)' is gone"
    assert gone in refused("shadow", "iris/2", "--percent", "5")
    assert "which iris/1 answers now, and a difference breaks their clients: column 'sepal length (cm)'" in refused(
        "traffic", "iris", "--canary", "2", "--percent", "5"
    )
    assert model_toml.read(root, "iris").candidates == {}
    said("traffic", "iris", "--canary", "2", "--percent", "5", "--breaking")
    said("traffic", "iris", "--percent", "6")
    assert model_toml.read(root, "iris").candidates == {"canary": 2}


@pytest.mark.parametrize(
    ("text", "rows", "flips", "sentence"),
    [
        (DEFAULT, None, 0, "iris/2 is neither canary nor shadow, so nothing is compared"),
        (SHADOW, None, 0, "not promoted: iris/2 is collecting: 0 of 1000 rows"),
        (SHADOW, 400, 0, "not promoted: iris/2 is collecting: 400 of 1000 rows"),
        (SHADOW, 1000, 31, "not promoted: iris/2 is failing: flips 3.1 % (limit 0.2 %)"),
    ],
)
def test_promote_if_ready_exits_with_the_judgement(
    root: Path, text: str, rows: int | None, flips: int, sentence: str
) -> None:
    """Exit status 1, on standard error, and nothing has changed."""
    (root / "iris" / "model.toml").write_text(text)
    if rows is not None:
        count(root, rows, flips)
    done = call("promote", "iris/2", "--if-ready")
    assert (done.exit_code, done.stdout) == (1, "")
    assert sentence in done.stderr
    assert (root / "iris" / "model.toml").read_text() == text


def test_promote_if_ready_promotes_what_is_ready(root: Path) -> None:
    """And ends the trial in the same edit."""
    (root / "iris" / "model.toml").write_text(SHADOW)
    count(root, 1000)
    said("promote", "iris/2", "--if-ready")
    config = model_toml.read(root, "iris")
    assert (config.aliases["default"], config.shadow, config.rules.rows) == (2, None, 1000)
