"""What the doctors find out about real brokers: with TLS, with revocation, and none at all."""

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from fedpt.doctor import Finding
from fedpt.drivers.broker_check import check_broker, check_port, check_tls, judge_tls_error
from fedpt.drivers.mqtt import MqttLink
from fedpt.settings import BrokerSettings
from tests.fakes.brokers import free_port, running_mosquitto
from tests.fakes.identities import Identities

pytestmark = pytest.mark.broker


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Identities:
    identities = Identities(tmp_path_factory.mktemp("fleet"))
    for name in ("kitchen", "revoked"):
        identities.write(name)
    return identities


@pytest.fixture(scope="module")
def secured(fleet: Identities) -> Iterator[int]:
    """The port of a broker that wants certificates and knows one that is revoked."""
    lines = fleet.broker_lines() + f"crlfile {fleet.revoke('revoked')}\n"
    with running_mosquitto(lines=lines) as settings:
        yield settings.port


def summary(findings: Iterator[Finding]) -> list[tuple[str, str]]:
    return [(one.level, one.what) for one in findings]


def test_an_open_broker_lets_us_in() -> None:
    with running_mosquitto() as settings:
        found = summary(check_broker(settings, "kitchen", may_log_in=True))
    assert [level for level, _ in found] == ["ok", "ok"]
    assert found[1] == ("ok", "broker: it accepts kitchen")


def test_a_good_certificate_is_accepted_up_to_the_login(fleet: Identities, secured: int) -> None:
    found = summary(check_broker(fleet.login(secured, "kitchen"), "kitchen", may_log_in=True))
    assert [level for level, _ in found] == ["ok", "ok", "ok"]
    assert "TLSv1.3" in found[1][1]


def test_a_revoked_certificate_is_told_as_such(fleet: Identities, secured: int) -> None:
    *_, last = check_broker(fleet.login(secured, "revoked"), "revoked", may_log_in=True)
    assert (last.level, last.advice) == ("fault", "ask the operator for a new token")
    assert "our certificate is revoked" in last.what


def test_a_strangers_certificate_is_refused_and_its_authority_is_not_ours(
    fleet: Identities, secured: int, tmp_path: Path
) -> None:
    stranger = Identities(tmp_path)
    stranger.write("kitchen")
    finding = check_tls(stranger.login(secured, "kitchen"))
    assert "broker.ca_file does not vouch" in finding.what
    trusting = stranger.login(secured, "kitchen").model_copy(update={"ca_file": fleet.ca})
    assert "who issued our certificate" in check_tls(trusting).what


def test_no_certificate_where_one_is_wanted(fleet: Identities, secured: int) -> None:
    finding = check_tls(BrokerSettings(port=secured, ca_file=fleet.ca))
    assert "it wants a certificate" in finding.what


def test_a_broker_without_tls_is_told(fleet: Identities) -> None:
    with running_mosquitto() as settings:
        finding = check_tls(fleet.login(settings.port, "kitchen"))
    assert finding.level == "fault"


def test_files_that_cannot_be_used_are_named(fleet: Identities, tmp_path: Path) -> None:
    bad = tmp_path / "bad.pem"
    bad.write_text("no certificate")
    broker = BrokerSettings(ca_file=fleet.ca, certificate_file=bad)
    finding = check_tls(broker)
    assert finding.level == "fault"
    assert "bad.pem" in finding.what


def test_nobody_listens() -> None:
    (finding,) = check_broker(BrokerSettings(port=free_port()), "kitchen", may_log_in=True)
    assert finding.level == "fault"
    assert "Connection refused" in finding.what


def test_a_name_without_an_address_is_told() -> None:
    finding = check_port("no-such-host.invalid", 1883)
    assert "no address for the name" in finding.what


@contextmanager
def silent_server() -> Iterator[int]:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        yield server.getsockname()[1]


def test_who_listens_but_speaks_no_tls_does_not_hold_the_doctor_up(
    fleet: Identities, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fedpt.drivers.broker_check._TIMEOUT_S", 0.2)
    with silent_server() as port:
        assert check_tls(fleet.login(port, "kitchen")).level == "fault"


def test_a_running_daemon_keeps_its_connection(fleet: Identities, secured: int) -> None:
    """A login with its certificate would throw it off."""
    broker = fleet.login(secured, "kitchen")
    connections: list[bool] = []
    link = MqttLink(
        broker,
        "kitchen",
        on_message=lambda _message: None,
        on_connected=lambda: connections.append(True),
    )
    link.start(timeout_s=20)
    try:
        found = summary(check_broker(broker, "kitchen", may_log_in=False))
        assert [level for level, _ in found] == ["ok", "ok"]
        assert link.is_connected
        assert connections == [True]
    finally:
        link.stop()


@pytest.mark.parametrize(
    ("reason", "part"),
    [
        ("[SSL: SSLV3_ALERT_CERTIFICATE_REVOKED] ssl/tls alert certificate revoked", "revoked"),
        ("[SSL: SSLV3_ALERT_CERTIFICATE_EXPIRED] sslv3 alert", "our certificate has expired"),
        ("certificate verify failed: certificate has expired", "its certificate has expired"),
        ("certificate verify failed: certificate is not yet valid", "not valid yet"),
        ("verify failed: Hostname mismatch, certificate is not valid for 'a'", "another host"),
        ("certificate verify failed: IP address mismatch", "another address"),
        ("something new", "failed: something new"),
    ],
)
def test_tls_errors_are_told_apart(reason: str, part: str) -> None:
    assert part in judge_tls_error("host:8883", reason).what
