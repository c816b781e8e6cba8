"""What a release is deployed with: compose file, manifests, unit and script say what is true."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from rebound import __version__
from rebound.domain.durations import seconds
from rebound.settings import SETTINGS, Config
from rebound.settings.access import require_keys
from tests.conftest import RedisServer, need
from tests.e2e import image
from tests.e2e.conftest import Process, Service

ROOT = Path(__file__).parents[2]
KUBERNETES = ROOT / "deploy" / "kubernetes"
MODES = {"standalone": ["serve"], "sidecar": ["serve"], "worker-only": ["work"]}
"""Manifest -> what its container runs."""
IMAGE = {"HTTP_HOST": image.environment([*image.steps(ROOT / "Dockerfile")])["HTTP_HOST"]}
"""What the image sets that is a setting."""
VERSIONS = ("1.30", "1.37")
"""The oldest Kubernetes that the manifests are for, and the newest whose schemas there are."""


def compose() -> dict[str, Any]:
    return dict(yaml.safe_load((ROOT / "docker-compose.yml").read_text()))


def objects(file: str) -> list[dict[str, Any]]:
    return list(yaml.safe_load_all((KUBERNETES / f"{file}.yaml").read_text()))


def of_kind(kind: str, file: str) -> dict[str, Any]:
    (found,) = (one for one in objects(file) if one["kind"] == kind)
    return found


def pod(file: str) -> dict[str, Any]:
    return dict(of_kind("Deployment", file)["spec"]["template"]["spec"])


def rebound(file: str) -> dict[str, Any]:
    """The container of Rebound in a manifest."""
    containers = [*pod(file)["containers"], *pod(file).get("initContainers", [])]
    (found,) = (one for one in containers if one["name"] == "rebound")
    return dict(found)


def environment(file: str) -> dict[str, str]:
    """What that container finds in its environment, with the values of secret.yaml."""
    secret = of_kind("Secret", "secret")["stringData"]
    variables = dict(secret) if "envFrom" in rebound(file) else {}
    for given in rebound(file)["env"]:
        if "value" in given:
            variables[given["name"]] = given["value"]
        else:
            reference = given["valueFrom"]["secretKeyRef"]
            assert reference["name"] == of_kind("Secret", "secret")["metadata"]["name"]
            variables[given["name"]] = secret[reference["key"]]
    return variables


# -- compose ---------------------------------------------------------------------------------


def test_the_compose_file_follows_the_compose_specification() -> None:
    check = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.compose-spec"]
    checked = subprocess.run(
        [*check, ROOT / "docker-compose.yml"], check=False, capture_output=True, text=True
    )
    assert checked.returncode == 0, checked.stdout


def test_the_compose_file_sets_what_the_service_starts_with_and_stops_it_in_time() -> None:
    service = compose()["services"]["rebound"]
    config = started(service["environment"])
    require_keys(config)
    assert config.environment == "prod"
    assert config.store_kind == "redis"
    assert seconds(service["stop_grace_period"]) >= config.shutdown_grace + 2
    redis = compose()["services"]["redis"]["command"]
    assert redis[1:] == [
        "--appendonly", "yes", "--appendfsync", "always", "--maxmemory-policy", "noeviction",
    ]  # fmt: skip


def started(variables: Mapping[str, str]) -> Config:
    """The settings of a service with these variables, all of which have to be settings."""
    assert {name.lower() for name in variables} <= SETTINGS.keys()
    return Config.for_service({**IMAGE, **variables})


# -- Kubernetes ------------------------------------------------------------------------------


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("file", ["secret", *MODES])
def test_manifests_follow_the_schemas_of_kubernetes(file: str, version: str) -> None:
    for one in objects(file):
        kubernetes_validate.validate(one, version, strict=True)


def test_every_manifest_is_validated() -> None:
    assert {file.stem for file in KUBERNETES.iterdir()} == {"secret", *MODES}


@pytest.mark.parametrize("file", MODES)
def test_pods_have_no_rights_and_every_container_has_limits(file: str) -> None:
    spec = pod(file)
    assert spec["automountServiceAccountToken"] is False
    assert spec["securityContext"]["runAsNonRoot"] is True
    assert f"USER {spec['securityContext']['runAsUser']}\n" in (ROOT / "Dockerfile").read_text()
    for container in [*spec["containers"], *spec.get("initContainers", [])]:
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }
        assert container["resources"]["requests"].keys() == {"cpu", "memory"}
        assert "memory" in container["resources"]["limits"]
    assert rebound(file)["image"] == f"rebound:{__version__}"


@pytest.mark.parametrize("file", MODES)
def test_selectors_find_the_pods_of_their_manifest(file: str) -> None:
    labels = of_kind("Deployment", file)["spec"]["template"]["metadata"]["labels"].items()
    selectors = [
        of_kind("Deployment", file)["spec"]["selector"]["matchLabels"],
        of_kind("PodDisruptionBudget", file)["spec"]["selector"]["matchLabels"],
        of_kind("NetworkPolicy", file)["spec"]["podSelector"]["matchLabels"],
    ]
    selectors += [s["spec"]["selector"] for s in objects(file) if s["kind"] == "Service"]
    assert all(selector.items() <= labels for selector in selectors)


@pytest.mark.parametrize("file", MODES)
def test_pods_get_the_time_that_they_need_to_end(file: str) -> None:
    before = rebound(file).get("lifecycle", {}).get("preStop", {}).get("sleep", {"seconds": 0})
    grace = started(environment(file)).shutdown_grace + 2
    assert pod(file)["terminationGracePeriodSeconds"] >= before["seconds"] + grace


@pytest.mark.parametrize("file", MODES)
async def test_what_a_manifest_runs_starts_and_its_probes_succeed(
    file: str, redis_server: RedisServer, tmp_path: Path
) -> None:
    given = environment(file)
    expected = {"STORE_URL", *(["API_KEYS"] if file == "standalone" else [])}
    assert expected <= given.keys()
    given |= {
        **IMAGE,
        **given,
        "STORE_URL": redis_server.url,
        "NAMESPACE": tmp_path.name,
        "LOG_FORMAT": "json",
    }
    container = rebound(file)
    assert container["args"] == MODES[file]
    service = Service(given, tmp_path)
    try:
        process = await run(service, container)
        for name, probe in container.items():
            if not name.endswith("Probe"):
                continue
            if "exec" in probe:
                await succeeds(probe["exec"]["command"], service)
            else:
                assert {"name": probe["httpGet"]["port"], "containerPort": 8080} in (
                    container["ports"]
                )
                status, _ = await service.call("GET", probe["httpGet"]["path"])
                assert status == 200, name
        assert await process.terminate() == 0
    finally:
        await service.close()


async def run(service: Service, container: Mapping[str, Any]) -> Process:
    (command,) = container["args"]
    if command == "serve":
        return await service.serve()
    process = service.run(command)
    async with asyncio.timeout(10):
        while "worker started" not in process.logged():
            assert process.alive, process.logged()
            await asyncio.sleep(0.02)
    return process


async def succeeds(command: list[str], service: Service) -> None:
    """A probe that is run in the container; its port is the one that this service listens on."""
    folder = Path(sys.executable).parent
    words = [word.replace("8080", service.url.rpartition(":")[2]) for word in command]
    process = await asyncio.create_subprocess_exec(
        folder / words[0], *words[1:], env={"PATH": os.defpath, **service.settings}
    )
    assert await process.wait() == 0, command


# -- systemd ---------------------------------------------------------------------------------


def unit() -> Iterator[tuple[str, str]]:
    for line in (ROOT / "deploy" / "systemd" / "rebound.service").read_text().splitlines():
        if "=" in line and not line.startswith("#"):
            name, _, value = line.partition("=")
            yield name, value


def test_systemd_understands_the_unit_and_finds_it_hardened(tmp_path: Path) -> None:
    text = (ROOT / "deploy" / "systemd" / "rebound.service").read_text()
    copy = tmp_path / "rebound.service"
    copy.write_text(text.replace("/opt/rebound/bin", str(Path(sys.executable).parent)))
    analyze = need("systemd-analyze")
    verified = subprocess.run(
        [analyze, "verify", copy], check=False, capture_output=True, text=True
    )
    assert verified.returncode == 0
    assert "rebound" not in verified.stderr
    # 0 is the safest, 100 the least; services without any such settings have above 90
    security = [analyze, "security", "--offline=true", "--threshold=15", copy]
    rated = subprocess.run(security, check=False, capture_output=True, text=True)
    assert rated.returncode == 0, rated.stdout


async def test_the_unit_starts_a_command_with_settings_and_stops_it_in_time() -> None:
    said = dict(unit())
    program, *arguments = said["ExecStart"].split()
    assert (Path(program).name, arguments) == ("rebound", ["serve"])
    config = started(
        {"HTTP_HOST": "127.0.0.1", **dict(pair.split("=") for pair in said["Environment"].split())}
    )
    require_keys(config)
    assert seconds(said["TimeoutStopSec"]) >= config.shutdown_grace + 2
    assert said["WorkingDirectory"] == f"/var/lib/{said['StateDirectory']}"


# -- both modes ------------------------------------------------------------------------------


async def test_both_modes_work_end_to_end_on_both_stores(redis_server: RedisServer) -> None:
    said = await asyncio.gather(*(both_modes(url) for url in ("", redis_server.url)))
    for out in said:
        assert out.count("  ok  ") == 7
        assert out.endswith("Both modes work.\n")


async def both_modes(store_url: str) -> str:
    process = await asyncio.create_subprocess_exec(
        ROOT / "test-both-modes.sh", *filter(None, [store_url]),
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    out, errors = await process.communicate()
    assert (process.returncode, errors) == (0, b""), f"{out.decode()}\n{errors.decode()}"
    return out.decode()
