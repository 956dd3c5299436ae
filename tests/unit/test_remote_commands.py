"""Commands with `--to` work on a server on another machine: they ask its admin API, and touch no files here."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from tableside.cli import main
from tableside.repository import model_toml, paths
from tests.conftest import KEY
from tests.unit.test_reloading import copy


@pytest.fixture
def root(small_repository: Path) -> Path:
    """A repository with iris/1 and iris/2, where `default` names the first."""
    copy(small_repository, "iris", 2)
    (small_repository / "iris" / "model.toml").write_text('versions = "all"\n[aliases]\ndefault = 1\n')
    return small_repository


def call(*words: str, **environ: str) -> Result:
    done = CliRunner(env={"TABLESIDE_KEY": KEY, **environ}).invoke(main, list(words))
    assert KEY not in done.output
    return done


def said(*words: str, **environ: str) -> str:
    done = call(*words, **environ)
    assert done.exit_code == 0, done.output
    return done.stdout


def test_a_release_at_a_server(root: Path, server: str) -> None:
    """Each command says what was before and after, how many workers have switched, and the generation."""
    to = ("--to", server)
    assert said("promote", "iris/2", *to) == "iris: default = 1 -> default = 2 (1 workers, generation 2)\n"
    assert model_toml.read(root, "iris").aliases == {"default": 2}
    assert "default = 2 -> default = 1" in said("rollback", "iris", *to)
    assert "next = 2" in said("alias", "iris", "next", "2", *to)
    assert json.loads(said("alias", "iris", "next", "--remove", "--json", *to))["after"] == "next removed"
    assert "canary 2 5 %" in said("traffic", "iris", "--canary", "2", "--percent", "5", *to)
    assert "canary iris/2: 5 % of the requests" in said("traffic", "iris", *to)
    assert "no canary" in said("traffic", "iris", "--stop", *to)
    assert "shadow 2 50 %" in said("shadow", "iris/2", "--percent", "50", *to)
    assert said("shadow", "iris", *to)
    assert "no shadow" in said("shadow", "iris", "--stop", *to)
    assert "2 retired" in said("retire", "iris/2", *to)
    assert "2 served" in said("retire", "iris/2", "--undo", *to)
    assert "add --yes" in call("delete", "iris/2", *to).stderr
    assert "2 deleted" in said("delete", "iris/2", "--yes", *to)
    assert paths.versions(root, "iris") == [1]


def test_what_a_server_serves(root: Path, server: str) -> None:
    """list, show, diff and reload; the address may come from the variable."""
    listed = said("list", TABLESIDE_URL=server)
    assert "default" in listed
    assert "READY" in listed
    assert listed.endswith("generation 1\n")
    assert json.loads(said("list", "--json", "--to", server))["models"][0]["name"] == "iris"
    shown = said("show", "iris/2", "--to", server)
    assert "iris/2\n" in shown
    assert "iris/1\n" not in shown
    assert 'versions = "all"' in shown
    assert json.loads(said("show", "iris@default", "--json", "--to", server))["versions"][0]["version"] == 1
    assert "no version or alias 'x'" in call("show", "iris@x", "--to", server).stderr
    assert "see no difference" in said("diff", "iris/1", "iris/2", "--contracts", "--to", server)
    assert "1 workers serve 2 versions" in said("reload", "--to", server)


def test_a_host_from_another_machine(root: Path, server: str) -> None:
    """workers, drain, resume, audit and operations."""
    assert "generation" in said("workers", "--to", server)
    assert "is drained: readiness answers 503" in said("drain", "--to", server)
    assert "was drained already" in said("drain", "--to", server)
    assert "is back" in said("resume", "--to", server)
    assert "was not drained" in said("resume", "--to", server)
    assert said("promote", "iris/2", "--to", server)
    audit = said("audit", "--limit", "3", "--to", server)
    assert "admin.key" in audit
    assert "default = 1 -> default = 2" in audit
    assert "promote" in said("operations", "--to", server)
    for command in ("workers", "audit", "operations"):
        assert json.loads(said(command, "--json", "--to", server))


def test_a_model_is_turned_off_and_on_at_a_server(root: Path, server: str) -> None:
    """unload and load; the settings of the server, with their origin and without secrets."""
    assert "iris:" in said("unload", "iris", "--to", server)
    assert not model_toml.read(root, "iris").enabled
    assert "iris:" in said("load", "iris", "--to", server)
    assert model_toml.read(root, "iris").enabled
    assert "no model 'iriss'" in call("load", "iriss", "--to", server).stderr
    shown = said("config", "--to", server)
    assert "repository.watch_interval_s" in shown
    assert "default" in shown, "the origin"
    assert json.loads(said("config", "--json", "--to", server))["settings"]


def test_what_a_server_refuses_is_said(root: Path, server: str) -> None:
    """With the reason; another generation, a version that is missing, a damaged one; and nothing has changed."""
    before = (root / "iris" / "model.toml").read_bytes()
    late = call("promote", "iris/2", "--if-generation", "7", "--to", server)
    assert (late.exit_code, "serves generation 1" in late.stderr) == (2, True), late.output
    assert call("promote", "iris/9", "--to", server).exit_code == 2
    assert "say which version" in call("promote", "iris", "--to", server).stderr
    assert "give a version, or --remove" in call("alias", "iris", "x", "--to", server).stderr
    copy(root, "iris", 3)
    (root / "iris" / "3" / "model.skops").chmod(0o644)
    (root / "iris" / "3" / "model.skops").write_bytes(b"damaged")
    refused = call("promote", "iris/3", "--to", server)
    assert (refused.exit_code, "is damaged" in refused.stderr) == (2, True), refused.output
    assert (root / "iris" / "model.toml").read_bytes() == before


def test_options_that_do_not_go_together(root: Path) -> None:
    """A folder here says nothing to a server, and a key or a generation nothing to files."""
    assert "--to works on" in call("list", "--repository", str(root), "--to", "http://127.0.0.1:9").stderr
    for words in (("rollback", "iris"), ("list",)):
        assert "goes with --to" in call(*words, "--key-file", str(root)).stderr
    assert "goes with --to" in call("rollback", "iris", "--if-generation", "3").stderr
