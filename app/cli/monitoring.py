"""The files of `tableside init --monitoring`: those of the project, fitted to a folder without a checkout."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

FOLDER = "monitoring"
_PAGE = re.compile(r"\[([^\]]+)\]\((?:\.\./)+([^)#]+)[^)]*\)")
"""A link of a runbook to a file outside of its folder."""
_TARGET = re.compile(r"^ +# The control plane \(server\.admin_listen\).*?\n(?= +- targets:)", re.DOTALL | re.MULTILINE)
"""The comment above the targets of prometheus.yml."""
_OWN_TARGET = """\
      # The control plane (server.admin_listen) of each host, here of this one. From another host, write an address that
      # it reaches; a name that is not the host's own must be in server.allowed_hosts.
"""
README = """\
# Monitoring

| files | what they are |
|---|---|
| `prometheus/prometheus.yml` | the configuration of Prometheus: it scrapes this host |
| `prometheus/rules/` | sums, and alerts that read them |
| `grafana/dashboard.json` | the dashboard; in Grafana choose *Dashboards, New, Import* |
| `runbooks/` | a page for each alert, which says what to do; `runbooks/README.md` lists them |

Write your hosts into `targets` of `prometheus.yml`, copy the file and the folder `rules` to where your Prometheus reads
its configuration, and check it there:

    promtool check config prometheus.yml

Keep the name of the job, `tableside`: two alerts, and every panel and variable of the dashboard, select it.

## The address of the runbooks

Each alert has the annotation `runbook_url`, the path of a page in this folder. If you publish the pages, for instance
in a wiki or a repository, put their address before the paths, in the alerts and in the dashboard:

    sed -i 's#runbook_url: runbooks/#runbook_url: https://git.example.com/ml/runbooks/#' prometheus/rules/alerts.yml
    sed -i 's#"url": "runbooks/#"url": "https://git.example.com/ml/runbooks/#' grafana/dashboard.json

What the runbooks call `docs/guide/...` are pages of the project Tableside. Its page `docs/guide/monitor.md` has the
table of all alerts with their thresholds.
"""


def files() -> Iterator[tuple[str, str]]:
    """Yield the name of each file, with the folder FOLDER, and its text. Prometheus is to scrape this host.

    Grafana's provisioning files are left out: they fit the project's compose file only.
    """
    from tableside.deployment.layout import DASHBOARD, PROMETHEUS, RUNBOOKS

    yield f"{FOLDER}/README.md", README
    for path in (PROMETHEUS / "prometheus.yml", *sorted((PROMETHEUS / "rules").glob("*.yml"))):
        yield f"{FOLDER}/prometheus/{path.relative_to(PROMETHEUS)}", _of_prometheus(path)
    dashboard = DASHBOARD.read_text(encoding="utf-8")
    yield f"{FOLDER}/grafana/{DASHBOARD.name}", dashboard.replace("docs/runbooks/", "runbooks/")
    for path in sorted(RUNBOOKS.glob("*.md")):
        yield f"{FOLDER}/runbooks/{path.name}", _of_runbook(path)


def _of_prometheus(path: Path) -> str:
    text = path.read_text(encoding="utf-8")
    text = _TARGET.sub(_OWN_TARGET, text).replace('targets: ["tableside:8081"]', 'targets: ["127.0.0.1:8081"]')
    text = text.replace("docs/runbooks/", "runbooks/").replace("README.md of this folder", "README.md one folder up")
    return text.replace("docs/guide/monitor.md", "The project's docs/guide/monitor.md")


def _of_runbook(path: Path) -> str:
    return _PAGE.sub(_plain, path.read_text(encoding="utf-8")).replace("deploy/", "")


def _plain(link: re.Match[str]) -> str:
    """The words of a link, with the path of the page in the project; for a file that is written too, a link to it."""
    words, path = link.groups()
    if path.startswith("deploy/"):
        return f"[{words}](../{path.removeprefix('deploy/')})"
    return f"{words} [docs/{path}]"
