"""A real Prometheus on 127.0.0.1, with the rules of deploy/, whose data is in a temporary folder."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any

import yaml

from benchmarks.free_ports import free_port
from tests.e2e.conftest import PROJECT, until

RULES = PROJECT / "deploy/prometheus/rules"
SCRAPE = PROJECT / "deploy/prometheus/prometheus.yml"
WINDOWS = {"5m": "10s", "15m": "60s", "30m": "10s", "1h": "30s", "2h": "60s", "6h": "60s", "1d": "60s", "3d": "60s"}
"""The windows of the rules, and what a test of a minute has in their place."""
OFFSETS = {"1h": "15s", "15m": "15s", "3h": "3h", "6h": "60s"}


def shorter(text: str, alerts: Collection[str], five_minutes: str = WINDOWS["5m"]) -> str:
    """The rules of a file with shorter windows everywhere, and with a `for` of 1 s in these alerts.

    Expressions and thresholds are those of the file. Other alerts keep their `for`. five_minutes: what stands in place
    of 5 minutes; an outage must be shorter, because a counter is seen to increase only within its window.
    """
    windows = WINDOWS | {"5m": five_minutes}
    text = re.sub(r"\[(\w+)\]", lambda found: f"[{windows[found[1]]}]", text)
    text = re.sub(r"\boffset (\w+)", lambda found: f"offset {OFFSETS[found[1]]}", text)
    rules = yaml.safe_load(text)
    for group in rules["groups"]:
        for rule in group["rules"]:
            if "for" in rule and rule["alert"] in alerts:
                rule["for"] = "1s"
    return yaml.safe_dump(rules, sort_keys=False)


class Prometheus:
    """The server, from `start` to `stop`. It scrapes one stack every second, with the configuration of deploy/."""

    def __init__(self, folder: Path, target: str, key: str, authority: Path | None = None) -> None:
        """authority: the certificate that signs the target's; without one the target is scraped over plain HTTP."""
        self._folder, self._port = folder, free_port()
        (folder / "rules").mkdir(parents=True)
        (folder / "key").write_text(key)
        config = yaml.safe_load(SCRAPE.read_text())
        config["global"] = {"scrape_interval": "1s", "scrape_timeout": "1s", "evaluation_interval": "1s"}
        [job] = config["scrape_configs"]
        job["static_configs"] = [{"targets": [target]}]
        job["authorization"] = {"credentials_file": str(folder / "key")}
        if authority is not None:
            job |= {"scheme": "https", "tls_config": {"ca_file": str(authority)}}
        (folder / "prometheus.yml").write_text(yaml.safe_dump(config))
        self.use_rules(lambda text: text)
        self._process: subprocess.Popen[bytes] | None = None

    def use_rules(self, changed: Callable[[str], str]) -> None:
        """Write the rules of deploy/, after a change of their text."""
        for file in RULES.glob("*.yml"):
            (self._folder / "rules" / file.name).write_text(changed(file.read_text()))

    def start(self) -> None:
        """Start the server and wait until it has scraped."""
        words = [
            "prometheus", f"--config.file={self._folder}/prometheus.yml", f"--storage.tsdb.path={self._folder}/data",
            f"--web.listen-address=127.0.0.1:{self._port}", "--storage.tsdb.retention.time=1h", "--log.level=warn",
        ]  # fmt: skip
        with (self._folder / "log").open("wb") as log:
            self._process = subprocess.Popen(words, stdout=log, stderr=log)
        assert until(lambda: self.query('up{job="tableside"} == 1'), 30), (self._folder / "log").read_text()

    def reload(self) -> None:
        """Make the server read its configuration and rules again."""
        assert self._process is not None
        self._process.send_signal(signal.SIGHUP)

    def stop(self) -> None:
        """End the server."""
        if self._process is not None:
            self._process.terminate()
            self._process.wait(30)

    def query(self, expr: str, **more: str) -> list[dict[str, Any]]:
        """The result of an instant query, or of a range query if `start`, `end` and `step` are given.

        Without an answer the result is empty. Raises AssertionError if Prometheus does not take the query.
        """
        path = "query_range" if "start" in more else "query"
        address = f"http://127.0.0.1:{self._port}/api/v1/{path}?" + urllib.parse.urlencode({"query": expr, **more})
        try:
            with urllib.request.urlopen(address, timeout=30) as answer:
                found: list[dict[str, Any]] = json.load(answer)["data"]["result"]
                return found
        except urllib.error.HTTPError as problem:
            said = problem.read().decode()
            assert problem.code == 503, said
            return []
        except OSError:
            return []

    def alerts(self, state: str, window: str = "") -> set[str]:
        """The names of the alerts in this state now, or at any time in a window such as `5m`."""
        expr = f'ALERTS{{alertstate="{state}"}}'
        found = self.query(f"max_over_time({expr}[{window}])" if window else expr)
        return {each["metric"]["alertname"] for each in found}

    def labels(self, alert: str) -> list[Mapping[str, str]]:
        """The labels of an alert, of each time that it fires or has fired in the last hour."""
        found = self.query(f'max_over_time(ALERTS{{alertname="{alert}",alertstate="firing"}}[1h])')
        return [each["metric"] for each in found]
