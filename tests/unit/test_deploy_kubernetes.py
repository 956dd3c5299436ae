"""The objects of deploy/kubernetes fit the settings, the image and each other."""

from __future__ import annotations

import re
import stat
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import pytest

from tableside import settings as app_settings
from tableside.settings import Settings
from tests.conftest import MakeApp
from tests.deploy_files import PROJECT, STATE, UID, kubernetes, pod, ports

pytestmark = pytest.mark.no_greenlets


def configured() -> Any:
    """The settings of every pod as they are written."""
    return tomllib.loads(kubernetes()["ConfigMap", "tableside"]["data"]["tableside.toml"])


def test_probes_ask_what_they_are_for() -> None:
    """A slow start and a missing model end no pod, one 503 takes none out of the service; ports have names."""
    container = pod()["containers"][0]
    named = {each["name"]: each["containerPort"] for each in container["ports"]}
    assert (named["predictions"], named["control"]) == ports(Settings())
    probes = {name: container[f"{name}Probe"] for name in ("startup", "readiness", "liveness")}
    paths = {name: probe["httpGet"]["path"] for name, probe in probes.items()}
    assert paths == {"startup": "/v2/health/live", "readiness": "/v2/health/ready", "liveness": "/v2/health/live"}
    assert all(probe["httpGet"]["port"] == "predictions" for probe in probes.values())
    assert probes["readiness"]["failureThreshold"] >= 2
    assert probes["liveness"]["failureThreshold"] * probes["liveness"]["periodSeconds"] >= 60


def test_probes_are_answered_as_a_kubelet_asks(make_app: MakeApp) -> None:
    """Each probe's path exists: a pod without models is alive and not ready. A kubelet names the pod by its address."""
    container = pod()["containers"][0]
    server = configured()["server"]
    more = {f"server__{name}": str(server[name]).lower() for name in ("listen", "admin_listen", "open")}
    paths = {container[f"{name}Probe"]["httpGet"]["path"] for name in ("startup", "readiness", "liveness")}
    for app, ready in ((make_app(empty=True, load=False, **more), 503), (make_app(**more), 200)):
        client = app.test_client()
        answers = {path: client.get(path, base_url="http://10.42.0.7:8080").status_code for path in paths}
        assert answers == {"/v2/health/live": 200, "/v2/health/ready": ready}


def test_the_objects_of_kubernetes_refer_to_each_other() -> None:
    """Selectors, ports, claims and settings name what is there."""
    objects = kubernetes()
    deployment = objects["Deployment", "tableside"]["spec"]
    labels = deployment["template"]["metadata"]["labels"]
    budget = objects["PodDisruptionBudget", "tableside"]["spec"]
    selectors = [
        deployment["selector"]["matchLabels"],
        budget["selector"]["matchLabels"],
        objects["NetworkPolicy", "tableside"]["spec"]["podSelector"]["matchLabels"],
        pod()["topologySpreadConstraints"][0]["labelSelector"]["matchLabels"],
    ]
    assert all(selector.items() <= labels.items() and selector for selector in selectors)
    assert deployment["replicas"] > budget["maxUnavailable"], "a drain of a node would end all that serves"
    assert budget["unhealthyPodEvictionPolicy"] == "AlwaysAllow", "without a model no pod is ever ready"
    container = pod()["containers"][0]
    named = {each["name"]: each["containerPort"] for each in container["ports"]}
    hosts = configured()["server"]["allowed_hosts"]
    for (kind, name), each in objects.items():
        if kind == "Service":
            assert each["spec"]["selector"].items() <= labels.items()
            assert all(port["port"] == named[port["targetPort"]] for port in each["spec"]["ports"])
            assert name in hosts, "a request to the service would get 421"
    assert objects["Service", "tableside-control"]["spec"]["publishNotReadyAddresses"] is True
    annotations = deployment["template"]["metadata"]["annotations"]
    assert annotations["prometheus.io/port"] == str(named["control"])
    volumes = {each["name"]: each for each in pod()["volumes"]}
    assert ("ConfigMap", volumes["settings"]["configMap"]["name"]) in objects
    assert ("PersistentVolumeClaim", volumes["models"]["persistentVolumeClaim"]["claimName"]) in objects


def test_the_network_policy_lets_in_what_the_page_says() -> None:
    """Predictions for every pod of the namespace, the control plane only for what has the label, and no other port."""
    policy = kubernetes()["NetworkPolicy", "tableside"]["spec"]
    label = {"matchLabels": {"tableside-control": "allowed"}}
    data, control = ports(Settings())
    assert policy["policyTypes"] == ["Ingress"]
    assert policy["ingress"] == [
        {"from": [{"podSelector": {}}], "ports": [{"protocol": "TCP", "port": data}]},
        {
            "from": [{"podSelector": label}, {"namespaceSelector": label}],
            "ports": [{"protocol": "TCP", "port": control}],
        },
    ]
    page = (PROJECT / "docs/guide/containers.md").read_text()
    assert (
        "predictions for the namespace; the control plane for pods and namespaces labelled `tableside-control: al"
        in page
    )


def test_a_pod_writes_where_the_stack_does_and_nowhere_else(tmp_path: Path) -> None:
    """The root is read-only. Every path of the settings lies on a volume that the user of the image may write."""
    file = tmp_path / "tableside.toml"
    file.write_text(kubernetes()["ConfigMap", "tableside"]["data"]["tableside.toml"])
    installed = app_settings.load({}, file)
    container = pod()["containers"][0]
    mounts = {Path(each["mountPath"]): each for each in container["volumeMounts"]}
    volumes = {each["name"]: each for each in pod()["volumes"]}
    assert mounts.keys() == {Path(each) for each in ("/etc/tableside", STATE, f"{STATE}/models", "/tmp")}
    written = (
        installed.run_dir, installed.environments_path, installed.keys_path, installed.repository_path,
        Path(installed.repository.consent_file), Path("/tmp/x"),
    )  # fmt: skip
    for path in written:
        nearest = max((mount for mount in mounts if path.is_relative_to(mount)), key=lambda mount: len(mount.parts))
        assert not mounts[nearest].get("readOnly"), path
    assert mounts[Path("/etc/tableside")]["readOnly"] is True
    assert volumes["state"]["emptyDir"] == volumes["tmp"]["emptyDir"] == {}, "the run folder belongs to one pod"
    # An emptyDir has mode 777, and a consent file in it could be replaced by others, so it would be refused.
    before = pod()["initContainers"][0]
    made = tmp_path / mounts[Path(STATE)]["subPath"]
    (place,) = (each["mountPath"] for each in before["volumeMounts"])
    subprocess.run([word.replace(place, str(tmp_path)) for word in before["command"]], check=True, timeout=60)
    assert stat.S_IMODE(made.stat().st_mode) == 0o750


def test_a_pod_has_no_rights_and_sensible_limits() -> None:
    """User, root and capabilities are those that the image is tested with; what is asked for is not above the limit."""
    whole = pod()
    assert whole["automountServiceAccountToken"] is False
    assert whole["securityContext"]["runAsNonRoot"] is True
    assert whole["securityContext"]["fsGroup"] == UID, "else the claim belongs to root"
    assert whole["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    for container in (*whole["initContainers"], *whole["containers"]):
        assert container["image"] == whole["containers"][0]["image"]
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }
        limits, requests = (container["resources"][each] for each in ("limits", "requests"))
        assert all(amount(requests[each]) <= amount(limits[each]) for each in requests.keys() & limits.keys())
        assert "memory" in requests.keys() & limits.keys()
    resources = whole["containers"][0]["resources"]
    assert amount(resources["requests"]["cpu"]) >= 1, "a worker computes with one core"
    # Of the state folder only logs and profiles of models grow: run/log, with log.max_bytes for each file.
    assert (
        amount(resources["limits"]["ephemeral-storage"]) >= amount(resources["requests"]["ephemeral-storage"]) >= 2**30
    )


def amount(written: str) -> float:
    """A quantity of Kubernetes in its base unit: cores or bytes."""
    units = {"m": 0.001, "": 1.0, "Ki": 2.0**10, "Mi": 2.0**20, "Gi": 2.0**30}
    number, unit = re.fullmatch(r"([\d.]+)([a-zA-Z]*)", written).groups()  # type: ignore[union-attr]
    return float(number) * units[unit]
