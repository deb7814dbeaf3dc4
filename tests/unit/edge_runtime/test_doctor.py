"""What the device's doctor says of boards in all states, down to nothing at all."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from edge_runtime.data.store import DataStore
from edge_runtime.doctor import (
    device_checks,
    judge_release,
    judge_status,
    judge_token,
)
from edge_runtime.updates.boot_guard import Record
from fedpt.doctor import Finding, Level, examine, is_healthy
from fedpt.enrolment import TokenClaims, make_token
from fedpt.examples import Example
from fedpt.folder_lock import sole_use_of
from fedpt.signing import SigningKey
from tests.fakes.brokers import free_port, running_mosquitto
from tests.fakes.identities import Identities
from tests.fakes.tiny_federation import TinyFederation


def write_config(
    folder: Path, *, port: int, small: Path | str = "small.gguf", more: str = ""
) -> Path:
    (folder / "state").mkdir(exist_ok=True)
    DataStore(folder / "private.db").add([Example("a", "b")])
    path = folder / "device.toml"
    path.write_text(
        f'name = "kitchen"\nsmall = "{small}"\ndata = "private.db"\nstate_dir = "state"\n'
        f"{more}\n[broker]\nport = {port}\n"
    )
    return path


def examined(config: Path) -> list[Finding]:
    return list(examine(device_checks(config)))


def about(findings: list[Finding], subject: str) -> Finding:
    (found,) = [one for one in findings if one.what.startswith(f"{subject}: ")]
    return found


@pytest.mark.broker
def test_a_board_in_order_is_healthy_and_says_that_its_daemon_does_not_run(
    tiny: TinyFederation, tmp_path: Path
) -> None:
    with running_mosquitto() as broker:
        findings = examined(write_config(tmp_path, port=broker.port, small=tiny.small))
    assert [one for one in findings if one.level == "fault"] == []
    assert about(findings, "private data").what.startswith("private data: 1 examples")
    assert about(findings, "daemon").level == "warning"
    assert Finding("ok", "broker: it accepts kitchen") in findings


def test_without_settings_the_board_itself_is_still_looked_at(tmp_path: Path) -> None:
    findings = examined(tmp_path / "none.toml")
    assert about(findings, "settings").level == "fault"
    assert about(findings, "clock").level != "fault"
    assert len(findings) > 2


def test_everything_broken_is_told_one_by_one(tmp_path: Path) -> None:
    config = write_config(tmp_path, port=free_port())
    (tmp_path / "private.db").write_text("{broken\n")
    (tmp_path / "small.gguf").write_bytes(b"GGUF\x03\x00\x00\x00")
    (tmp_path / "state").chmod(0o777)
    faults = [one.what for one in examined(config) if one.level == "fault"]
    for part in ("small.gguf is not a usable GGUF", "no data store", "others may write", "refused"):
        assert any(part in what for what in faults), (part, faults)


def test_flagged_and_missing_examples_are_warned_of(tmp_path: Path) -> None:
    config = write_config(tmp_path, port=free_port())
    store = DataStore(tmp_path / "private.db")
    store.add([Example("my card?", "4111 1111 1111 1111")])
    told = [one for one in examined(config) if one.what.startswith("private data: ")]
    assert [one.level for one in told] == ["warning", "ok"]
    assert told[0].what.startswith("private data: 1 examples seem to hold secrets")
    store.remove([1, 2])
    assert about(examined(config), "private data").level == "warning"


def test_a_daemon_that_holds_the_lock_and_does_not_answer_is_a_fault(tmp_path: Path) -> None:
    config = write_config(tmp_path, port=free_port())
    with sole_use_of(tmp_path / "state", user="device"):
        finding = about(examined(config), "daemon")
    assert finding.level == "fault"
    assert f"process {os.getpid()} runs and does not answer" in finding.what


@pytest.mark.parametrize(
    ("status", "level"),
    [
        ({"activity": "idle", "connected": True, "adapter": "ab" * 32, "fault": ""}, "ok"),
        ({"activity": "idle", "connected": False, "adapter": "", "fault": ""}, "fault"),
        ({"activity": "idle", "connected": True, "fault": "no data"}, "warning"),
        ({}, "fault"),
    ],
)
def test_what_the_daemon_says_is_judged(status: dict[str, object], level: Level) -> None:
    assert judge_status(status).level == level


@pytest.mark.parametrize(
    ("end", "is_enrolled", "level", "part"),
    [
        (7200.0, False, "warning", "good for 2 hours"),
        (-7200.0, False, "fault", "expired 2 hours ago, unused"),
        (None, False, "fault", "holds no token"),
        (7200.0, True, "warning", "left over"),
    ],
)
def test_a_token_is_judged(end: float | None, is_enrolled: bool, level: Level, part: str) -> None:
    now = 1e9
    expires = None if end is None else now + end
    path = Path("/token")
    finding = judge_token(path, expires, now, is_enrolled=is_enrolled, renew="RENEW")
    assert finding.level == level
    assert part in finding.what


def _token(expires_unix_s: float) -> str:
    claims = TokenClaims(
        federation="home",
        name="kitchen",
        board="rpi5",
        nonce="0" * 32,
        issued_unix_s=0,
        expires_unix_s=expires_unix_s,
    )
    return make_token(claims, SigningKey.generate())


def _enrolling(folder: Path) -> Path:
    """A board before its enrolment."""
    fleet = Identities(folder / "fleet")
    port = free_port()
    config = write_config(folder, port=port)
    config.write_text(
        config.read_text()
        + f'ca_file = "{fleet.ca}"\ncertificate_file = "identity.pem"\n'
        + f'[enrolment]\nurl = "https://127.0.0.1:{port}"\ntoken_file = "token"\n'
    )
    return config


@pytest.mark.parametrize(
    ("left_s", "level", "part"),
    [(7200, "warning", "not yet"), (-7200, "fault", "unused")],
)
def test_a_real_tokens_end_is_read(tmp_path: Path, left_s: float, level: Level, part: str) -> None:
    config = _enrolling(tmp_path)
    (tmp_path / "token").write_text(_token(time.time() + left_s) + "\n")
    (tmp_path / "token").chmod(0o600)
    finding = about(examined(config), "enrolment")
    assert finding.level == level
    assert part in finding.what


@pytest.mark.parametrize("content", ["", "%%%", "AAAA", "é", "k4AAAA=="])
def test_a_damaged_token_is_told(tmp_path: Path, content: str) -> None:
    config = _enrolling(tmp_path)
    (tmp_path / "token").write_text(content)
    assert "holds no token" in about(examined(config), "enrolment").what


def test_neither_token_nor_certificate_is_a_fault_with_the_operators_command(
    tmp_path: Path,
) -> None:
    finding = about(examined(_enrolling(tmp_path)), "enrolment")
    assert finding.level == "fault"
    assert "fedpt fleet add kitchen --renew-token" in finding.advice


def test_releases_on_trial_and_taken_back_are_told(tmp_path: Path) -> None:
    config = write_config(tmp_path, port=free_port())
    config.write_text(
        config.read_text() + '[releases]\nfolder = "releases"\ntrust_file = "trust.json"\n'
    )
    assert "no public keys" in about(examined(config), "releases").what
    (tmp_path / "trust.json").write_text("{}")
    (tmp_path / "releases").mkdir()
    boot = tmp_path / "releases" / "boot.json"
    back = {"id": "4-b", "unix_s": 1.0, "why": "it did not start"}
    kinds = {"model": {"candidate": "5-a", "tries_left": 2}, "runtime": {"rolled_back": back}}
    boot.write_text(json.dumps({"format": 1, "kinds": kinds}))
    told = [one.what for one in examined(config) if one.what.startswith("releases")]
    assert told == [
        "releases: model 5-a is on trial, 2 starts left",
        "releases: runtime 4-b was taken back: it did not start",
    ]
    boot.write_text("{")
    assert "damaged" in about(examined(config), "releases").what
    assert judge_release("model", Record()) is None


def _fedpt(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "fedpt.cli", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_the_command_ends_with_1_on_a_fault_and_prints_a_line_each(tmp_path: Path) -> None:
    result = _fedpt("device", "doctor", "--config", tmp_path / "none.toml")
    assert result.returncode == 1
    assert result.stdout.splitlines()[0].startswith("✗ settings: no such settings file")
    assert result.stderr == ""


def test_the_command_prints_json_for_programs(tmp_path: Path) -> None:
    result = _fedpt("device", "doctor", "--json", "--config", tmp_path / "none.toml")
    shown = json.loads(result.stdout)
    assert shown["healthy"] is False
    assert shown["findings"][0]["level"] == "fault"
    assert not is_healthy([Finding(**one) for one in shown["findings"]])


def test_the_doctor_needs_no_torch(tmp_path: Path) -> None:
    config = write_config(tmp_path, port=free_port())
    program = (
        "import sys\n"
        "sys.modules.update(dict.fromkeys(['torch', 'transformers', 'peft']))\n"
        "from pathlib import Path\n"
        "from edge_runtime.doctor import device_checks\n"
        "from fedpt.doctor import examine\n"
        f"print([one.what for one in examine(device_checks(Path({str(config)!r})))])\n"
    )
    result = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert "missing" not in result.stdout
    assert "no such model file" in result.stdout
