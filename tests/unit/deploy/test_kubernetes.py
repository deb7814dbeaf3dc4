"""Kubernetes manifests without a cluster: schemas, what refers to what, who may do what."""

import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from coordinator.enrolment.broker_files import access_rules
from coordinator.settings import ENVIRONMENT_PREFIX, CoordinatorSettings
from deploy.fleet.creating import ServerPlaces, create_fleet, new_record
from fedpt.ids import FederationId
from fedpt.settings import load
from tests.fakes.command_line_check import fedpt_commands, is_installed, require_command
from tests.fakes.container_files import (
    KUBERNETES,
    compose_commands,
    dockerfile_stages,
    kubernetes_objects,
    pod_templates,
    tool,
)

CLUSTER = "overlays/broker-cluster"
README = (KUBERNETES / "README.md").read_text(encoding="utf-8")
BASE = kubernetes_objects()

VERSIONS = ("1.31", "1.34", "1.37")
"""From the first in which a StatefulSet's first ordinal is settled."""

needs_kubectl = pytest.mark.skipif(tool("kubectl") is None, reason="kubectl is not installed")


def built(folder: str) -> list[dict[str, Any]]:
    """What `kubectl apply -k` would send."""
    program = tool("kubectl")
    assert program is not None
    done = subprocess.run(
        [program, "kustomize", KUBERNETES / folder],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return list(yaml.safe_load_all(done.stdout))


def named(kind: str, name: str) -> dict[str, Any]:
    (found,) = (one for one in BASE if (one["kind"], one["metadata"]["name"]) == (kind, name))
    return found


def containers(spec: dict[str, Any]) -> list[dict[str, Any]]:
    return [*spec.get("initContainers", []), *spec["containers"]]


def variables(container: dict[str, Any], pod: str) -> dict[str, str]:
    """A container's environment; `$(POD_NAME)` as the cluster fills it in."""
    return {
        one["name"]: one.get("value", pod).replace("$(POD_NAME)", pod)
        for one in container.get("env", [])
    }


@pytest.mark.parametrize("version", VERSIONS)
def test_every_object_fits_the_schemas_and_has_no_unknown_field(version: str) -> None:
    validator = pytest.importorskip("kubernetes_validate", reason="not installed")
    objects = list(BASE)
    vernemq = KUBERNETES / CLUSTER / "vernemq.yaml"
    objects += yaml.safe_load_all(vernemq.read_text(encoding="utf-8"))
    assert len(objects) > 20
    for one in objects:
        validator.validate(one, version, strict=True)


def test_the_schemas_notice_a_misspelt_field() -> None:
    validator = pytest.importorskip("kubernetes_validate", reason="not installed")
    wrong = {**named("Service", "broker"), "sepc": {}}
    with pytest.raises(validator.ValidationError):
        validator.validate(wrong, VERSIONS[0], strict=True)


@needs_kubectl
@pytest.mark.parametrize("folder", ["base", CLUSTER])
def test_the_folder_builds_and_what_it_builds_fits_the_schemas(folder: str) -> None:
    validator = pytest.importorskip("kubernetes_validate", reason="not installed")
    for one in built(folder):
        validator.validate(one, VERSIONS[0], strict=True)
        if one["kind"] != "Namespace":
            assert one["metadata"]["namespace"] == "fedpt"


@needs_kubectl
def test_with_a_cluster_of_brokers_nothing_of_mosquitto_is_left() -> None:
    objects = built(CLUSTER)
    pods = dict(pod_templates(objects))
    assert [one["name"] for one in pods["gate"]["containers"]] == ["enrolment"]
    services = {one["metadata"]["name"]: one["spec"] for one in objects if one["kind"] == "Service"}
    assert services["broker"]["selector"] == {"app.kubernetes.io/component": "broker-cluster"}
    assert [one["port"] for one in services["boards"]["ports"]] == [8884]
    assert [one["port"] for one in services["boards-mqtts"]["ports"]] == [8883]


@pytest.mark.parametrize("folder", ["base", CLUSTER])
def test_pods_are_as_the_restricted_profile_wants_them(folder: str) -> None:
    for name, spec in pod_templates(kubernetes_objects(folder)):
        if "containers" not in spec or "securityContext" not in spec:
            continue  # a patch
        assert spec["securityContext"]["runAsNonRoot"], name
        assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        assert spec["enableServiceLinks"] is False, "a Service's variables could be taken for ours"
        for one in containers(spec):
            context = one["securityContext"]
            assert context["allowPrivilegeEscalation"] is False
            assert context["capabilities"] == {"drop": ["ALL"]}
            assert context["readOnlyRootFilesystem"] or one["name"] == "vernemq"
            for kind in ("requests", "limits"):
                assert one["resources"][kind].keys() == {"cpu", "memory"}
    assert named("Namespace", "fedpt")["metadata"]["labels"][
        "pod-security.kubernetes.io/enforce"
    ] == ("restricted")


def test_pods_of_ours_run_as_the_images_user_and_get_no_token_of_the_cluster() -> None:
    for _, spec in pod_templates(BASE):
        assert spec["securityContext"]["runAsUser"] == 10001
        assert spec["securityContext"]["fsGroup"] == 10001
        assert spec["automountServiceAccountToken"] is False


def test_every_container_is_watched() -> None:
    for _, spec in pod_templates(BASE):
        for one in spec["containers"]:
            assert {"startupProbe", "readinessProbe"} <= one.keys()
            assert "livenessProbe" in one or one["name"] == "worker"
            ports = {port["name"] for port in one.get("ports", [])}
            for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
                how = one.get(probe, {})
                port = (how.get("tcpSocket") or how.get("httpGet") or {}).get("port")
                assert port is None or port in ports


def test_images_are_targets_of_the_dockerfile_with_a_version() -> None:
    pinned = {one["name"]: one["newTag"] for one in _kustomization("base")["images"]}
    used = {one["image"] for _, spec in pod_templates(BASE) for one in containers(spec)}
    assert used == pinned.keys()
    assert all(image.removeprefix("fedpt/") in dockerfile_stages() for image in used)
    assert "latest" not in pinned.values()


def test_what_the_pods_start_exists_and_is_what_the_compose_file_starts() -> None:
    started = {
        one["name"]: one.get("args") for _, spec in pod_templates(BASE) for one in containers(spec)
    }
    for name in ("coordinator", "enrolment", "worker"):
        require_command(started[name])
    if tool("docker-compose"):
        composed = compose_commands()
        assert started["coordinator"] == composed["coordinator"].arguments[1:]
        assert started["enrolment"] == composed["enrolment"].arguments[1:]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A fleet's server folder, as `fedpt fleet init` makes it."""
    folder = tmp_path_factory.mktemp("kubernetes") / "fleet"
    record = new_record(
        "home", ["fedpt.example.org", "broker"], broker_port=8883, enrolment_port=8884
    )
    create_fleet(folder, record, "a passphrase", ServerPlaces())
    return folder / "server"


def test_the_fleets_settings_hold_in_the_pods(server: Path) -> None:
    toml = server / "coordinator" / "coordinator.toml"
    for name, pod in (("coordinator", "coordinator-0"), ("worker", "worker-3")):
        (container,) = named("StatefulSet", name)["spec"]["template"]["spec"]["containers"]
        environment = variables(container, pod)
        environment.pop("POD_NAME", None)
        overrides = {"worker": {"processes": 0, "name": pod}} if name == "worker" else {}
        settings = load(
            CoordinatorSettings,
            toml=toml,
            prefix=ENVIRONMENT_PREFIX,
            environment=environment,
            overrides=overrides,
        )
        assert settings.broker.host == "broker"
        assert settings.worker.processes == 0
        mounts = {one["mountPath"] for one in container["volumeMounts"]}
        assert str(settings.large.parent) in mounts
        if name == "worker":
            assert str(settings.worker.certificate_file) == "/etc/fedpt/workers/worker-3.pem"
            assert "/etc/fedpt/workers" in mounts
        else:
            assert any(settings.state_dir.is_relative_to(one) for one in mounts)


def test_all_that_is_mounted_is_made_by_the_readme_or_the_manifests() -> None:
    made = set(re.findall(r"create (?:secret generic|configmap) ([\w-]+)", README))
    claims = {one["metadata"]["name"] for one in BASE if one["kind"] == "PersistentVolumeClaim"}
    for _, spec in pod_templates(BASE):
        for volume in spec["volumes"]:
            secret = volume.get("secret", {}).get("secretName")
            settings = volume.get("configMap", {}).get("name")
            claim = volume.get("persistentVolumeClaim", {}).get("claimName")
            assert {secret, settings} - {None} <= made
            assert {claim} - {None} <= claims


@pytest.mark.parametrize("kind", ["StatefulSet"])
def test_every_mount_has_its_volume(kind: str) -> None:
    for one in (one for one in BASE if one["kind"] == kind):
        spec = one["spec"]["template"]["spec"]
        own = {claim["metadata"]["name"] for claim in one["spec"].get("volumeClaimTemplates", [])}
        volumes = own | {volume["name"] for volume in spec["volumes"]}
        mounted = {mount["name"] for box in containers(spec) for mount in box["volumeMounts"]}
        assert mounted == volumes


def test_each_container_mounts_its_own_secrets_only() -> None:
    gate = named("StatefulSet", "gate")["spec"]["template"]["spec"]
    mounts = {box["name"]: {one["name"] for one in box["volumeMounts"]} for box in containers(gate)}
    assert "enrolment" not in mounts["broker"]
    assert "broker" not in mounts["enrolment"]
    (rules,) = (
        one
        for one in containers(gate)[0]["volumeMounts"]
        if one["mountPath"] == "/var/lib/fedpt-enrolment/broker"
    )
    assert rules["readOnly"]
    worker = named("StatefulSet", "worker")["spec"]["template"]["spec"]["volumes"]
    secrets = [one["secret"]["secretName"] for one in worker if "secret" in one]
    assert secrets == ["workers"]


def test_selectors_meet_labels() -> None:
    labels = {
        one["spec"]["template"]["metadata"]["labels"]["app.kubernetes.io/component"]
        for one in BASE
        if one["kind"] == "StatefulSet"
    }
    for one in BASE:
        spec = one.get("spec", {})
        selector = spec.get("selector") if one["kind"] == "Service" else None
        if selector:
            assert selector["app.kubernetes.io/component"] in labels
        if one["kind"] in {"StatefulSet", "PodDisruptionBudget"}:
            assert spec["selector"]["matchLabels"]["app.kubernetes.io/component"] in labels
        if one["kind"] == "StatefulSet":
            assert named("Service", spec["serviceName"])["spec"]["clusterIP"] == "None"


def test_nobody_talks_to_anybody_unless_a_policy_says_so() -> None:
    policies = {
        one["metadata"]["name"]: one["spec"] for one in BASE if one["kind"] == "NetworkPolicy"
    }
    assert policies["nobody"] == {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}
    from_everywhere = {
        (name, port["port"])
        for name, spec in policies.items()
        for rule in spec.get("ingress", [])
        if "from" not in rule
        for port in rule["ports"]
    }
    assert from_everywhere == {("anybody-to-gate", 8883), ("anybody-to-gate", 8884)}
    assert all("to" in rule for spec in policies.values() for rule in spec.get("egress", []))


def test_there_is_a_certificate_for_every_worker_that_the_autoscaler_may_start() -> None:
    scaler = named("HorizontalPodAutoscaler", "worker")["spec"]
    workers = named("StatefulSet", "worker")["spec"]
    assert scaler["scaleTargetRef"]["kind"] == "StatefulSet"
    assert "replicas" not in workers  # applying the manifests again must not undo the autoscaler
    first = workers["ordinals"]["start"]
    numbers = re.search(r"for n in ([\d ]+); do fedpt fleet add worker-\$n", README)
    assert numbers is not None
    issued = {1, *map(int, numbers[1].split())}  # 1: by `fedpt fleet init`
    assert issued == set(range(first, first + scaler["maxReplicas"]))


def test_there_is_never_more_than_one_coordinator_or_gate() -> None:
    for name in ("coordinator", "gate"):
        assert named("StatefulSet", name)["spec"]["replicas"] == 1


def test_commands_in_the_readme_exist() -> None:
    for arguments in fedpt_commands(README):
        if is_installed(arguments[0]):
            require_command(arguments)


def test_rules_for_a_cluster_of_brokers_go_by_the_certificates_name(tmp_path: Path) -> None:
    given, written = tmp_path / "from", tmp_path / "to"
    given.mkdir()
    written.mkdir()
    rules = access_rules(FederationId("home"), workers=["worker-1"], removed=["lost"])
    (given / "acl").write_text(rules)
    (given / "crl.pem").write_text("revoked")
    script = KUBERNETES / CLUSTER / "translate-rules.sh"
    subprocess.run(["sh", script, given, written, "once"], check=True, timeout=30)
    translated = (written / "acl").read_text()
    assert "%c" not in translated
    assert "deny" not in translated
    assert "pattern readwrite fedpt/v1/home/device/%u/#" in translated
    expected = [line for line in rules.splitlines() if "%c" not in line and "deny" not in line]
    assert [line for line in translated.splitlines() if "%u" not in line] == expected
    assert (written / "crl.pem").read_text() == "revoked"
    assert {path.name for path in written.iterdir()} == {"acl", "crl.pem"}


def test_shellcheck_finds_nothing_in_the_translation() -> None:
    program = tool("shellcheck")
    if program is None:
        pytest.skip("shellcheck is not installed: apt install shellcheck")
    script = KUBERNETES / CLUSTER / "translate-rules.sh"
    done = subprocess.run([program, script], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "")


def _kustomization(folder: str) -> Any:  # Any: YAML
    return yaml.safe_load((KUBERNETES / folder / "kustomization.yaml").read_text(encoding="utf-8"))
