"""`tableside init` makes a folder to serve from, and changes nothing that exists."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner

from tableside import settings
from tableside.cli import main
from tableside.cli.init import FILES
from tableside.deployment.layout import MONITORING
from tableside.repository import paths


def test_the_folder_has_settings_that_are_read_and_an_example(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The settings file is read without a complaint; the model is published once."""
    done = CliRunner().invoke(main, ["init", str(tmp_path / "new")])
    assert done.exit_code == 0, done.output
    assert f"published iris/1, an example model, in {tmp_path / 'new' / 'models'}" in done.output
    assert f"cd {tmp_path / 'new'} && tableside run" in done.output
    assert paths.models(tmp_path / "new" / "models") == ["iris"]
    monkeypatch.chdir(tmp_path / "new")
    found = settings.load({})
    assert found.repository_path == tmp_path / "new" / "models"
    assert found.run_dir == tmp_path / "new" / "run"


def test_commented_settings_have_their_defaults(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Taking the comment signs away changes nothing but the number of workers, which is that of the processors."""
    text = FILES["tableside.toml"]
    uncommented = "\n".join(line.removeprefix("# ") if " = " in line else line for line in text.splitlines())
    assert uncommented != text.rstrip("\n")
    monkeypatch.chdir(tmp_path)
    plain = settings.load({"TABLESIDE__SERVER__WORKERS": "2"})
    Path("tableside.toml").write_text(uncommented)
    assert settings.load({}) == plain


def test_what_exists_stays_and_is_named(tmp_path: Path) -> None:
    """With --no-example the repository stays empty, and the next step is to publish."""
    (tmp_path / "tableside.toml").write_text("# mine\n")
    done = CliRunner().invoke(main, ["init", str(tmp_path), "--no-example"])
    assert done.exit_code == 0, done.output
    assert (tmp_path / "tableside.toml").read_text() == "# mine\n"
    assert f"kept  {tmp_path / 'tableside.toml'}" in done.output
    assert f"wrote {tmp_path / 'supervisord.conf'}" in done.output
    assert "tableside publish NAME" in done.output


def test_a_folder_that_cannot_be_written_is_an_error(tmp_path: Path) -> None:
    """A file in the place of the folder is named in one line, with exit status 2."""
    (tmp_path / "models").write_text("")
    done = CliRunner().invoke(main, ["init", str(tmp_path)])
    assert done.exit_code == 2
    assert f"tableside: cannot write {tmp_path / 'models'}: " in done.output


def test_monitoring_is_written_on_request(tmp_path: Path) -> None:
    """The files are those of deploy/, and the scrape asks this host: no host is called tableside."""
    done = CliRunner().invoke(main, ["init", str(tmp_path), "--no-example", "--monitoring"])
    assert done.exit_code == 0, done.output
    for source in MONITORING:
        for path in (each for each in source.rglob("*") if each.is_file()):
            written = (tmp_path / "monitoring" / source.name / path.relative_to(source)).read_text()
            same = written.replace("127.0.0.1:8081", "tableside:8081") if path.name == "prometheus.yml" else written
            assert same == path.read_text()
    assert 'targets: ["127.0.0.1:8081"]' in (tmp_path / "monitoring" / "prometheus" / "prometheus.yml").read_text()
