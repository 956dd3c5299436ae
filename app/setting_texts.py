"""Checks how settings are written: lists, and the quotes and spaces that a shell or another file format left in them.

A setting that is not what it looks like is refused with the spelling that works. Without that, `["a.B"]` in a variable
would be a list with the one entry `["a.B"]`, and a path in quotes would be the name of a folder with quotes in it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping, Sequence
from ipaddress import ip_address

import msgspec

from tableside.errors import SettingsError
from tableside.setting_front import NETWORK_PATTERN, ORIGIN_PATTERN, PREFIX_PATTERN

_LIST_SYNTAX = re.compile(r"[\[\](){}\"'\s,;]+")
"""What may stand around and between the entries of a list, in JSON, TOML, Python or a shell."""
_QUOTES = "\"'"

SHA256_PATTERN = r"^[0-9a-fA-F]{64}\Z"
TYPE_PATTERN = r"^[^\s,;()\[\]{}]+\Z"
ADDRESS_PATTERN = r"^(\[[0-9a-fA-F:.]+\]|[^\[\]:]+):[0-9]{1,5}\Z"
HOST_PATTERN = r"^(\*|(\*?\.)?[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*\.?|[0-9a-fA-F:.]+)\Z"
ENVIRONMENT_PATTERN = r"^[a-z0-9][a-z0-9_.-]{0,31}\Z"
ENVIRONMENT_NAME = re.compile(ENVIRONMENT_PATTERN)
LIBRARIES = ("xgboost", "lightgbm", "catboost", "imbalanced-learn", "feature-engine", "skrub")
"""Libraries with a reviewed list of types: the values of `repository.trusted_libraries`."""
LIBRARY_PATTERN = rf"^({'|'.join(LIBRARIES)})\Z"
MODEL_ENVIRONMENT_PATTERN = r"^[^\s=,]+=[a-z0-9][a-z0-9_.-]{0,31}\Z"
URL_PATTERN = r"^(https?://[!-~]+)?\Z"
RESOURCE_ATTRIBUTE_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9._/-]{0,254}=[ -~]{1,1000}\Z"
TRUSTED_KEY_PATTERN = r"^([A-Za-z0-9][A-Za-z0-9_.@-]{0,63}=)?ed25519:[A-Za-z0-9_-]{43}\Z"
PATTERN_MESSAGES = {
    SHA256_PATTERN: "expected 64 hexadecimal digits, as sha256sum prints them",
    TYPE_PATTERN: "expected the full name of a type, such as package.module.Class",
    ADDRESS_PATTERN: "expected HOST:PORT, such as 127.0.0.1:8080 or [::1]:8080",
    HOST_PATTERN: "expected a host's name without a port, such as models.example.com or *.example.com, or * for all",
    ENVIRONMENT_PATTERN: "an environment's name has 1 to 32 lower-case letters, digits, '-', '_' and '.'",
    MODEL_ENVIRONMENT_PATTERN: "expected MODEL=ENVIRONMENT, such as churn=old",
    TRUSTED_KEY_PATTERN: "expected a public key as `tableside signing-key` prints it, such as NAME=ed25519:...",
    URL_PATTERN: "expected a URL that begins with http:// or https://",
    RESOURCE_ATTRIBUTE_PATTERN: "expected NAME=VALUE, such as deployment.environment.name=production",
    NETWORK_PATTERN: "expected an address or a network, such as 10.0.0.7, 10.0.0.0/8 or 2001:db8::/32",
    PREFIX_PATTERN: "expected a path that begins with / and does not end with it, such as /ml or /team/models",
    ORIGIN_PATTERN: "expected SCHEME://HOST or SCHEME://HOST:PORT in lower case, without a path, such as "
    "https://app.example.com, or * for all",
    LIBRARY_PATTERN: f"expected libraries with a reviewed list of types: {', '.join(LIBRARIES)}",
}
"""What an error says in place of a regular expression."""


def is_loopback(host: str) -> bool:
    """Return whether only this machine reaches the host: a loopback address, or the name localhost."""
    try:
        return ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host.lower() == "localhost"


def list_in_variable(text: str, variable: str) -> list[str]:
    """Return the entries of a list in an environment variable: separated by commas, spaces around them dropped.

    Raises SettingsError for brackets, quotes, and empty entries. An empty text is an empty list.
    """
    if not text.strip():
        return []
    entries = [entry.strip() for entry in text.split(",")]
    problem = next(filter(None, map(_entry_problem, entries)), "")
    if problem:
        raise SettingsError(f"{variable}: {problem}. Write {variable}={','.join(_meant(text))}")
    return entries


def check_value(text: str, name: str, spelling: Callable[[str], str]) -> None:
    """Raise SettingsError for a value with quotes or spaces around it. spelling: writes the setting with a value."""
    inner = text.strip()
    if len(inner) > 1 and inner[0] == inner[-1] and inner[0] in _QUOTES:
        raise SettingsError(f"{name}: the value has quotes around it. Write {spelling(inner[1:-1].strip())}")
    if inner != text:
        raise SettingsError(f"{name}: the value has spaces around it. Write {spelling(inner)}")


def check_variable(text: str, variable: str) -> None:
    """Raise SettingsError for a value in an environment variable with quotes or spaces around it."""
    check_value(text, variable, lambda value: f"{variable}={value}")


def check_file(content: object, lists: Collection[str], path: str = "") -> None:
    """Check every text and list in the content of a TOML file. Raises SettingsError with the right spelling.

    lists: the dotted names of the settings that are lists. path: the dotted name of `content`.
    """
    if isinstance(content, dict):
        for key, value in content.items():
            check_file(value, lists, f"{path}.{key}" if path else str(key))
    elif isinstance(content, str) and path in lists:
        raise SettingsError(f"{path}: expected a list. Write {_toml_list(path, _meant(content))}")
    elif isinstance(content, str):
        check_value(content, path, lambda value: f'{_key(path)} = "{value}"')
    elif isinstance(content, list) and path in lists:
        texts = [entry for entry in content if isinstance(entry, str)]
        for at, entry in enumerate(content):
            problem = _entry_problem(entry) if isinstance(entry, str) else ""
            if problem:
                raise SettingsError(f"{path}[{at}]: {problem}. Write {_toml_list(path, _meant(','.join(texts)))}")


def _entry_problem(entry: str) -> str:
    if not entry.strip():
        return "the list has an empty entry"
    if entry[0] in "[({" or (entry[-1] in "])}" and "://[" not in entry):  # an IPv6 address in an origin
        return "the list has brackets around its entries"
    if entry[0] in _QUOTES or entry[-1] in _QUOTES:
        return "the entry has quotes around it"
    if entry != entry.strip():
        return "the entry has spaces around it"
    return "the entry has a comma or semicolon in it" if set(",;") & set(entry) else ""


def _meant(text: str) -> list[str]:
    """Return the entries that the text probably means."""
    return [entry for entry in _LIST_SYNTAX.split(text) if entry]


def _toml_list(path: str, entries: Sequence[str]) -> str:
    quoted = (f'"{entry}"' for entry in entries)
    return f"{_key(path)} = [{', '.join(quoted)}]"


def _key(path: str) -> str:
    return path.rpartition(".")[2]


def readable(message: str) -> str:
    """Replace msgspec's message about a regular expression or a boolean by what the setting needs."""
    if message.startswith("Expected `bool`"):
        return "expected true or false"
    return next((text for pattern, text in PATTERN_MESSAGES.items() if repr(pattern) in message), message)


def explain(message: str) -> str:
    """Return msgspec's message about a setting as a line that begins with the setting's name."""
    text, _, path = message.partition(" - at ")
    return f"{path.strip('`').removeprefix('$.') or 'settings'}: {readable(text)}"


def refuse_no_keys(content: Mapping[str, object]) -> None:
    """Raise SettingsError if `repository.trusted_keys` is there and has no key.

    Without the setting every version is served, so an empty list, such as a variable that a script has not filled,
    would turn the check of signatures off without a word.
    """
    repository = content.get("repository")
    if isinstance(repository, Mapping) and repository.get("trusted_keys", ["-"]) in ([], ()):
        raise SettingsError(
            "repository.trusted_keys is an empty list. Write at least one public key, as `tableside signing-key` "
            "prints it; to serve versions that nobody has signed, remove the setting"
        )


def split_address(address: str) -> tuple[str, int]:
    """Split `host:port` or `[ipv6]:port` into host and port. Raises SettingsError if the port is out of range."""
    host, _, port = address.rpartition(":")
    if not 0 < int(port) < 65536:
        raise SettingsError(f"{address}: the port must be between 1 and 65535")
    return host.strip("[]"), int(port)


def list_settings(settings: type[msgspec.Struct]) -> frozenset[str]:
    """Return the dotted names of the settings that are lists, such as `server.allowed_hosts`."""
    return frozenset(
        f"{section.name}.{field.name}"
        for section in msgspec.structs.fields(settings)
        if isinstance(section.type, type) and issubclass(section.type, msgspec.Struct)
        for field in msgspec.structs.fields(section.type)
        if isinstance(field.default, tuple)
    )
