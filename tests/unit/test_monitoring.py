"""Alerts, runbooks and the dashboard of deploy/ are complete, and promtool takes every rule and every query."""

from __future__ import annotations

import itertools
import json
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

pytestmark = pytest.mark.no_greenlets

PROJECT = Path(__file__).resolve().parents[2]
DEPLOY = PROJECT / "deploy"
RULES = DEPLOY / "prometheus/rules"
RUNBOOKS = PROJECT / "docs/runbooks"
TESTS = PROJECT / "tests/prometheus"
SECTIONS = ["What it means", "What clients see", "How to look", "What to do", "How to know that it is over"]
GRID_COLUMNS = 24
UNITS = {"short", "s", "bytes", "reqps", "percentunit"}
"""Grafana's ids of the units that the dashboard uses."""


def groups(file: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = yaml.safe_load((RULES / file).read_text())["groups"]
    return found


ALERTS: dict[str, dict[str, Any]] = {rule["alert"]: rule for group in groups("alerts.yml") for rule in group["rules"]}
RECORDS: list[str] = [rule["record"] for group in groups("recording.yml") for rule in group["rules"]]
CASES: list[dict[str, Any]] = [
    case for file in sorted(TESTS.glob("*.yml")) for case in yaml.safe_load(file.read_text())["tests"]
]
DASHBOARD: dict[str, Any] = json.loads((DEPLOY / "grafana/dashboard.json").read_text())
PANELS: list[dict[str, Any]] = [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]


def page_of(alert: str) -> str:
    """The path of an alert's runbook in the project: its name in kebab case."""
    return f"docs/runbooks/{re.sub(r'(?<!^)(?=[A-Z])', '-', alert).lower()}.md"


def promtool(*words: object) -> str:
    done = subprocess.run(["promtool", *map(str, words)], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_alerts_have_names_of_their_own() -> None:
    """Each alert is defined once and begins with the project's name, so that it can be told from others."""
    names = [rule["alert"] for group in groups("alerts.yml") for rule in group["rules"]]
    assert len(names) == len(set(names)) > 30
    assert all(name.startswith("Tableside") for name in names)
    assert len(RECORDS) == len(set(RECORDS))


@pytest.mark.parametrize("alert", ALERTS)
def test_an_alert_says_what_it_is(alert: str) -> None:
    """It has a severity, a summary and a description of whole sentences, and the page that says what to do."""
    rule = ALERTS[alert]
    assert rule["labels"].keys() == {"severity"}
    assert rule["labels"]["severity"] in ("critical", "warning")
    assert rule["annotations"].keys() == {"summary", "description", "runbook_url"}
    assert rule["annotations"]["description"].endswith(".")
    assert "instance" in rule["annotations"]["summary"] or alert == "TablesideNoTarget", "which host?"
    assert rule["annotations"]["runbook_url"] == page_of(alert)


@pytest.mark.parametrize("alert", ALERTS)
def test_an_alert_has_a_case_in_which_it_fires_and_one_in_which_it_does_not(alert: str) -> None:
    """The tests for promtool name it as the alert that fires, and have a case like it in which nothing does."""
    fires, quiet = (
        [each for each in CASES if each["name"].startswith(f"{alert} {does}")] for does in ("fires:", "does")
    )
    assert len(fires) == 1
    assert len(quiet) >= 1
    [question] = fires[0]["promql_expr_test"]
    assert question["expr"] == 'ALERTS{alertstate="firing"}', "no other alert fires unseen"
    assert f'alertname="{alert}"' in question["exp_samples"][0]["labels"]
    assert f'severity="{ALERTS[alert]["labels"]["severity"]}"' in question["exp_samples"][0]["labels"]
    for each in quiet:
        assert [(one["expr"], one["exp_samples"]) for one in each["promql_expr_test"]] == [(question["expr"], [])]


def test_each_case_belongs_to_an_alert() -> None:
    """No case is left of an alert that was removed or renamed."""
    assert {case["name"].partition(" ")[0] for case in CASES} == ALERTS.keys()


def test_the_cases_evaluate_the_recording_rules_first() -> None:
    """Without an order promtool may evaluate an alert before the rules whose values it reads."""
    names = [group["name"] for file in ("recording.yml", "alerts.yml") for group in groups(file)]
    for file in TESTS.glob("*.yml"):
        assert yaml.safe_load(file.read_text())["group_eval_order"] == names, file


@pytest.mark.parametrize("alert", ALERTS)
def test_the_runbook_of_an_alert_says_what_to_do(alert: str) -> None:
    """It has the name and the severity, and answers the same five questions as all others, with a command to type."""
    text = (PROJECT / page_of(alert)).read_text()
    assert text.startswith(f"# {alert}\n")
    assert f"**Severity:** {ALERTS[alert]['labels']['severity']}." in text
    assert re.findall(r"^## (.+)$", text, re.MULTILINE) == SECTIONS
    parts = re.split(r"^## .+$", text, flags=re.MULTILINE)[1:]
    assert all(part.strip() for part in parts)
    assert "```" in parts[2], "no command"


def test_each_runbook_belongs_to_an_alert() -> None:
    """No page is left of an alert that was removed, and the list of pages has all alerts in order."""
    pages = {path.relative_to(PROJECT).as_posix() for path in RUNBOOKS.glob("*.md")} - {"docs/runbooks/README.md"}
    assert pages == {page_of(alert) for alert in ALERTS}
    listed = re.findall(r"^\| \[(\w+)\]\(([^)]+)\) \| (\w+) \|", (RUNBOOKS / "README.md").read_text(), re.MULTILINE)
    assert listed == [(alert, Path(page_of(alert)).name, rule["labels"]["severity"]) for alert, rule in ALERTS.items()]


def test_the_guide_lists_every_alert() -> None:
    """monitor.md has a row for each alert, in the order of the file, with its severity and a threshold."""
    text = (PROJECT / "docs/guide/monitor.md").read_text()
    rows = re.findall(r"^\| \[`(\w+)`\]\(\.\./runbooks/([\w-]+\.md)\) \| (\w+) \| (.+) \|$", text, re.MULTILINE)
    assert [row[:3] for row in rows] == [
        (alert, Path(page_of(alert)).name, rule["labels"]["severity"]) for alert, rule in ALERTS.items()
    ]


def test_promtool_takes_the_rules_and_the_configuration(tmp_path: Path) -> None:
    """The files are valid, also with the lines for a key and TLS, which are comments."""
    promtool("check", "rules", *sorted(RULES.glob("*.yml")))
    promtool("check", "config", DEPLOY / "prometheus/prometheus.yml")
    text = (DEPLOY / "prometheus/prometheus.yml").read_text()
    text = re.sub(
        r"^    # (?=authorization|  credentials_file|scheme|tls_config|  ca_file)", "    ", text, flags=re.MULTILINE
    )
    assert text.count("/etc/prometheus/") == 2
    for name in ("tableside.key", "ca.pem"):
        (tmp_path / name).touch()
    (tmp_path / "rules").symlink_to(RULES)
    file = tmp_path / "prometheus.yml"
    file.write_text(text.replace("/etc/prometheus", str(tmp_path)))
    promtool("check", "config", file)
    [job] = yaml.safe_load(file.read_text())["scrape_configs"]
    assert job["job_name"] == "tableside"
    assert (job["scheme"], job["authorization"].keys(), job["tls_config"].keys()) == (
        "https", {"credentials_file"}, {"ca_file"},
    )  # fmt: skip


def test_the_scrape_of_pods_is_a_job_of_the_name_that_the_dashboard_selects(tmp_path: Path) -> None:
    """The job of containers.md is valid, and keeps the pods of deploy/kubernetes by their label and port."""
    [text] = re.findall(
        r"^```yaml\n(scrape_configs:.+?)^```", (PROJECT / "docs/guide/containers.md").read_text(), re.M | re.S
    )
    [job] = yaml.safe_load(text)["scrape_configs"]
    assert [each["role"] for each in job.pop("kubernetes_sd_configs")] == [
        "pod"
    ]  # Debian's Prometheus does not know it
    file = tmp_path / "prometheus.yml"
    file.write_text(yaml.safe_dump({"scrape_configs": [job]}))
    promtool("check", "config", file)
    assert job["job_name"] == "tableside"
    pod = yaml.safe_load((DEPLOY / "kubernetes/deployment.yaml").read_text())["spec"]["template"]
    name, port = job["relabel_configs"][0]["regex"].split(";")
    assert pod["metadata"]["labels"]["app.kubernetes.io/name"] == name
    assert int(port) in [each["containerPort"] for each in pod["spec"]["containers"][0]["ports"]]


@pytest.mark.slow
@pytest.mark.parametrize("file", sorted(TESTS.glob("*.yml")), ids=lambda file: file.stem)
def test_the_alerts_fire_when_they_should(file: Path) -> None:
    """promtool runs the cases of each alert."""
    assert "SUCCESS" in promtool("test", "rules", file)


def test_counters_are_new_only_on_a_host_that_was_scraped() -> None:
    """`up` is 0 while scrapes fail, and 0 would do for `and`: old counters would look new after such a gap."""
    asked = [
        line for line in (RULES / "alerts.yml").read_text().splitlines() if "up offset" in line and "#" not in line
    ]
    assert len(asked) == 4
    assert all(line.endswith("up offset 15m == 1") for line in asked)


def all_queries() -> list[str]:
    variables = [each["query"]["query"] for each in DASHBOARD["templating"]["list"] if each["type"] == "query"]
    assert all(each.startswith("label_values(") for each in variables)
    annotations = [each["expr"] for each in DASHBOARD["annotations"]["list"] if "expr" in each]
    return [target["expr"] for panel in PANELS for target in panel["targets"]] + annotations


def test_promtool_parses_every_query(tmp_path: Path) -> None:
    """With the variables replaced, each query of the dashboard is PromQL."""
    replaced = [expr.replace("$__rate_interval", "1m") for expr in all_queries()]
    rules = [{"record": f"query:{number}", "expr": expr} for number, expr in enumerate(replaced)]
    file = tmp_path / "queries.yml"
    file.write_text(yaml.safe_dump({"groups": [{"name": "dashboard", "rules": rules}]}))
    assert f"SUCCESS: {len(rules)} rules found" in promtool("check", "rules", file)


def test_the_dashboard_selects_the_host_in_every_query() -> None:
    """No panel sums over hosts that were not chosen."""
    known = {each["name"] for each in DASHBOARD["templating"]["list"]}
    assert known == {"datasource", "instance", "model"}
    for expr in all_queries():
        assert set(re.findall(r"\$\{?(\w+)", expr)) <= known | {"__rate_interval"}, expr
        for metric, selector in re.findall(r"((?:\w+:)?tableside_[\w:]+)(\{[^}]*\})?", expr):
            assert "$instance" in selector, (metric, expr)


def test_a_panel_without_requests_says_so() -> None:
    """Ratios of rates and quantiles are NaN on an idle server: the filter leaves them out, and `noValue` shows."""
    idle = re.compile(r"ratio_rate|per_row_|histogram_quantile| / .*rate\(")
    found = [panel for panel in PANELS if any(idle.search(each["expr"]) for each in panel["targets"])]
    assert len(found) > 10
    for panel in found:
        assert all(each["expr"].endswith(" >= 0") for each in panel["targets"]), panel["title"]
        assert panel["fieldConfig"]["defaults"]["noValue"], panel["title"]


def test_recorded_names_in_the_dashboard_and_alerts_exist() -> None:
    """Each name with a colon is a recording rule."""
    texts = [*all_queries(), *(rule["expr"] for rule in ALERTS.values())]
    used = {name for text in texts for name in re.findall(r"\b(?:instance|model|column):[\w:]+", text)}
    assert used <= set(RECORDS)
    used |= {
        name
        for group in groups("recording.yml")
        for rule in group["rules"]
        for name in re.findall(r"\b\w+:[\w:]+", rule["expr"])
    }
    assert set(RECORDS) - used == set(), "nobody reads these"


def test_panels_can_be_told_apart_and_do_not_overlap() -> None:
    """Ids and titles are unique, and no two panels share a cell of the grid."""
    everything = DASHBOARD["panels"]
    assert len({panel["id"] for panel in everything}) == len(everything)
    assert len({panel["title"] for panel in everything}) == len(everything)
    cells: dict[tuple[int, int], str] = {}
    for panel in everything:
        place = panel["gridPos"]
        assert place["x"] + place["w"] <= GRID_COLUMNS
        for x, y in itertools.product(range(place["w"]), range(place["h"])):
            cell = (place["x"] + x, place["y"] + y)
            assert cell not in cells, (panel["title"], cells[cell])
            cells[cell] = panel["title"]
    rows = [panel["title"] for panel in everything if panel["type"] == "row"]
    assert rows == [
        "Overview", "Models", "Latency by stage", "Queue and batches", "nginx", "Workers and processes", "Machine",
        "Releases", "Input quality",
    ]  # fmt: skip


@pytest.mark.parametrize("panel", PANELS, ids=lambda panel: panel["title"])
def test_a_panel_says_what_it_shows(panel: dict[str, Any]) -> None:
    """It has a description, a unit, the chosen data source and queries; a link to a runbook leads to one."""
    source = {"type": "prometheus", "uid": "${datasource}"}
    assert panel["description"].endswith(".")
    assert panel["fieldConfig"]["defaults"]["unit"] in UNITS
    assert panel["datasource"] == source
    assert panel["targets"]
    assert len({target["refId"] for target in panel["targets"]}) == len(panel["targets"])
    assert all(target["datasource"] == source for target in panel["targets"])
    for link in panel.get("links", []):
        assert (PROJECT / link["url"]).is_file(), link
    steps = [step["value"] for step in panel["fieldConfig"]["defaults"]["thresholds"]["steps"]]
    assert steps[0] is None
    assert steps[1:] == sorted(steps[1:])


def test_grafana_can_take_the_dashboard() -> None:
    """Grafana 12 reads the schema, chooses the id itself, and finds the file in the folder of the provider."""
    assert DASHBOARD["schemaVersion"] >= 39
    assert (DASHBOARD["id"], DASHBOARD["uid"]) == (None, "tableside")
    assert [each["name"] for each in DASHBOARD["templating"]["list"] if each["type"] == "datasource"] == ["datasource"]
    [provider] = yaml.safe_load((DEPLOY / "grafana/provisioning/dashboards/tableside.yaml").read_text())["providers"]
    mounts = yaml.safe_load((DEPLOY / "docker/compose.yaml").read_text())["services"]
    inside = dict(reversed(each.split(":")[:2]) for each in mounts["grafana"]["volumes"])
    assert inside[f"{provider['options']['path']}/tableside.json"] == "../grafana/dashboard.json"
    assert inside["/etc/grafana/provisioning"] == "../grafana/provisioning"
    inside = dict(reversed(each.split(":")[:2]) for each in mounts["prometheus"]["volumes"])
    assert inside["/etc/prometheus/prometheus.yml"] == "../prometheus/prometheus.yml"
    assert inside["/etc/prometheus/rules"] == "../prometheus/rules"
    assert [*(DEPLOY / "docker").rglob("prometheus*")] == [], "there is one copy of each file"


@pytest.mark.parametrize("link", [*DASHBOARD["links"]], ids=lambda link: link["title"])
def test_a_link_of_the_dashboard_leads_to_a_page(link: dict[str, Any]) -> None:
    assert (PROJECT / link["url"]).is_file()
