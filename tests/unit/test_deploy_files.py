"""The files of deploy/ fit the settings and each other: times, ports, users, folders, and what gets into an image."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

from tableside import settings as app_settings
from tableside.deployment import exposure
from tableside.deployment.banner import START_TIMEOUT_S
from tableside.deployment.layout import MAX_RUN_DIR_BYTES
from tableside.server_settings import Server
from tableside.settings import Settings
from tests.deploy_files import (
    CODE,
    DEPLOY,
    PROJECT,
    STATE,
    UID,
    compose,
    kubernetes,
    last_stage,
    pod,
    ports,
    seconds,
    text,
    unit,
)
from tests.host.dockerfile import files, read

pytestmark = pytest.mark.no_greenlets


@pytest.fixture(params=["VM", "container", "Kubernetes"])
def installed(request: pytest.FixtureRequest, tmp_path: Path) -> Settings:
    """The settings of one way to install, as the stack reads them."""
    if request.param == "Kubernetes":
        file = tmp_path / "tableside.toml"
        file.write_text(kubernetes()["ConfigMap", "tableside"]["data"]["tableside.toml"])
    else:
        file = DEPLOY / ("tableside.toml" if request.param == "VM" else "docker/tableside.toml")
    return app_settings.load({}, file)


def test_the_settings_can_be_used_and_stay_in_the_state_folder(installed: Settings) -> None:
    """Each file of settings is valid, lets the stack start, keeps the ports, and names paths of the state folder."""
    exposure.check(installed, behind_nginx=True)
    assert installed.server.nginx == "on"
    assert ports(installed) == ports(Settings())
    assert len(str(installed.run_dir)) <= MAX_RUN_DIR_BYTES
    places = {
        "run": installed.run_dir,
        "environments": installed.environments_path,
        "keys.json": installed.keys_path,
        "models": installed.repository_path,
        "consent.jsonl": Path(installed.repository.consent_file),
    }
    assert places == {name: Path(STATE, name) for name in places}


@pytest.mark.parametrize(("request_s", "lame_duck_s"), [(30, 0), (30, 15), (120, 0), (7, 3)])
def test_the_formula_of_the_comments_is_that_of_the_settings(request_s: int, lame_duck_s: int) -> None:
    """Files and pages say how long the end of a stack takes: 2 x the deadline + 45 s, and 3 x the lame duck time."""
    server = Server(request_timeout_s=request_s, lame_duck_s=lame_duck_s)
    assert server.stack_stop_s == 2 * request_s + 45 + 3 * lame_duck_s
    for each in ("systemd/tableside.service", "docker/compose.yaml", "kubernetes/deployment.yaml"):
        said = re.sub(r"[\s#]+", " ", text(each))
        assert "2 x server.request_timeout_s + 45 s, and 3 x server.lame_duck_s more" in said, each


def test_whoever_stops_the_stack_waits_until_it_has_stopped(installed: Settings) -> None:
    """systemd, docker and Kubernetes give the stack longer than it takes to drain, with what they do before."""
    needed = installed.server.stack_stop_s
    assert seconds(unit()["TimeoutStopSec"][0]) > needed + 30, "`tableside stop` ends what is left after that"
    assert seconds(compose()["services"]["tableside"]["stop_grace_period"]) > needed
    before = pod()["containers"][0]["lifecycle"]["preStop"]["exec"]["command"]
    assert before[0] == "sleep"
    assert pod()["terminationGracePeriodSeconds"] >= needed + int(before[1]) + 5


def test_whoever_starts_the_stack_waits_until_it_says_what_it_is() -> None:
    """The time for a start is longer than the stack waits for its models before it says that it is not ready."""
    assert seconds(unit()["TimeoutStartSec"][0]) > START_TIMEOUT_S
    probe = pod()["containers"][0]["startupProbe"]
    assert probe["periodSeconds"] * probe["failureThreshold"] > START_TIMEOUT_S
    assert f"--start-period={START_TIMEOUT_S:g}s" in last_stage().last("HEALTHCHECK")


def test_the_unit_runs_the_installed_command_as_its_own_user() -> None:
    """Every command of the unit is that of the release in force, and its folders are those of the settings."""
    for directive, word in (("ExecStart", "run"), ("ExecStop", "stop"), ("ExecReload", "restart")):
        assert unit()[directive] == [f"{CODE}/.venv/bin/tableside {word}"]
    assert unit()["User"] == unit()["Group"] == unit()["StateDirectory"] == ["tableside"]
    assert unit()["WorkingDirectory"] == [STATE]
    assert unit()["Environment"] == ["TABLESIDE_CONFIG=/etc/tableside/tableside.toml"]
    assert (unit()["Type"], unit()["NotifyAccess"]) == (["notify"], ["all"])
    assert unit()["KillMode"] == ["process"], "a stack whose supervisord was killed is taken over"
    assert unit()["OOMPolicy"] == ["continue"], "a worker that the OOM killer ends is replaced"
    for each in (f"program={CODE}/.venv/bin/tableside", "TABLESIDE_CONFIG:-/etc/tableside/tableside.toml"):
        assert each in text("tableside.sh")
    for each in (f"state={STATE}", f"home={CODE.rsplit('/', 1)[0]}\n", 'activate "$release"', "$home/current"):
        assert each in text("install.sh")


def test_systemd_knows_every_directive(tmp_path: Path) -> None:
    """`systemd-analyze verify` says nothing about the unit, and names a directive that it does not know."""
    program = shutil.which("systemd-analyze")
    system = next(filter(Path.is_dir, (Path("/usr/lib/systemd/system"), Path("/lib/systemd/system"))), None)
    if program is None or system is None:  # elsewhere only the other tests of this file judge it
        return
    shutil.copytree(system, tmp_path / "usr/lib/systemd/system", symlinks=True)
    command = tmp_path / CODE.lstrip("/") / ".venv/bin/tableside"
    command.parent.mkdir(parents=True)
    command.write_text("#!/bin/sh\n")
    command.chmod(0o755)
    file = tmp_path / "etc/systemd/system/tableside.service"
    file.parent.mkdir(parents=True)

    def verify(content: str) -> list[str]:
        file.write_text(content)
        words = [program, "verify", "--man=no", f"--root={tmp_path}", "/etc/systemd/system/tableside.service"]
        done = subprocess.run(words, capture_output=True, text=True, timeout=60)
        return [line for line in (done.stdout + done.stderr).splitlines() if "tableside" in line]

    content = text("systemd/tableside.service")
    assert verify(content) == []
    assert any("KilMode" in line for line in verify(content.replace("KillMode=", "KilMode=")))


def test_the_image_has_one_user_and_the_ports_of_its_settings() -> None:
    """User, ports, probes and the volume of the Dockerfile are those of its settings and of Kubernetes."""
    stage = last_stage()
    settings = app_settings.load({}, DEPLOY / "docker/tableside.toml")
    data, control = ports(settings)
    assert stage.last("USER") == f"{UID}:{UID}"
    assert f"--uid {UID} --gid {UID}" in stage.last("RUN")
    assert f"--gid {UID} tableside" in stage.last("RUN")
    assert all(owner == f"{UID}:{UID}" for _, step in stage.steps for owner in re.findall(r"--chown=(\S+)", step))
    assert (pod()["securityContext"]["runAsUser"], pod()["securityContext"]["runAsGroup"]) == (UID, UID)
    assert stage.last("EXPOSE") == f"{data} {control}"
    assert f"http://127.0.0.1:{data}/v2/health/ready" in stage.words("HEALTHCHECK")[-1]
    assert stage.last("STOPSIGNAL") == "SIGTERM"
    assert stage.last("VOLUME") == stage.last("WORKDIR") == STATE
    assert stage.environment()["TABLESIDE_CONFIG"] == "/etc/tableside/tableside.toml"
    assert stage.words("CMD") == ["sh", f"{CODE}/deploy/docker/start.sh"]
    assert f"{settings.run_dir}/log" in text("docker/start.sh")


def test_an_image_gets_the_code_and_no_secrets(tmp_path: Path) -> None:
    """.dockerignore leaves what the stack needs, and nothing that a checkout keeps for itself."""
    seen = set(files(PROJECT))
    needed = {
        "wsgi.py", "gunicorn.conf.py", "supervisord.conf", "pyproject.toml", "README.md", "LICENSE", "src/tableside",
        "requirements/base.txt", "deploy/nginx/nginx.conf.j2", "deploy/environment.sh", "deploy/docker/start.sh",
    }  # fmt: skip
    assert needed <= seen
    assert {path.relative_to(PROJECT).as_posix() for path in (PROJECT / "app").rglob("*.py")} <= seen
    for stage in read(text("docker/Dockerfile")):
        for word, step in stage.steps:
            source = next(each for each in step.split() if not each.startswith("--"))
            if word == "COPY" and "--from" not in step and source != ".":
                assert source in seen or any(each.startswith(f"{source}/") for each in seen), step
    shutil.copy(PROJECT / ".dockerignore", tmp_path)
    secrets = ("keys.json", "run/admin.key", ".git/config", ".venv/bin/python", "models/tls.pem", "deploy/keys.json",
               "app/__pycache__/a.pyc", "tableside.toml", "consent.jsonl")  # fmt: skip
    for each in (*secrets, "app/a.py"):
        (tmp_path / each).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / each).touch()
    assert files(tmp_path) == ["app/a.py"]


def test_a_release_has_what_an_image_has() -> None:
    """install.sh copies the same files as the Dockerfile, but for the example models."""
    allowed = re.findall(r"^!(\S+)$", (PROJECT / ".dockerignore").read_text(), re.MULTILINE)
    copied = re.search(r'^code="(.+)"$', text("install.sh"), re.MULTILINE)
    assert copied
    assert sorted([*copied[1].split(), "models"]) == sorted(allowed)


def test_compose_gives_a_read_only_root_and_ports_of_this_machine() -> None:
    """The container writes only into its volume and /tmp; all published ports are on loopback."""
    services = compose()["services"]
    server = services["tableside"]
    assert server["read_only"] is True
    assert server["cap_drop"] == ["ALL"]
    assert server["volumes"] == [f"state:{STATE}"]
    assert [each.partition(":")[0] for each in server["tmpfs"]] == ["/tmp"]
    data, control = ports(Settings())
    assert server["ports"] == [f"127.0.0.1:{data}:{data}", f"127.0.0.1:{control}:{control}"]
    for service in services.values():
        assert all(each.startswith("127.0.0.1:") for each in service["ports"])
        for volume in service["volumes"]:
            source = volume.split(":")[0]
            assert source in compose()["volumes"] or (DEPLOY / "docker" / source).exists(), volume
    assert (DEPLOY / "docker" / server["build"]["context"] / server["build"]["dockerfile"]).is_file()


def test_prometheus_may_ask_by_the_name_that_it_uses() -> None:
    """The target is the control plane, under a name of server.allowed_hosts: else the answer would be 421."""
    config = yaml.safe_load(text("prometheus/prometheus.yml"))
    settings = app_settings.load({}, DEPLOY / "docker/tableside.toml")
    for target in config["scrape_configs"][0]["static_configs"][0]["targets"]:
        host, port = target.split(":")
        assert host in compose()["services"]
        assert host in settings.server.allowed_hosts
        assert int(port) == ports(settings)[1]
    source = yaml.safe_load(text("grafana/provisioning/datasources/prometheus.yaml"))["datasources"][0]
    assert source["url"] == "http://prometheus:9090"


def test_logrotate_renames_only_the_log_that_the_stack_leaves_to_it() -> None:
    """The file names the audit log and no log that supervisord or nginx's keeper rotates."""
    named = re.findall(r"^(/\S+) \{$", text("logrotate/tableside"), re.MULTILINE)
    assert named == [f"{STATE}/run/log/audit.log"]
    assert "dateformat .%Y%m%dT%H%M%S" in text("logrotate/tableside"), "`tableside audit` reads audit.log.*"
