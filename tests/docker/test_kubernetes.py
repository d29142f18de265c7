"""The Kubernetes files, checked against schemas, Airflow's chart and the images, without a cluster."""

from __future__ import annotations

import ast
import json
import re
from typing import Any

import jsonschema
import kubernetes_validate
import pytest
import yaml

from pipeline.config_file import ROOT
from tests.support.composed import DOCKER

KUBERNETES = DOCKER / "kubernetes"
#: Version 1.22.0 of Airflow's chart; not part of the project.
CHART = ROOT.parent / "shared" / "chart"
VALUES: dict[str, Any] = yaml.safe_load((KUBERNETES / "airflow-values.yaml").read_text("utf-8"))
#: Version of Kubernetes whose schemas count.
VERSION = "1.33"
#: Kinds of Prometheus' operator, for which no schema is at hand: not validated.
NOT_VALIDATED = {"ServiceMonitor"}

chart = pytest.mark.skipif(not CHART.is_dir(), reason="needs Airflow's chart in ../shared/chart")


def manifests() -> list[dict[str, Any]]:
    paths = sorted(set(KUBERNETES.glob("*.yaml")) - {KUBERNETES / "airflow-values.yaml"})
    return [item for path in paths for item in yaml.safe_load_all(path.read_text("utf-8"))]


def named(kind: str) -> dict[str, dict[str, Any]]:
    return {item["metadata"]["name"]: item["spec"] for item in manifests() if item["kind"] == kind}


@pytest.mark.parametrize("manifest", manifests(), ids=lambda item: f"{item['kind']} {item['metadata']['name']}")
def test_manifest_has_only_known_fields(manifest: dict[str, Any]) -> None:
    if manifest["kind"] in NOT_VALIDATED:
        with pytest.raises(kubernetes_validate.SchemaNotFoundError):
            kubernetes_validate.validate(manifest, VERSION, strict=True)
    else:
        kubernetes_validate.validate(manifest, VERSION, strict=True)


def test_strict_validation_finds_an_unknown_field() -> None:
    manifest = next(item for item in manifests() if item["kind"] == "Deployment")
    wrong = manifest | {"spec": manifest["spec"] | {"replica": 1}}
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(wrong, VERSION, strict=True)


@chart
def test_values_match_the_schema_of_the_chart() -> None:
    schema = json.loads((CHART / "values.schema.json").read_text("utf-8"))
    errors = list(jsonschema.Draft7Validator(schema).iter_errors(VALUES))
    assert errors == []
    # The schema allows unknown keys at the top.
    assert VALUES.keys() <= schema["properties"].keys()
    assert set(VALUES["workers"]) == {"kubernetes"}, "the other keys of workers are deprecated, or for Celery"


@chart
def test_images_have_the_scripts_that_the_chart_runs() -> None:
    default = (CHART / "values.yaml").read_text("utf-8")
    called = set(re.findall(r'args: \["bash", "(/[\w-]+)"\]', default)) | {VALUES["migrateDatabaseJob"]["args"][1]}
    assert "/clean-logs" in called
    # The probes of the chart's templates call it.
    called.add("/entrypoint")
    text = (DOCKER / "airflow.Dockerfile").read_text("utf-8")
    assert called <= set(re.findall(r"^COPY docker/\S+ (/\S+)$", text, re.M))
    chart_values = yaml.safe_load(default)
    assert f"useradd --create-home --uid {chart_values['uid']} --gid {chart_values['gid']} " in text
    assert f"AIRFLOW_HOME={chart_values['airflowHome']} " in text


def test_images_are_of_the_version_that_is_installed() -> None:
    pins = (ROOT / "constraints.txt").read_text("utf-8").splitlines()
    assert f"apache-airflow=={VALUES['airflowVersion']}" in pins
    assert "apache-airflow-providers-cncf-kubernetes" in str(pins)
    images = [VALUES["defaultAirflowTag"], VALUES["images"]["pod_template"]["tag"]]
    [container] = named("Deployment")["saebyeok-service"]["template"]["spec"]["containers"]
    version = re.search(r'^version = "(.+)"', (ROOT / "pyproject.toml").read_text("utf-8"), re.M)[1]  # type: ignore[index]
    assert [*images, container["image"].rpartition(":")[2]] == [version, f"{version}-cuda", version]


def test_service_pod_serves_on_before_it_stops() -> None:
    pod = named("Deployment")["saebyeok-service"]["template"]["spec"]
    # Default of Kubernetes, in seconds; after it, a pod is killed.
    grace = pod.get("terminationGracePeriodSeconds", 30)
    [container] = pod["containers"]
    assert 0 < container["lifecycle"]["preStop"]["sleep"]["seconds"] < grace


def test_volumes_of_the_values_exist_and_are_shared() -> None:
    claims = named("PersistentVolumeClaim")
    used = re.findall(r"claimName: ([\w-]+)", (KUBERNETES / "airflow-values.yaml").read_text("utf-8"))
    assert used == list(claims)
    assert all(claim["accessModes"] == ["ReadWriteMany"] for claim in claims.values())
    mounts = {mount["mountPath"] for mount in VALUES["workers"]["kubernetes"]["extraVolumeMounts"]}
    assert "SAEBYEOK_HOME=/saebyeok/home\n" in (DOCKER / "worker.Dockerfile").read_text("utf-8")
    assert "/saebyeok/home" in mounts


def test_secrets_are_described() -> None:
    text = "".join(path.read_text("utf-8") for path in KUBERNETES.glob("*.yaml"))
    pattern = r"(?:metadataSecretName|KeySecretName|jwtSecretName): (\S+)|secretRef:\s*\{? ?name: (\S+)"
    names = {first or second for first, second in re.findall(pattern, text)}
    page = (ROOT / "docs" / "how-to" / "several-machines.md").read_text("utf-8")
    assert len(names) == 5
    assert {name for name in names if f"create secret generic {name} " not in page} == set()


def gpu_tasks() -> set[str]:
    """Return the names of the tasks that nightly_retrain puts into the pool of the GPU."""
    tree = ast.parse((ROOT / "dags" / "nightly_retrain.py").read_text("utf-8"))
    return {
        node.name
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef) and any("gpu_pool" in ast.unparse(part) for part in node.decorator_list)
    }


def local_settings() -> dict[str, Any]:
    names: dict[str, Any] = {}
    exec(VALUES["airflowLocalSettings"], names)
    return names


def test_tasks_of_the_gpu_pool_are_those_of_the_hook() -> None:
    assert local_settings()["GPU_TASKS"] == gpu_tasks() != set()


@pytest.mark.airflow
@pytest.mark.parametrize(("task", "gpus"), [("nsmc.train", "1"), ("nsmc.validate", None)])
def test_hook_gives_a_gpu_to_the_pods_of_the_gpu_pool(task: str, gpus: str | None) -> None:
    from airflow.providers.cncf.kubernetes.pod_generator import PodGenerator
    from kubernetes.client import models as k8s

    base = k8s.V1Pod(
        metadata=k8s.V1ObjectMeta(), spec=k8s.V1PodSpec(containers=[k8s.V1Container(name="base", image="worker")])
    )
    pod = PodGenerator.construct_pod(
        dag_id="nightly_retrain",
        task_id=task,
        pod_id="pod",
        try_number=1,
        kube_image="worker",
        date=None,
        args=["python"],
        pod_override_object=None,
        base_worker_pod=base,
        namespace="default",
        scheduler_job_id="1",
        run_id="run",
    )
    local_settings()["pod_mutation_hook"](pod)
    [container] = pod.spec.containers
    assert ((container.resources or k8s.V1ResourceRequirements()).limits or {}).get("nvidia.com/gpu") == gpus
    assert bool(pod.spec.tolerations) == bool(pod.spec.node_selector) == (gpus is not None)


def test_service_is_selected_by_what_protects_and_scales_it() -> None:
    labels = named("Deployment")["saebyeok-service"]["template"]["metadata"]["labels"]
    selectors = [
        named("PodDisruptionBudget")["saebyeok-service"]["selector"]["matchLabels"],
        named("NetworkPolicy")["saebyeok-service"]["podSelector"]["matchLabels"],
        named("ServiceMonitor")["saebyeok-service"]["selector"]["matchLabels"],
        *(spec["selector"] for spec in named("Service").values()),
    ]
    assert all(selector == labels for selector in selectors)
    assert named("HorizontalPodAutoscaler")["saebyeok-service"]["scaleTargetRef"]["name"] in named("Deployment")


def test_pods_of_the_service_are_replicas_with_addresses_of_their_own() -> None:
    (container,) = named("Deployment")["saebyeok-service"]["template"]["spec"]["containers"]
    environment = {item["name"]: item for item in container["env"]}
    (port,) = (item["containerPort"] for item in container["ports"])
    assert environment["SAEBYEOK_ADVERTISE_URL"]["value"] == f"http://$(POD_IP):{port}"
    assert environment["POD_IP"]["valueFrom"]["fieldRef"]["fieldPath"] == "status.podIP"
    # Kubernetes replaces $(NAME) only by variables that come before.
    assert list(environment).index("POD_IP") < list(environment).index("SAEBYEOK_ADVERTISE_URL")
    scaling = named("HorizontalPodAutoscaler")["saebyeok-service"]
    assert 1 < scaling["minReplicas"] < scaling["maxReplicas"]
    # With a number here, each `kubectl apply` would undo the autoscaler's.
    assert "replicas" not in named("Deployment")["saebyeok-service"]


def test_workers_know_the_address_of_the_service() -> None:
    url = next(item["value"] for item in VALUES["env"] if item["name"] == "SAEBYEOK_SERVICE_URL")
    name, port = re.fullmatch(r"http://([a-z-]+):(\d+)", url).groups()  # type: ignore[union-attr]
    assert named("Service")[name]["ports"][0]["port"] == int(port)
