"""Settings come from a file and variables, and an error names the setting that is wrong."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tableside.errors import SettingsError
from tableside.settings import Server, load, split_address


def test_defaults_serve_locally(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a file and variables, the stack listens on two ports of this machine only."""
    monkeypatch.chdir(tmp_path)
    settings = load({})
    assert settings.server.listen == "127.0.0.1:8080"
    assert settings.server.admin_listen == "127.0.0.1:8081"
    assert settings.repository.path == "models"
    assert settings.repository_path == tmp_path / "models"
    assert settings.run_dir == tmp_path / "run"
    assert settings.repository.environment_skew == "refuse"


def test_a_file_overrides_defaults(tmp_path: Path) -> None:
    """Values of a TOML file override the defaults, whether it is passed or named by TABLESIDE_CONFIG."""
    file = tmp_path / "t.toml"
    file.write_text('[server]\nworkers = 3\n[log]\nlevel = "debug"\n')
    settings = load({}, file)
    assert (settings.server.workers, settings.log.level) == (3, "debug")
    assert load({"TABLESIDE_CONFIG": str(file)}).server.workers == 3


def test_the_file_of_the_working_directory_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`tableside.toml` in the working directory is read without being named."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "tableside.toml").write_text("[server]\nworkers = 7\n")
    assert load({}).server.workers == 7


def test_variables_override_the_file(tmp_path: Path) -> None:
    """A variable overrides one field of the file; the other fields of its section stay."""
    file = tmp_path / "t.toml"
    file.write_text("[server]\nworkers = 3\npredict_threads = 5\n")
    settings = load({"TABLESIDE__SERVER__WORKERS": "4"}, file)
    assert (settings.server.workers, settings.server.predict_threads) == (4, 5)


def test_a_list_is_written_with_commas() -> None:
    """In a variable, commas separate the entries of a list; spaces around them are dropped. Nothing is no entry."""
    settings = load({"TABLESIDE__REPOSITORY__TRUSTED_TYPES": "mine.A, mine.B"})
    assert settings.repository.trusted_types == ("mine.A", "mine.B")
    assert load({"TABLESIDE__REPOSITORY__TRUSTED_TYPES": ""}).repository.trusted_types == ()


TYPES = "TABLESIDE__REPOSITORY__TRUSTED_TYPES"


@pytest.mark.parametrize(
    ("variable", "value", "text"),
    [
        (TYPES, '["a.B"]', f"{TYPES}: the list has brackets around its entries. Write {TYPES}=a.B"),
        (TYPES, '["a.B", "c.D"]', f"Write {TYPES}=a.B,c.D"),
        (TYPES, "('a.B',)", f"Write {TYPES}=a.B"),
        (TYPES, '"a.B","c.D"', f"{TYPES}: the entry has quotes around it. Write {TYPES}=a.B,c.D"),
        (TYPES, "a.B,", f"{TYPES}: the list has an empty entry. Write {TYPES}=a.B"),
        (TYPES, "a.B,,c.D", f"{TYPES}: the list has an empty entry. Write {TYPES}=a.B,c.D"),
        (TYPES, "a.B;c.D", f"{TYPES}: the entry has a comma or semicolon in it. Write {TYPES}=a.B,c.D"),
        (TYPES, "a.B c.D", f"{TYPES}: expected the full name of a type, such as package.module.Class"),
        (
            "TABLESIDE__REPOSITORY__ALLOWED_PICKLES",
            f"['{'a' * 64}']",
            "Write TABLESIDE__REPOSITORY__ALLOWED_PICKLES=aaa",
        ),
        ("TABLESIDE__SERVER__DOCS", "true ", "the value has spaces around it. Write TABLESIDE__SERVER__DOCS=true"),
        ("TABLESIDE__SERVER__DOCS", "yes", "TABLESIDE__SERVER__DOCS: expected true or false"),
        ("TABLESIDE__SERVER__WORKERS", '"4"', "has quotes around it. Write TABLESIDE__SERVER__WORKERS=4"),
        ("TABLESIDE__SERVER__WORKERS", "4\r", "has spaces around it. Write TABLESIDE__SERVER__WORKERS=4"),
        ("TABLESIDE__REPOSITORY__PATH", "'my models'", "quotes around it. Write TABLESIDE__REPOSITORY__PATH=my models"),
    ],
)
def test_a_variable_that_is_not_what_it_looks_like(variable: str, value: str, text: str) -> None:
    """Brackets, quotes, spaces and empty entries that another syntax left are refused with the right spelling."""
    with pytest.raises(SettingsError) as refused:
        load({variable: value})
    assert text in str(refused.value)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("text", "error"),
    [
        (
            '[repository]\ntrusted_types = "a.B, c.D"\n',
            'repository.trusted_types: expected a list. Write trusted_types = ["a.B", "c.D"]',
        ),
        (
            '[repository]\ntrusted_types = ["a.B", "c.D, e.F"]\n',
            "repository.trusted_types[1]: the entry has a comma or semicolon in it. Write "
            'trusted_types = ["a.B", "c.D", "e.F"]',
        ),
        (
            '[repository]\ntrusted_types = ["a.B", ""]\n',
            'repository.trusted_types[1]: the list has an empty entry. Write trusted_types = ["a.B"]',
        ),
        (
            "[repository]\ntrusted_types = ['\"a.B\"']\n",
            'repository.trusted_types[0]: the entry has quotes around it. Write trusted_types = ["a.B"]',
        ),
        (
            '[repository]\npath = "models "\n',
            'repository.path: the value has spaces around it. Write path = "models"',
        ),
        ('[server]\ndocs = "yes"\n', "server.docs: expected true or false"),
    ],
)
def test_a_file_that_is_not_what_it_looks_like(tmp_path: Path, text: str, error: str) -> None:
    """The same in a TOML file: a text in place of a list, and entries and values that would be taken as they are."""
    file = tmp_path / "t.toml"
    file.write_text(text)
    with pytest.raises(SettingsError) as refused:
        load({}, file)
    assert str(refused.value) == error


@pytest.mark.parametrize(
    ("variable", "value", "text"),
    [
        ("TABLESIDE__SERVER__WORKER", "1", "workers"),
        (
            "TABLESIDE__SERVR__WORKERS",
            "1",
            "SECTION__KEY with a section of environments, log, predict, repository, server",
        ),
        ("TABLESIDE__WORKERS", "1", "unknown setting"),
        ("TABLESIDE__LOG__COLOR", "1", "Section 'log' has access_one_in, format"),
        ("TABLESIDE__SERVER__WORKERS", "many", "int"),
        ("TABLESIDE__SERVER__WORKERS", "0", ">= 1"),
        ("TABLESIDE__SERVER__LISTEN", "8080", "expected HOST:PORT, such as 127.0.0.1:8080"),
        ("TABLESIDE__REPOSITORY__ALLOWED_PICKLES", "abc", "expected 64 hexadecimal digits"),
        ("TABLESIDE__SERVER__NGINX", "maybe", "maybe"),
        ("TABLESIDE__SERVER__REQUEST_TIMEOUT_S", "0", "> 0"),
        ("TABLESIDE__SERVER__REQUEST_TIMEOUT_S", "4000", "3600"),
        ("TABLESIDE__SERVER__REQUEST_TIMEOUT_S", "nan", ""),
        ("TABLESIDE__SERVER__REQUEST_TIMEOUT_S", "inf", ""),
    ],
)
def test_a_bad_variable_is_named(variable: str, value: str, text: str) -> None:
    """An unknown or bad variable is refused in one line, which names it and says what is possible."""
    with pytest.raises(SettingsError) as refused:
        load({variable: value})
    assert variable in str(refused.value)
    assert text in str(refused.value)
    assert "regex" not in str(refused.value)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("[server]\nworkers = 0\n", "server.workers"),
        ("[server]\nwrokers = 1\n", "wrokers"),
        ("[sever]\nworkers = 1\n", "sever"),
        ("server = 3\n", "server"),
        ("[server\n", "t.toml"),
        ('[server]\nlisten = "localhost"\n', "^server.listen: expected HOST:PORT, such as 127.0.0.1:8080"),
        ('[repository]\nallowed_pickles = ["abc"]\n', r"^repository.allowed_pickles\[0\]: expected 64 hexadecimal"),
    ],
)
def test_a_bad_file_is_named(tmp_path: Path, text: str, named: str) -> None:
    """An unknown key, a bad value or bad syntax in a file is refused by name, with and without variables."""
    file = tmp_path / "t.toml"
    file.write_text(text)
    for environ in ({}, {"TABLESIDE__SERVER__PREDICT_THREADS": "2"}):
        with pytest.raises(SettingsError, match=named):
            load(environ, file)


def test_a_named_file_must_exist(tmp_path: Path) -> None:
    """A settings file that is named but missing is an error, which says what to do; the defaults are not used."""
    with pytest.raises(SettingsError, match=r"nowhere\.toml: this settings file does not exist. Create it, or unset"):
        load({}, tmp_path / "nowhere.toml")
    with pytest.raises(SettingsError, match="elsewhere"):
        load({"TABLESIDE_CONFIG": str(tmp_path / "elsewhere")})


def test_a_file_of_another_user_says_who_may_read_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On an installed host its folder is closed to ordinary users, who get one line and no traceback."""

    def refuse(path: Path, **how: str) -> str:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Path, "read_text", refuse)
    path = tmp_path / "tableside.toml"
    with pytest.raises(SettingsError, match=r"tableside\.toml: this user may not read .* with sudo$"):
        load(environ={}, config=path)


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    """A folder in place of the file, and a file that is not UTF-8, are refused by name."""
    (tmp_path / "latin.toml").write_bytes(b"# caf\xe9\n")
    for path in (tmp_path, tmp_path / "latin.toml"):
        with pytest.raises(SettingsError, match=f"^{re.escape(str(path))}: "):
            load({}, path)


def test_settings_cannot_be_changed() -> None:
    """The settings are read once, and the same for the life of the process."""
    with pytest.raises(AttributeError):
        load({}).server.workers = 3


def test_the_two_planes_need_two_addresses() -> None:
    """The control plane and the data plane must not have the same address."""
    with pytest.raises(SettingsError, match=r"server\.listen and server\.admin_listen"):
        load({"TABLESIDE__SERVER__ADMIN_LISTEN": "127.0.0.1:8080"})


def test_an_address_is_split_into_host_and_port() -> None:
    """IPv6 addresses lose their brackets, and a port out of range is refused."""
    assert split_address("[::1]:80") == ("::1", 80)
    assert split_address("0.0.0.0:65535") == ("0.0.0.0", 65535)
    for port in ("0", "65536"):
        with pytest.raises(SettingsError, match="65535"):
            load({"TABLESIDE__SERVER__LISTEN": f"127.0.0.1:{port}"})


@given(st.floats(min_value=0, max_value=3600, exclude_min=True))
def test_each_timeout_is_longer_than_the_one_inside(timeout_s: float) -> None:
    """For every deadline: deadline < gunicorn's graceful timeout < nginx's read timeout < supervisord's wait."""
    server = Server(request_timeout_s=timeout_s)
    assert timeout_s < server.graceful_timeout_s < server.proxy_read_timeout_s < server.stop_wait_s
