"""`tableside init` makes a folder to serve from, and changes nothing that exists."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner

from tableside import settings
from tableside.cli import main
from tableside.cli.init import FILES
from tableside.deployment.layout import PROMETHEUS
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


@pytest.fixture(scope="module")
def monitoring(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that `--monitoring` writes."""
    folder = tmp_path_factory.mktemp("init")
    done = CliRunner().invoke(main, ["init", str(folder), "--no-example", "--monitoring"])
    assert done.exit_code == 0, done.output
    return folder / "monitoring"


def test_the_scrape_asks_this_host_and_prometheus_takes_the_files(monitoring: Path) -> None:
    """No host is called tableside, and nothing is said of the compose file. The rules are those of deploy/."""
    scrape = (monitoring / "prometheus" / "prometheus.yml").read_text()
    assert 'targets: ["127.0.0.1:8081"]' in scrape
    assert "compose" not in scrape
    subprocess.run(["promtool", "check", "config", "prometheus.yml"], cwd=monitoring / "prometheus", check=True)
    for path in (monitoring / "prometheus" / "rules").iterdir():
        expected = yaml.safe_load((PROMETHEUS / "rules" / path.name).read_text().replace("docs/runbooks", "runbooks"))
        assert yaml.safe_load(path.read_text()) == expected


def test_what_is_named_in_the_monitoring_folder_is_there(monitoring: Path) -> None:
    """Each alert and panel names a runbook in the folder, no link is dead, and no path is that of a checkout."""
    names = {str(path.relative_to(monitoring)) for path in monitoring.rglob("*") if path.is_file()}
    assert not [name for name in names if "provisioning" in name]
    texts = {name: (monitoring / name).read_text() for name in names}
    named = re.findall(r'(?:runbook_url: |"url": ")(runbooks/[\w./-]+)', "\n".join(texts.values()))
    named = [name for name in named if name != "runbooks/"]
    assert len(named) > 50
    assert set(named) <= names
    for name, text in texts.items():
        assert not re.search(r"deploy/|docs/runbooks|compose", text), name
        for target in re.findall(r"\]\(([^)#]+)[^)]*\)", text) if name.endswith(".md") else ():
            assert "://" in target or (monitoring / name).parent.joinpath(target).exists(), (name, target)
