"""Settings: read once, every mistake named."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tableside.errors import SettingsError
from tableside.settings import Server, load, split_address


def test_defaults_serve_locally(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a file and variables the stack listens on this machine only, on two ports."""
    monkeypatch.chdir(tmp_path)
    settings = load({})
    assert settings.server.listen == "127.0.0.1:8080"
    assert settings.server.admin_listen == "127.0.0.1:8081"
    assert settings.repository.path == "models"
    assert settings.repository_path == tmp_path / "models"
    assert settings.run_dir == tmp_path / "run"
    assert settings.repository.environment_skew == "refuse"


def test_a_file_overrides_defaults(tmp_path: Path) -> None:
    """A TOML file's values stand over the defaults."""
    file = tmp_path / "t.toml"
    file.write_text('[server]\nworkers = 3\n[log]\nlevel = "debug"\n')
    settings = load({}, file)
    assert (settings.server.workers, settings.log.level) == (3, "debug")
    assert load({"TABLESIDE_CONFIG": str(file)}).server.workers == 3


def test_the_working_directory_s_file_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`tableside.toml` where the process stands is read unnamed."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "tableside.toml").write_text("[server]\nworkers = 7\n")
    assert load({}).server.workers == 7


def test_variables_override_the_file(tmp_path: Path) -> None:
    """The environment stands over the file, field by field."""
    file = tmp_path / "t.toml"
    file.write_text("[server]\nworkers = 3\npredict_threads = 5\n")
    settings = load({"TABLESIDE__SERVER__WORKERS": "4"}, file)
    assert (settings.server.workers, settings.server.predict_threads) == (4, 5)


def test_a_list_is_written_with_commas() -> None:
    """A variable of many values takes them separated by commas."""
    settings = load({"TABLESIDE__REPOSITORY__TRUSTED_TYPES": "mine.A, mine.B,"})
    assert settings.repository.trusted_types == ("mine.A", "mine.B")


@pytest.mark.parametrize(
    ("variable", "value", "said"),
    [
        ("TABLESIDE__SERVER__WORKER", "1", "workers"),
        ("TABLESIDE__SERVR__WORKERS", "1", "sections are"),
        ("TABLESIDE__WORKERS", "1", "unknown setting"),
        ("TABLESIDE__SERVER__WORKERS", "many", "int"),
        ("TABLESIDE__SERVER__WORKERS", "0", ">= 1"),
        ("TABLESIDE__SERVER__LISTEN", "8080", "regex"),
        ("TABLESIDE__SERVER__NGINX", "maybe", "maybe"),
        ("TABLESIDE__SERVER__REQUEST_TIMEOUT_S", "0", "> 0"),
        ("TABLESIDE__SERVER__REQUEST_TIMEOUT_S", "4000", "3600"),
        ("TABLESIDE__SERVER__REQUEST_TIMEOUT_S", "nan", ""),
        ("TABLESIDE__SERVER__REQUEST_TIMEOUT_S", "inf", ""),
    ],
)
def test_a_bad_variable_is_named(variable: str, value: str, said: str) -> None:
    """An unknown or bad variable is refused in one line that names it and what would do."""
    with pytest.raises(SettingsError) as refused:
        load({variable: value})
    assert variable in str(refused.value)
    assert said in str(refused.value)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("[server]\nworkers = 0\n", "server.workers"),
        ("[server]\nwrokers = 1\n", "wrokers"),
        ("[sever]\nworkers = 1\n", "sever"),
        ("server = 3\n", "server"),
        ("[server\n", "t.toml"),
    ],
)
def test_a_bad_file_is_named(tmp_path: Path, text: str, named: str) -> None:
    """A file's unknown key, bad value or bad syntax is refused by name, with variables set beside it or not."""
    file = tmp_path / "t.toml"
    file.write_text(text)
    for environ in ({}, {"TABLESIDE__SERVER__PREDICT_THREADS": "2"}):
        with pytest.raises(SettingsError, match=named):
            load(environ, file)


def test_a_named_file_must_exist(tmp_path: Path) -> None:
    """A settings file that was asked for and is not there is an error, not the defaults."""
    with pytest.raises(SettingsError, match=r"nowhere\.toml"):
        load({}, tmp_path / "nowhere.toml")


def test_the_two_planes_need_two_addresses() -> None:
    """The control plane never shares the data plane's address."""
    with pytest.raises(SettingsError, match=r"server\.listen and server\.admin_listen"):
        load({"TABLESIDE__SERVER__ADMIN_LISTEN": "127.0.0.1:8080"})


def test_addresses_split() -> None:
    """Host and port come apart, IPv6 too, and a port out of range is refused."""
    assert split_address("[::1]:80") == ("::1", 80)
    assert split_address("0.0.0.0:65535") == ("0.0.0.0", 65535)
    for port in ("0", "65536"):
        with pytest.raises(SettingsError, match="65535"):
            load({"TABLESIDE__SERVER__LISTEN": f"127.0.0.1:{port}"})


@given(st.floats(min_value=0, max_value=3600, exclude_min=True))
def test_each_patience_outlasts_the_one_inside(timeout_s: float) -> None:
    """Request deadline < gunicorn's graceful timeout < nginx's read timeout < supervisor's wait, whatever is set."""
    server = Server(request_timeout_s=timeout_s)
    assert timeout_s < server.graceful_timeout_s < server.proxy_read_timeout_s < server.stop_wait_s
