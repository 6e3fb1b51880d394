"""The manifests: every overlay, as kustomize renders it, is valid to the last key, and agrees with the programs that it runs."""

from __future__ import annotations

import asyncio
import base64
import copy
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import kubernetes_validate
import numpy as np
import pytest
import yaml
from cloudcoil.models.keda.v1alpha1 import ScaledObject
from cloudcoil.models.prometheus_operator.v1 import PodMonitor, PrometheusRule, ServiceMonitor

from robust_synthesis.cli.main import parser
from robust_synthesis.client import AsyncClient, Unauthenticated
from robust_synthesis.gateway.backends import remote
from robust_synthesis.gateway.config import Settings, load
from robust_synthesis.probes import LIVE
from robust_synthesis.v1 import model_pb2, synthesis_pb2, worker_pb2

from . import fetched, kubectl
from .kubectl import KUBERNETES, OVERLAYS
from .schemas import closed

RESULTS_AFTER_GRACE = 10
"""Seconds that a gateway may take longer than its grace (docs/gateway.md)."""
CUSTOM = {model.__name__: model for model in (ScaledObject, ServiceMonitor, PodMonitor, PrometheusRule)}
Resource = dict[str, Any]


@pytest.fixture(scope="module")
def tool() -> Path:
    try:
        return kubectl.find()
    except fetched.Missing as error:
        pytest.skip(str(error))


def validate(resource: Resource) -> None:
    """Raises ValidationError of kubernetes_validate or of jsonschema."""
    if resource["kind"] in CUSTOM:
        schema = CUSTOM[resource["kind"]].model_json_schema(by_alias=True)
        jsonschema.validate(resource, closed(schema))
    else:
        kubernetes_validate.validate(resource, kubernetes_validate.latest_version(), strict=True)


def one(resources: tuple[Resource, ...], kind: str, name: str) -> Resource:
    (found,) = [each for each in resources if (each["kind"], each["metadata"]["name"]) == (kind, name)]
    return found


def container(resources: tuple[Resource, ...], name: str) -> Resource:
    pod = one(resources, "Deployment", name)["spec"]["template"]["spec"]
    (only,) = pod["containers"]
    found: Resource = only
    return found


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_every_resource_of_an_overlay_is_valid_to_the_last_key(tool: Path, overlay: str) -> None:
    resources = kubectl.render(tool, f"overlays/{overlay}")
    for resource in resources:
        validate(resource)
    assert sorted({each["kind"] for each in resources} & set(CUSTOM)) == sorted(CUSTOM)
    assert {each["metadata"].get("namespace") for each in resources} - {None} == {"robust-synthesis"}


@pytest.mark.parametrize(
    ("kind", "name", "path"),
    [
        ("Deployment", "worker", ("spec", "template", "spec")),
        ("NetworkPolicy", "worker", ("spec",)),
        ("ScaledObject", "worker", ("spec",)),
        ("ScaledObject", "worker", ("spec", "advanced", "horizontalPodAutoscalerConfig", "behavior", "scaleDown")),
        ("ServiceMonitor", "gateway", ("spec",)),
        ("PrometheusRule", "robust-synthesis", ("spec", "groups", 0, "rules", 0)),
    ],
)
def test_the_validation_sees_a_misspelt_key(tool: Path, kind: str, name: str, path: tuple[Any, ...]) -> None:
    resource = copy.deepcopy(one(kubectl.render(tool, "overlays/gpu"), kind, name))
    place: Any = resource
    for step in path:
        place = place[step]
    place["stabilisation"] = 1
    with pytest.raises((jsonschema.ValidationError, kubernetes_validate.ValidationError)):
        validate(resource)


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_pods_are_confined_and_get_their_image_from_the_overlay(tool: Path, overlay: str) -> None:
    resources = kubectl.render(tool, f"overlays/{overlay}")
    for name in ("gateway", "worker"):
        pod = one(resources, "Deployment", name)["spec"]["template"]["spec"]
        assert pod["securityContext"]["runAsNonRoot"]
        assert not pod["automountServiceAccountToken"]
        only = container(resources, name)
        assert only["securityContext"]["readOnlyRootFilesystem"]
        assert only["securityContext"]["capabilities"]["drop"] == ["ALL"]
        assert only["image"].startswith(f"registry.example.com/robust-synthesis/{name}:")
        assert set(only["resources"]["requests"]) == {"cpu", "memory"}
        writable = [mount["name"] for mount in only["volumeMounts"] if not mount.get("readOnly")]
        assert writable == ["tmp"]


def test_a_worker_of_the_gpu_overlay_has_one_gpu_and_insists_on_it(tool: Path) -> None:
    resources = kubectl.render(tool, "overlays/gpu")
    pod = one(resources, "Deployment", "worker")["spec"]["template"]["spec"]
    assert container(resources, "worker")["resources"]["limits"]["nvidia.com/gpu"] == "1"
    assert pod["nodeSelector"] == {"nvidia.com/gpu.present": "true"}
    assert pod["tolerations"] == [{"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}]
    assert "--device=cuda" in container(resources, "worker")["args"]
    assert "--device=cpu" in container(kubectl.render(tool, "overlays/cpu"), "worker")["args"]


def test_only_the_autoscaler_says_how_many_workers_there_are_and_one_overlay_lets_it_say_none(tool: Path) -> None:
    least = {}
    for overlay in OVERLAYS:
        resources = kubectl.render(tool, f"overlays/{overlay}")
        assert "replicas" not in one(resources, "Deployment", "worker")["spec"]
        scaled = one(resources, "ScaledObject", "worker")["spec"]
        assert scaled["scaleTargetRef"] == {"name": "worker"}
        least[overlay] = scaled["minReplicaCount"]
    assert least == {"cpu": 1, "gpu": 1, "scale-to-zero": 0}


def test_without_a_worker_on_purpose_nobody_is_woken_before_requests_have_waited(tool: Path) -> None:
    found = {}
    for overlay in ("gpu", "scale-to-zero"):
        rule = one(kubectl.render(tool, f"overlays/{overlay}"), "PrometheusRule", "robust-synthesis")
        alerts = {each["alert"]: each for group in rule["spec"]["groups"] for each in group["rules"] if "alert" in each}
        found[overlay] = alerts
    changed = [name for name, rule in found["gpu"].items() if found["scale-to-zero"][name] != rule]
    assert changed == ["SynthesisNoWorker"]
    assert found["scale-to-zero"]["SynthesisNoWorker"]["for"] == "10m"


# What the programs themselves say of their settings.


def gateway_settings(resources: tuple[Resource, ...], folder: Path) -> Settings:
    (config,) = [each for each in resources if each["kind"] == "ConfigMap"]
    path = folder / "gateway.toml"
    path.write_text(config["data"]["gateway.toml"])
    return load(file=path).settings


def ports(resources: tuple[Resource, ...], name: str) -> dict[str, int]:
    return {port["name"]: port["containerPort"] for port in container(resources, name)["ports"]}


def test_the_gateway_takes_its_settings_and_the_manifests_agree_with_them(tool: Path, tmp_path: Path) -> None:
    resources = kubectl.render(tool, "overlays/gpu")
    settings = gateway_settings(resources, tmp_path)
    listen = int(settings.listen.rpartition(":")[2])
    assert ports(resources, "gateway") == {
        "grpc": listen,
        "health": settings.health_port,
        "metrics": settings.metrics_port,
    }
    pod = one(resources, "Deployment", "gateway")["spec"]["template"]["spec"]
    leaving = pod["containers"][0]["lifecycle"]["preStop"]["sleep"]["seconds"]
    assert pod["terminationGracePeriodSeconds"] >= leaving + settings.grace + RESULTS_AFTER_GRACE
    service = one(resources, "Service", "worker")
    assert service["spec"]["clusterIP"] == "None"
    assert settings.workers == (f"worker.robust-synthesis.svc:{service['spec']['ports'][0]['port']}",)
    options = parser().parse_args(container(resources, "gateway")["args"])
    assert options.verb == "serve"


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_the_worker_takes_its_arguments_and_the_manifests_agree_with_them(tool: Path, overlay: str) -> None:
    resources = kubectl.render(tool, f"overlays/{overlay}")
    options = parser().parse_args(container(resources, "worker")["args"])
    assert options.verb == "worker"
    assert not options.insecure
    listen = int(options.listen.rpartition(":")[2])
    assert ports(resources, "worker") == {
        "grpc": listen,
        "health": options.health_port,
        "metrics": options.metrics_port,
    }
    pod = one(resources, "Deployment", "worker")["spec"]["template"]["spec"]
    leaving = pod["containers"][0]["lifecycle"]["preStop"]["sleep"]["seconds"]
    assert pod["terminationGracePeriodSeconds"] >= leaving + options.drain + RESULTS_AFTER_GRACE


def test_probes_ask_the_health_port_for_services_that_there_are_and_none_kills_a_worker_that_heals_itself(
    tool: Path,
) -> None:
    resources = kubectl.render(tool, "overlays/gpu")
    served = {"gateway": (synthesis_pb2, model_pb2), "worker": (worker_pb2,)}
    for name, modules in served.items():
        known = {"", LIVE} | {
            service.full_name for module in modules for service in module.DESCRIPTOR.services_by_name.values()
        }
        only = container(resources, name)
        for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
            asked = only[probe]["grpc"]
            assert asked["port"] == ports(resources, name)["health"]
            assert asked.get("service", "") in known
        assert only["livenessProbe"]["grpc"]["service"] == LIVE
        assert only["readinessProbe"]["grpc"].get("service") != LIVE


def allowed(policy: Resource) -> Iterator[tuple[str, int]]:
    for rule in policy["spec"]["ingress"]:
        for port in rule["ports"]:
            yield yaml.safe_dump(rule["from"]), port["port"]


def test_only_gateways_reach_workers_and_nothing_reaches_torchserve(tool: Path) -> None:
    resources = kubectl.render(tool, "overlays/gpu")
    deny = one(resources, "NetworkPolicy", "default-deny")["spec"]
    assert deny == {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}
    who = {port: source for source, port in allowed(one(resources, "NetworkPolicy", "worker"))}
    assert set(who) == {50061, 9464}
    assert yaml.safe_load(who[50061]) == [{"podSelector": {"matchLabels": {"app.kubernetes.io/component": "gateway"}}}]
    assert "prometheus" in who[9464]
    assert one(resources, "NetworkPolicy", "worker")["spec"]["egress"] == []
    assert {port for _, port in allowed(one(resources, "NetworkPolicy", "gateway"))} == {50051, 9465}
    for policy in ("gateway", "worker"):
        selector = one(resources, "NetworkPolicy", policy)["spec"]["podSelector"]["matchLabels"]
        labels = one(resources, "Deployment", policy)["spec"]["template"]["metadata"]["labels"]
        assert selector.items() <= labels.items()


def test_what_is_selected_and_scraped_is_there(tool: Path) -> None:
    resources = kubectl.render(tool, "overlays/gpu")
    pods = {
        name: one(resources, "Deployment", name)["spec"]["template"]["metadata"]["labels"]
        for name in ("gateway", "worker")
    }
    for service in (each for each in resources if each["kind"] == "Service"):
        name = service["metadata"]["labels"]["app.kubernetes.io/component"]
        assert service["spec"]["selector"].items() <= pods[name].items()
        assert {port["targetPort"] for port in service["spec"]["ports"]} <= set(ports(resources, name))
    for budget in (each for each in resources if each["kind"] == "PodDisruptionBudget"):
        selector = budget["spec"]["selector"]["matchLabels"]
        assert selector.items() <= pods[budget["metadata"]["name"]].items()
    watched = one(resources, "ServiceMonitor", "gateway")["spec"]
    (scraped,) = [
        each
        for each in resources
        if each["kind"] == "Service"
        and watched["selector"]["matchLabels"].items() <= each["metadata"]["labels"].items()
    ]
    assert watched["endpoints"][0]["port"] in {port["name"] for port in scraped["spec"]["ports"]}
    followed = one(resources, "PodMonitor", "worker")["spec"]
    assert followed["selector"]["matchLabels"].items() <= pods["worker"].items()
    assert followed["podMetricsEndpoints"][0]["port"] in ports(resources, "worker")


# Secrets.


@pytest.fixture(scope="module")
def secrets(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Resource]]:
    """The folder that secrets.sh keeps, and what it prints."""
    folder = tmp_path_factory.mktemp("secrets")
    command: list[str | Path] = [KUBERNETES / "secrets.sh", folder, "studio"]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    return folder, list(yaml.safe_load_all(done.stdout))


def test_every_secret_that_is_mounted_is_made(tool: Path, secrets: tuple[Path, list[Resource]]) -> None:
    resources = kubectl.render(tool, "overlays/gpu")
    mounted = {
        volume["secret"]["secretName"]
        for name in ("gateway", "worker")
        for volume in one(resources, "Deployment", name)["spec"]["template"]["spec"]["volumes"]
        if "secret" in volume
    }
    for secret in secrets[1]:
        validate(secret)
    assert {secret["metadata"]["name"] for secret in secrets[1]} == mounted


def test_secrets_made_again_keep_authorities_and_keys(secrets: tuple[Path, list[Resource]]) -> None:
    folder, first = secrets
    done = subprocess.run([KUBERNETES / "secrets.sh", folder, "studio"], capture_output=True, text=True, check=True)
    again = list(yaml.safe_load_all(done.stdout))
    for old, new in zip(first, again, strict=True):
        for name in old["data"]:
            assert (old["data"][name] == new["data"][name]) == (name in ("ca.crt", "keys"))


def mount(resources: tuple[Resource, ...], name: str, made: list[Resource], root: Path) -> None:
    """Lay a pod's Secrets where it finds them, below `root`."""
    pod = one(resources, "Deployment", name)["spec"]["template"]["spec"]
    paths = {each["name"]: each["mountPath"] for each in pod["containers"][0]["volumeMounts"]}
    for volume in pod["volumes"]:
        for secret in made:
            if volume.get("secret", {}).get("secretName") == secret["metadata"]["name"]:
                folder = root / paths[volume["name"]].lstrip("/")
                folder.mkdir(parents=True)
                for file, content in secret["data"].items():
                    (folder / file).write_bytes(base64.b64decode(content))


@pytest.mark.asyncio
async def test_a_gateway_and_a_worker_with_these_settings_and_secrets_serve_a_caller_with_a_key(
    tool: Path,
    secrets: tuple[Path, list[Resource]],
    models: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from robust_synthesis.gateway.assembly import gateway_of
    from robust_synthesis.worker.agent import Agent, Options
    from robust_synthesis.worker.engine import InProcess
    from robust_synthesis.worker.metrics import Metrics
    from robust_synthesis.worker.shelf import Places

    resources, (folder, made) = kubectl.render(tool, "overlays/gpu"), secrets
    for name in ("gateway", "worker"):
        mount(resources, name, made, tmp_path / name)
    arguments = parser().parse_args(container(resources, "worker")["args"])
    inside: dict[str, Any] = {
        name: tmp_path / "worker" / str(getattr(arguments, name)).lstrip("/")
        for name in ("tls_cert", "tls_key", "tls_ca")
    }
    engine = InProcess(Places(models), device="cpu")
    agent = Agent(engine, Options(listen="127.0.0.1:0", **inside), Metrics(engine))
    working = asyncio.create_task(agent.run())
    async with asyncio.timeout(60):
        while not (agent.port and engine.up):
            await asyncio.sleep(0.01)

    async def name_server(host: str, port: int) -> list[str]:
        assert host == "worker.robust-synthesis.svc"
        return ["127.0.0.1"]

    monkeypatch.setattr(remote, "_addresses", name_server)
    settings = gateway_settings(resources, tmp_path)
    files = {
        name: tmp_path / "gateway" / str(value).lstrip("/")
        for name, value in settings.model_dump().items()
        if isinstance(value, Path)
    }
    address = settings.workers[0].replace("50061", str(agent.port))
    gateway = gateway_of(
        settings.model_copy(update={**files, "listen": "127.0.0.1:0", "health_port": 0, "workers": (address,)})
    )
    await gateway.start()
    try:
        target = f"localhost:{gateway.port}"
        key = (folder / "studio.key").read_text().strip()
        async with AsyncClient(target, tls_ca=folder / "outside.crt", key=key) as client:
            result = await client.generate("circle", seed=1, steps=2, model="cifar10", timeout=60)
        assert np.asarray(result.image).shape == (16, 16, 3)
        async with AsyncClient(target, tls_ca=folder / "outside.crt", key="0" * 64) as client:
            with pytest.raises(Unauthenticated):
                await client.generate("circle", seed=1, steps=2, model="cifar10", timeout=60)
    finally:
        await gateway.stop(0)
        agent.stop()
        await asyncio.wait_for(working, 60)
