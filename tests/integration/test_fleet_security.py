"""Attacks on a fleet's server: real broker, its own configuration, the real enrolment service."""

import base64
import queue
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
import msgspec
import pytest
from paho.mqtt.client import Client, MQTTv5
from paho.mqtt.enums import CallbackAPIVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from deploy.fleet.adding import issuing_authority
from deploy.fleet.operator_calls import call_service
from deploy.fleet.rotating import rotate_authority
from edge_runtime.drivers.enrolment import IdentityKeeper, ensure_identity
from edge_runtime.identity import Identity
from fedpt.certificates import MEMBER_DAYS, Authority, new_key, own_request, read_certificate
from fedpt.drivers.enrolment_service import call
from fedpt.drivers.mqtt import MqttLink, Publication, Received
from fedpt.drivers.tls import broker_context
from fedpt.enrolment import (
    CertificateReply,
    OperatorReply,
    Statement,
    TokenClaims,
    make_token,
    sign_statement,
)
from fedpt.errors import BrokerError, EnrolmentError
from fedpt.settings import BrokerSettings
from fedpt.signing import SigningKey, private_key_to_pem
from tests.integration.running_fleet import PASSPHRASE, RunningFleet

pytestmark = [
    pytest.mark.broker,
    pytest.mark.slow,
    # paho leaves the socket of a handshake that failed to the garbage collector
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]

_CONNECT = bytes([0x10, 16, 0, 4, *b"MQTT", 5, 2, 0, 60, 0, 0, 3, *b"abc"])
_ACCEPTED = bytes([0x20, 3, 0, 0, 0])

_WAIT_S = 20.0
"""For what must come; a machine may be busy."""

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
        self.link.start(timeout_s=_WAIT_S)

    def next(self) -> Received:
        return self._heard.get(timeout=_WAIT_S)

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
    one.link.publish_and_wait(Publication(topic, text.encode(), qos=qos), timeout_s=_WAIT_S)


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
        _say(coordinator, _topic("spy", "inbox/receipt"), "its own")
        assert spy.next().payload == b"its own", "the first that it hears"


def test_a_client_id_of_another_device_does_not_push_it_off_the_broker(fleet):
    with (
        ears(fleet.coordinator(), "coordinator", _topic("+", "offer")) as coordinator,
        ears(fleet.enrol("victim"), "victim", _topic("victim", "inbox/#")) as victim,
        ears(fleet.enrol("thief"), "victim", _topic("+", "inbox/#")) as thief,
    ):
        _say(thief, _topic("victim", "offer"), "forged")
        _say(victim, _topic("victim", "offer"), "true")
        assert coordinator.next().payload == b"true"
        _say(coordinator, _topic("victim", "inbox/receipt"), "for the victim")
        assert victim.next().payload == b"for the victim"
        _say(coordinator, _topic("thief", "inbox/receipt"), "its own")
        assert thief.next().payload == b"its own", "the first that it hears"
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


class Caller:
    """Calls the broker as a device does, but by hand: an answer is seen, not waited for.

    A second call resumes the TLS session of the first one.
    """

    def __init__(self, settings: BrokerSettings) -> None:
        self._address = (settings.host, settings.port)
        self._context = broker_context(settings)
        self._session: ssl.SSLSession | None = None

    def is_let_in(self) -> bool:
        """Whether the broker accepts an MQTT connection."""
        try:
            with (
                socket.create_connection(self._address, timeout=_WAIT_S) as raw,
                self._wrapped(raw) as wire,
            ):
                wire.sendall(_CONNECT)
                answer = wire.recv(len(_ACCEPTED))
                if isinstance(wire, ssl.SSLSocket):
                    self._session = wire.session  # with TLS 1.3 it comes after the handshake
                return answer[:1] == _ACCEPTED[:1] and answer[3:4] == _ACCEPTED[3:4]
        except (ssl.SSLError, ConnectionError):
            return False

    def _wrapped(self, raw: socket.socket) -> socket.socket:
        if self._context is None:
            return raw
        return self._context.wrap_socket(
            raw, server_hostname=self._address[0], session=self._session
        )


def _is_refused(settings: BrokerSettings) -> bool:
    return not Caller(settings).is_let_in()


def test_nobody_without_a_good_certificate_of_this_fleet_gets_in(fleet):
    now = datetime.now(UTC)
    issuing = issuing_authority(fleet.fleet)
    same_name = read_certificate(issuing.certificate_pem).name
    stranger = Authority.new_root("fedpt root home", now).new_issuing(same_name, now)
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
    elsewhere = settings.model_copy(update={"host": "localhost"})  # a name it is not certified for
    for doubtful in (other, elsewhere):
        assert _is_refused(doubtful)
        link = MqttLink(doubtful, "careful", on_message=lambda _message: None)
        with pytest.raises(BrokerError):
            link.start(timeout_s=1)


@contextmanager
def _pretending_to_be_the_broker(certificate: Path, key: Path) -> Iterator[int]:
    """Somebody in the network who lets one caller in; the port."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            caller, _ = listener.accept()
            with suppress(OSError), context.wrap_socket(caller, server_side=True) as wire:
                wire.recv(len(_CONNECT))
                wire.sendall(_ACCEPTED)

        thread = threading.Thread(target=serve)
        thread.start()
        yield listener.getsockname()[1]
        thread.join(_WAIT_S)


def test_a_certificate_is_good_for_its_own_purpose_only(fleet):
    """A device's certificate makes no broker, even with the broker's address in it."""
    settings = fleet.enrol("buyer")
    key, path = new_key(), fleet.folder / "pretender.pem"
    certificate = issuing_authority(fleet.fleet).issue(
        own_request("pretender", key), "device", datetime.now(UTC), hosts=["127.0.0.1"]
    )
    path.write_bytes(private_key_to_pem(key) + certificate)
    broker = fleet.fleet.server / "mosquitto" / "broker.pem"
    for server, is_let_in in ((broker, True), (path, False)):
        its_key = server.with_suffix(".key") if server == broker else server
        with _pretending_to_be_the_broker(server, its_key) as port:
            caller = Caller(settings.model_copy(update={"port": port}))
            assert caller.is_let_in() is is_let_in
    as_client = fleet.broker_settings(broker).model_copy(
        update={"key_file": broker.with_suffix(".key")}
    )
    assert _is_refused(as_client)


def test_a_removed_device_is_cut_off_while_it_is_connected_and_does_not_come_back(fleet):
    settings = fleet.enrol("lost")
    with (
        ears(fleet.coordinator(), "coordinator", _topic("lost", "#")) as coordinator,
        ears(settings, "lost", _topic("lost", "inbox/#"), "fedpt/v1/home/coordinator/#") as lost,
    ):
        _say(lost, _topic("lost", "offer"), "before")
        assert coordinator.next().payload == b"before"
        saved = Caller(settings)
        assert saved.is_let_in()
        reply = call_service(fleet.fleet, fleet.operator_key(), "remove", name="lost")
        assert "removed" in {one.state for one in reply.members if one.name == "lost"}
        fleet.reload_broker()
        _say(lost, _topic("lost", "offer"), "after")
        _say(coordinator, _topic("lost", "inbox/receipt"), "for the lost")
        _say(coordinator, "fedpt/v1/home/coordinator/round", "for all")
        assert lost.hears_nothing()
        assert coordinator.next().topic == _topic("lost", "inbox/receipt")  # its own, not "after"
    assert _is_refused(settings)
    assert not saved.is_let_in(), "resuming a TLS session does not skip the look at the certificate"


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


def _foreign_token(name: str) -> str:
    """One as another fleet of the same name makes it."""
    now = time.time()
    claims = TokenClaims(
        federation="home", name=name, board="rpi5", nonce="0" * 32,
        issued_unix_s=now, expires_unix_s=now + 3600,
    )  # fmt: skip
    return make_token(claims, SigningKey.generate())


def _with_a_bit_changed(token: str) -> str:
    raw = bytearray(base64.urlsafe_b64decode(token + "=" * (-len(token) % 4)))
    raw[len(raw) // 2] ^= 1
    return base64.urlsafe_b64encode(raw).decode().rstrip("=")


def test_a_token_for_another_name_of_another_fleet_or_changed_is_refused(fleet):
    settings = fleet.device_settings("wishful")
    for token, says in (
        (fleet.token("somebody"), "a token for 'somebody' with a request for 'wishful'"),
        (_foreign_token("wishful"), "not a token of this fleet's operator"),
        (_with_a_bit_changed(fleet.token("wishful")), "not a token of this fleet's operator"),
    ):
        settings.enrolment.token_file.write_text(token)
        with pytest.raises(EnrolmentError, match=says):
            ensure_identity(settings)
        assert not settings.broker.certificate_file.exists()


def test_a_lost_card_opens_nothing_after_a_newer_token_was_used_or_its_name_was_removed(fleet):
    for name in ("replaced", "absent"):
        lost = fleet.token(name)
        if name == "replaced":
            fleet.enrol(name)
        else:
            call_service(fleet.fleet, fleet.operator_key(), "remove", name=name)
        settings = fleet.device_settings(name)
        settings.broker.certificate_file.unlink(missing_ok=True)
        settings.enrolment.token_file.write_text(lost)
        with pytest.raises(EnrolmentError, match=r"a newer token for|was removed after this token"):
            ensure_identity(settings)


def test_a_removed_board_comes_back_by_a_new_token_and_a_used_one_changes_nothing(fleet):
    settings = fleet.device_settings("prodigal")
    fleet.enrol("prodigal")
    call_service(fleet.fleet, fleet.operator_key(), "remove", name="prodigal")
    fleet.reload_broker()
    assert _is_refused(settings.broker)
    token = fleet.token("prodigal")
    for _ in range(2):
        settings.enrolment.token_file.write_text(token)
        ensure_identity(settings)
        fleet.reload_broker()
        assert not _is_refused(settings.broker)


def test_a_new_issuing_authority_lets_in_nobody_of_the_old_one(tmp_path):
    with RunningFleet(tmp_path) as fleet:
        before = fleet.enrol("kitchen")
        assert not _is_refused(before)
        rotate_authority(fleet.fleet, PASSPHRASE)
        fleet.restart()
        assert _is_refused(before)
        assert not _is_refused(fleet.coordinator())
        fleet.device_settings("kitchen").enrolment.token_file.write_text(fleet.token("kitchen"))
        ensure_identity(fleet.device_settings("kitchen"))
        assert not _is_refused(before)


def test_a_stolen_certificate_without_its_key_is_not_renewed(fleet, tmp_path):
    victim = fleet.enrol("robbed").certificate_file
    theirs = Identity(victim, "robbed").renewal_request()
    wish = Identity(tmp_path / "thief.pem", "robbed").enrolment_request("-").request
    stolen = msgspec.structs.replace(theirs, request=wish)
    url = f"https://127.0.0.1:{fleet.fleet.record.enrolment_port}/renew"
    with pytest.raises(EnrolmentError, match="not signed by the certificate's holder"):
        call(url, stolen, CertificateReply, ca_file=fleet.broker_settings(None).ca_file)


def test_the_operators_old_statement_is_worth_nothing(fleet):
    url = f"https://127.0.0.1:{fleet.fleet.record.enrolment_port}/operator"
    authority = fleet.broker_settings(None).ca_file

    def say(statement):
        return call(url, statement, OperatorReply, ca_file=authority)

    def removal(age_s):
        statement = Statement(action="remove", name="again", at_unix_s=time.time() - age_s)
        return sign_statement(statement, fleet.operator_key())

    fleet.enrol("again").certificate_file.unlink()
    with pytest.raises(EnrolmentError, match="made 301 s ago"):
        say(removal(301))
    overheard = removal(0)
    say(overheard)
    settings = fleet.enrol("again")
    with pytest.raises(EnrolmentError, match="was enrolled after this statement was made"):
        say(overheard)
    fleet.reload_broker()
    assert not _is_refused(settings)


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
    assert not _is_refused(settings.broker)


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
