"""What the coordinator's doctor says of servers in all states, down to nothing at all."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from coordinator.doctor import coordinator_checks, judge_access, judge_journal
from coordinator.drivers.journal import Journal, decode_event
from coordinator.state import FederationState
from coordinator.transitions import fold
from fedpt.doctor import Finding, Level, examine
from fedpt.errors import UsageError
from fedpt.folder_lock import sole_use_of
from tests.fakes.brokers import free_port, running_mosquitto
from tests.fakes.histories import run_started, whole_round
from tests.fakes.tiny_federation import TinyFederation


def write_config(
    folder: Path, tiny: TinyFederation | None, *, port: int, more: str = "", broker: str = ""
) -> Path:
    small, large = (tiny.small, tiny.large) if tiny else ("small.gguf", "large.gguf")
    data = tiny.data if tiny else "data.jsonl"
    path = folder / "coordinator.toml"
    path.write_text(
        f'small = "{small}"\nlarge = "{large}"\nevaluation = "{data}"\npublic = "{data}"\n'
        f'state_dir = "state"\n{more}\n[broker]\nport = {port}\n{broker}\n'
    )
    return path


def examined(config: Path) -> list[Finding]:
    return list(examine(coordinator_checks(config)))


def about(findings: list[Finding], subject: str) -> Finding:
    (found,) = [one for one in findings if one.what.startswith(f"{subject}: ")]
    return found


def test_a_server_in_order_has_no_fault(tiny: TinyFederation, tmp_path: Path) -> None:
    findings = examined(write_config(tmp_path, tiny, port=free_port()))
    assert [one for one in findings if one.level == "fault"] == []
    assert about(findings, "vocabulary").what.endswith("same 384 tokens")
    assert about(findings, "coordinator").level == "warning"
    assert "on this machine only" in about(findings, "broker").what


def test_without_settings_the_machine_is_still_looked_at(tmp_path: Path) -> None:
    findings = examined(tmp_path / "none.toml")
    assert about(findings, "settings").level == "fault"
    assert about(findings, "clock").level != "fault"


def test_everything_broken_is_told_one_by_one(tmp_path: Path) -> None:
    config = write_config(tmp_path, None, port=free_port(), more="embedded_broker = false")
    (tmp_path / "state").mkdir()
    (tmp_path / "state" / "journal.sqlite").write_text("no database, but long enough" * 100)
    faults = [one.what for one in examined(config) if one.level == "fault"]
    for part in ("small.gguf", "large.gguf", "data.jsonl", "cannot read the journal", "refused"):
        assert any(part in what for what in faults), (part, faults)


def test_models_of_different_vocabularies_are_a_fault(tiny: TinyFederation, tmp_path: Path) -> None:
    from converters.model_to_gguf import convert_model
    from tests.fakes.tiny_models import make_tiny_llama

    other = tmp_path / "other.gguf"
    convert_model(make_tiny_llama(tmp_path / "m", vocabulary=300), other)
    config = write_config(tmp_path, tiny, port=free_port())
    config.write_text(config.read_text().replace(str(tiny.large), str(other)))
    assert any("the vocabularies differ" in one.what for one in examined(config))


def test_the_last_round_is_told_from_the_journal_without_changing_it(
    tiny: TinyFederation, tmp_path: Path
) -> None:
    path = tmp_path / "state" / "journal.sqlite"
    journal = Journal(path, decode_event)
    for event in [run_started(), *whole_round()]:
        journal.append(event)
    journal.close()
    before = path.read_bytes()
    finding = about(examined(write_config(tmp_path, tiny, port=free_port())), "journal")
    assert finding == Finding("ok", "journal: round 1, waiting, 1 of 3 updates")
    assert path.read_bytes() == before
    assert judge_journal(FederationState()).what == "journal: no round yet"
    assert judge_journal(fold([run_started(), *whole_round()[:2]])).what.endswith("1 of 3 updates")


def test_a_running_coordinator_is_told_with_its_process(
    tiny: TinyFederation, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = write_config(tmp_path, tiny, port=free_port())
    monkeypatch.setattr("coordinator.doctor._ANSWER_S", 0.2)
    with sole_use_of(tmp_path / "state", user="coordinator"):
        findings = examined(config)
    assert "the only one" in about(findings, "coordinator").what
    assert any("refused" in one.what for one in findings)  # it runs, and there is no broker


@pytest.mark.broker
def test_no_worker_that_answers_is_a_fault(
    tiny: TinyFederation, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("coordinator.doctor._ANSWER_S", 0.5)
    with running_mosquitto() as broker, sole_use_of(tmp_path / "state", user="coordinator"):
        config = write_config(tmp_path, tiny, port=broker.port, more="embedded_broker = false")
        finding = about(examined(config), "logit worker")
    assert finding.level == "fault"
    assert "none answers" in finding.what


@pytest.mark.parametrize(
    ("host", "level"),
    [
        ("127.0.0.1", "ok"),
        ("localhost", "ok"),
        ("::1", "ok"),
        ("0.0.0.0", "fault"),
        ("10.0.0.5", "fault"),
        ("server.lan", "fault"),
    ],
)
def test_the_embedded_broker_belongs_on_this_machine_only(host: str, level: Level) -> None:
    assert judge_access(host).level == level


def test_a_far_broker_without_tls_or_password_is_a_warning(
    tiny: TinyFederation, tmp_path: Path
) -> None:
    config = write_config(
        tmp_path, tiny, port=1, more="embedded_broker = false", broker='host = "host.invalid"'
    )
    findings = [one for one in examined(config) if one.what.startswith("broker: ")]
    assert [one.level for one in findings] == ["warning", "fault"]


@pytest.mark.parametrize("text", ["server", "8884", "server:", ":8884", "server:https"])
def test_an_enrolment_service_is_named_by_host_and_port(tmp_path: Path, text: str) -> None:
    config = write_config(tmp_path, None, port=1)
    with pytest.raises(UsageError, match="HOST:PORT was expected"):
        coordinator_checks(config, enrolment=text)


def test_an_enrolment_service_that_is_not_there_is_told(tmp_path: Path) -> None:
    config = write_config(tmp_path, None, port=1)
    where = f"127.0.0.1:{free_port()}"
    findings = list(examine(coordinator_checks(config, enrolment=where)))
    assert about(findings, "enrolment service").level == "fault"


def test_the_command_prints_json_and_ends_with_1_on_a_fault(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "fedpt.cli", "coordinator", "doctor", "--json", "--config"]
    result = subprocess.run(
        [*command, str(tmp_path / "none.toml")], capture_output=True, text=True, check=False
    )
    assert result.returncode == 1
    assert json.loads(result.stdout)["healthy"] is False
    assert result.stderr == ""
