"""Attacks on a fleet's server: real broker, its own configuration, the real enrolment service."""

import queue
import socket
import ssl
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta

import httpx
import pytest
from paho.mqtt.client import Client, MQTTv5
from paho.mqtt.enums import CallbackAPIVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from deploy.fleet.adding import issuing_authority
from deploy.fleet.operator_calls import call_service
from edge_runtime.drivers.enrolment import IdentityKeeper, ensure_identity
from fedpt.certificates import MEMBER_DAYS, Authority, new_key, own_request
from fedpt.drivers.mqtt import MqttLink, Publication, Received
from fedpt.errors import BrokerError, EnrolmentError
from fedpt.settings import BrokerSettings
from fedpt.signing import private_key_to_pem
from tests.integration.running_fleet import PASSPHRASE, RunningFleet

pytestmark = [
    pytest.mark.broker,
    pytest.mark.slow,
    # paho leaves the socket of a handshake that failed to the garbage collector
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]

_CONNECT = bytes([0x10, 16, 0, 4, *b"MQTT", 5, 2, 0, 60, 0, 0, 3, *b"abc"])
_CONNECT_ACCEPTED = b"\x20"

_SILENCE_S = 0.4
"""How long nothing may come before we believe that nothing comes."""


@pytest.fixture(scope="module")
def fleet(tmp_path_factory):
    with RunningFleet(tmp_path_factory.mktemp("fleet")) as fleet:
        yield fleet


class Ears:
    """Receives, and says whether something came."""

    def __init__(self, settings: BrokerSettings, name: str, *filters: str) -> None:
        self._heard: queue.Queue[Received] = queue.Queue()
        self.link = MqttLink(settings, name, on_message=self._heard.put)
        self.link.subscribe(*filters)
        self.link.start(timeout_s=5)

    def next(self) -> Received:
        return self._heard.get(timeout=10)

    def hears_nothing(self) -> bool:
        time.sleep(_SILENCE_S)  # silence has no event
        return self._heard.empty()


@contextmanager
def ears(settings: BrokerSettings, name: str, *filters: str) -> Iterator[Ears]:
    one = Ears(settings, name, *filters)
    try:
        yield one
    finally:
        one.link.stop()


def _topic(device: str, kind: str) -> str:
    return f"fedpt/v1/home/device/{device}/{kind}"


def _say(one: Ears, topic: str, text: str, *, qos=1) -> None:
    one.link.publish_and_wait(Publication(topic, text.encode(), qos=qos), timeout_s=5)


def test_an_enrolled_device_speaks_below_its_own_name_and_the_coordinator_hears_it(fleet):
    with (
        ears(fleet.coordinator(), "coordinator", _topic("+", "#")) as coordinator,
        ears(fleet.enrol("kitchen"), "kitchen", _topic("kitchen", "inbox/#")) as kitchen,
    ):
        _say(kitchen, _topic("kitchen", "offer"), "mine")
        assert coordinator.next() == Received(_topic("kitchen", "offer"), b"mine")
        _say(coordinator, _topic("kitchen", "inbox/receipt"), "yours")
        assert kitchen.next().payload == b"yours"


def test_a_device_can_neither_speak_nor_listen_as_another(fleet):
    with (
        ears(fleet.coordinator(), "coordinator", "fedpt/v1/home/#") as coordinator,
        ears(fleet.enrol("garage"), "garage", _topic("garage", "inbox/#")) as garage,
        ears(fleet.enrol("spy"), "spy", "#", _topic("garage", "inbox/#"), _topic("+", "#")) as spy,
    ):
        _say(spy, _topic("garage", "offer"), "forged")
        _say(spy, _topic("garage", "inbox/receipt"), "forged")
        _say(spy, "fedpt/v1/home/coordinator/round", "forged")
        _say(spy, "fedpt/v1/home/worker/worker-1/logits/garage", "forged")
        _say(garage, _topic("garage", "status"), "private")
        _say(coordinator, _topic("garage", "inbox/receipt"), "private")
        assert coordinator.next().payload == b"private"
        assert garage.next().payload == b"private"
        assert spy.hears_nothing()


def test_a_client_id_of_another_device_does_not_push_it_off_the_broker(fleet):
    with (
        ears(fleet.coordinator(), "coordinator", _topic("+", "offer")) as coordinator,
        ears(fleet.enrol("victim"), "victim", _topic("victim", "inbox/#")) as victim,
        ears(fleet.enrol("thief"), "victim", _topic("victim", "inbox/#")) as thief,
    ):
        _say(thief, _topic("victim", "offer"), "forged")
        _say(victim, _topic("victim", "offer"), "true")
        assert coordinator.next().payload == b"true"
        _say(coordinator, _topic("victim", "inbox/receipt"), "for the victim")
        assert victim.next().payload == b"for the victim"
        assert thief.hears_nothing()
        assert "already connected" not in fleet.log("broker").partition("as thief")[2]


def test_a_response_topic_outside_the_senders_level_moves_nobody(fleet):
    """The protocol answers to the level of the sender's topic; nothing reads a response topic."""
    settings = fleet.enrol("asker")
    client = Client(CallbackAPIVersion.VERSION2, client_id="asker", protocol=MQTTv5)
    client.tls_set(str(settings.ca_file), certfile=str(settings.certificate_file))
    client.connect(settings.host, settings.port)
    client.loop_start()
    properties = Properties(PacketTypes.PUBLISH)
    properties.ResponseTopic = _topic("kitchen", "inbox/logits")
    with ears(fleet.coordinator(), "coordinator", _topic("+", "#")) as coordinator:
        client.publish(_topic("asker", "want"), b"question", qos=1, properties=properties)
        got = coordinator.next()
    client.disconnect()
    client.loop_stop()
    assert got == Received(_topic("asker", "want"), b"question")  # nothing of it reaches the app


def _identity(fleet: RunningFleet, authority: Authority, name: str, now: datetime):
    key = new_key()
    path = fleet.folder / f"{name}-{now.timestamp()}.pem"
    certificate = authority.issue(own_request(name, key), "device", now)
    path.write_bytes(private_key_to_pem(key) + certificate)
    return fleet.broker_settings(path)


def _is_refused(settings: BrokerSettings, name: str = "somebody") -> bool:
    link = MqttLink(settings, name, on_message=lambda _message: None)
    try:
        link.start(timeout_s=0.7)
    except BrokerError:
        return True
    link.stop()
    return False


def test_nobody_without_a_good_certificate_of_this_fleet_gets_in(fleet):
    now = datetime.now(UTC)
    issuing = issuing_authority(fleet.fleet)
    stranger = Authority.new_root("fedpt root home", now).new_issuing("fedpt issuing home", now)
    expired = _identity(fleet, issuing, "late", now - timedelta(days=MEMBER_DAYS + 1))
    assert _is_refused(fleet.broker_settings(None)), "no certificate"
    assert _is_refused(expired), "expired"
    assert _is_refused(_identity(fleet, stranger, "kitchen", now)), "foreign authority"
    assert not _is_refused(_identity(fleet, issuing, "early", now)), "a good one gets in"
    plain = BrokerSettings(host="127.0.0.1", port=fleet.fleet.record.broker_port)
    assert _is_refused(plain), "without TLS"


def test_tls_1_2_is_refused(fleet):
    settings = fleet.enrol("oldtls")
    context = ssl.create_default_context(cafile=settings.ca_file)
    context.load_cert_chain(settings.certificate_file)
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    address = (settings.host, settings.port)
    with socket.create_connection(address) as raw, pytest.raises(ssl.SSLError, match="version"):
        context.wrap_socket(raw, server_hostname="127.0.0.1")


def test_a_broker_of_another_fleet_is_not_believed_by_a_device(fleet, tmp_path):
    now = datetime.now(UTC)
    settings = fleet.enrol("careful")
    (tmp_path / "other.pem").write_bytes(Authority.new_root("other", now).certificate_pem)
    other = settings.model_copy(update={"ca_file": tmp_path / "other.pem"})
    assert _is_refused(other, "careful")
    elsewhere = settings.model_copy(update={"host": "localhost"})  # a name it is not certified for
    assert _is_refused(elsewhere, "careful")


def test_a_removed_device_is_cut_off_while_it_is_connected_and_does_not_come_back(fleet):
    settings = fleet.enrol("lost")
    with (
        ears(fleet.coordinator(), "coordinator", _topic("lost", "#")) as coordinator,
        ears(settings, "lost", _topic("lost", "inbox/#"), "fedpt/v1/home/coordinator/#") as lost,
    ):
        _say(lost, _topic("lost", "offer"), "before")
        assert coordinator.next().payload == b"before"
        saved = SavedSession(settings)
        key = fleet.fleet.signing_key("operator", PASSPHRASE)
        reply = call_service(fleet.fleet, key, "remove", name="lost")
        assert "removed" in {one.state for one in reply.members if one.name == "lost"}
        fleet.reload_broker()
        _say(lost, _topic("lost", "offer"), "after")
        _say(coordinator, _topic("lost", "inbox/receipt"), "for the lost")
        _say(coordinator, "fedpt/v1/home/coordinator/round", "for all")
        assert lost.hears_nothing()
        assert coordinator.next().topic == _topic("lost", "inbox/receipt")  # its own, not "after"
    assert _is_refused(settings, "lost")
    assert not saved.connects(), "resuming a TLS session does not skip the look at the certificate"


class SavedSession:
    """A TLS session that a device has kept, to resume it without showing its certificate again."""

    def __init__(self, settings: BrokerSettings) -> None:
        self._address = (settings.host, settings.port)
        self._context = ssl.create_default_context(cafile=settings.ca_file)
        self._context.load_cert_chain(settings.certificate_file)
        self._session: ssl.SSLSession | None = None
        assert self.connects()

    def connects(self) -> bool:
        """Whether the broker accepts an MQTT connection in this session."""
        try:
            with (
                socket.create_connection(self._address) as raw,
                self._context.wrap_socket(
                    raw, server_hostname="127.0.0.1", session=self._session
                ) as tls,
            ):
                tls.sendall(_CONNECT)
                is_accepted = tls.recv(4)[:1] == _CONNECT_ACCEPTED
                self._session = tls.session  # with TLS 1.3 it comes after the handshake
                return is_accepted
        except OSError:
            return False


def test_a_token_works_once_and_the_second_board_is_told(fleet, tmp_path):
    settings = fleet.device_settings("twice")
    token = fleet.token("twice")
    settings.enrolment.token_file.write_text(token)
    ensure_identity(settings)
    assert not settings.enrolment.token_file.exists(), "a used token is not left lying about"
    second = settings.model_copy(
        update={
            "broker": settings.broker.model_copy(
                update={"certificate_file": tmp_path / "identity.pem"}
            )
        }
    )
    second.enrolment.token_file.write_text(token)
    with pytest.raises(EnrolmentError, match="the token for 'twice' was used already"):
        ensure_identity(second)


def test_an_expired_token_or_none_is_one_clear_line(fleet):
    settings = fleet.device_settings("tardy")
    with pytest.raises(EnrolmentError, match=r"no token .*fedpt fleet add tardy --renew-token"):
        ensure_identity(settings)
    settings.enrolment.token_file.write_text(fleet.token("tardy", life_h=-2.0))
    with pytest.raises(EnrolmentError, match=r"expired 2\.0 hours ago"):
        ensure_identity(settings)


def test_a_certificate_is_renewed_over_https_and_the_connection_uses_it(fleet, monkeypatch):
    settings = fleet.device_settings("steady")
    settings.enrolment.token_file.write_text(fleet.token("steady"))
    ensure_identity(settings)
    before = settings.broker.certificate_file.read_bytes()
    with ears(settings.broker, "steady", _topic("steady", "inbox/#")) as steady:
        keeper = IdentityKeeper(settings, on_renewed=steady.link.reload_certificate)
        assert keeper.renew_if_due() is False
        monkeypatch.setattr("fedpt.certificates._RENEW_WHEN_LEFT", 1.1)
        assert keeper.renew_if_due() is True
    assert settings.broker.certificate_file.read_bytes() != before
    assert not _is_refused(settings.broker, "steady")


@pytest.mark.parametrize(
    ("path", "body", "status"),
    [
        ("enrol", b"", 400),
        ("enrol", b"\x81" * 1000, 400),
        ("renew", b"\xff", 400),
        ("operator", b"{}", 400),
        ("enrol", b"x" * 100_000, 413),
        ("nothing", b"", 404),
    ],
)
def test_nonsense_over_https_is_refused_and_the_service_lives(fleet, path, body, status):
    url = f"https://127.0.0.1:{fleet.fleet.record.enrolment_port}"
    context = ssl.create_default_context(cafile=fleet.broker_settings(None).ca_file)
    with httpx.Client(verify=context, trust_env=False) as client:
        assert client.post(f"{url}/{path}", content=body).status_code == status
        assert client.get(f"{url}/health").text == "ok"


def test_no_secret_is_in_any_log(fleet):
    token = fleet.token("quiet")
    settings = fleet.device_settings("quiet")
    settings.enrolment.token_file.write_text(token)
    ensure_identity(settings)
    everything = fleet.log("enrolment") + fleet.log("broker")
    assert "enrolled" in everything
    for secret in (token, token[:40], PASSPHRASE, "PRIVATE KEY"):
        assert secret not in everything
