"""Looks at an MQTT broker from outside to inside: port, TLS, login. For the doctors.

A login takes the connection of whoever is logged in under the same name, so it is only tried when
our own daemon does not run; up to the TLS handshake nobody is disturbed.
"""

import socket
import ssl
from collections.abc import Iterator
from typing import Final

from fedpt.doctor import Finding, fault, ok
from fedpt.drivers.tls import broker_context
from fedpt.errors import BrokerError
from fedpt.settings import BrokerSettings

_TIMEOUT_S: Final = 5.0
_VERDICT_S: Final = 1.0
"""With TLS 1.3 a server judges our certificate after the handshake: it has so long to object."""

_TLS_ADVICE: Final = {
    "certificate_revoked": ("our certificate is revoked", "ask the operator for a new token"),
    "revoked": ("our certificate is revoked", "ask the operator for a new token"),
    "certificate_expired": ("our certificate has expired", "renew it"),
    "unknown_ca": ("it does not know who issued our certificate", "is it of this federation?"),
    "certificate_required": (
        "it wants a certificate",
        "set broker.certificate_file and broker.key_file",
    ),
    "certificate_unknown": ("it does not accept our certificate", "is it of this federation?"),
    "hostname mismatch": (
        "its certificate is for another host name",
        "set broker.host to the name in it",
    ),
    "ip address mismatch": (
        "its certificate is for another address",
        "set broker.host to the name in it",
    ),
    "has expired": ("its certificate has expired, or our clock is wrong", "timedatectl"),
    "not yet valid": ("its certificate is not valid yet, or our clock is wrong", "timedatectl"),
    "verify failed": ("broker.ca_file does not vouch for it", "is broker.ca_file the right root?"),
    "wrong_version_number": ("it does not speak TLS at this port", "set broker.port"),
}
"""Parts of OpenSSL's messages, the more telling first: what they mean, and what to do."""


def judge_tls_error(where: str, reason: str, *, who: str = "broker") -> Finding:
    """What a failed TLS handshake means."""
    folded = reason.lower()
    for part, (meaning, advice) in _TLS_ADVICE.items():
        if part in folded or part.replace("_", " ") in folded:
            return fault(f"{who}: TLS with {where}: {meaning}", advice)
    advice = f"openssl s_client -connect {where}"
    return fault(f"{who}: TLS with {where} failed: {reason}", advice)


def check_broker(broker: BrokerSettings, client_id: str, *, may_log_in: bool) -> Iterator[Finding]:
    """Port, TLS and login, as far as they are reached.

    Args:
        broker: Where, and with what.
        client_id: Who logs in.
        may_log_in: False: somebody of that name may be logged in; leave it alone.
    """
    reached = check_port(broker.host, broker.port)
    yield reached
    if reached.level == "fault":
        return
    if broker.ca_file is not None:
        secured = check_tls(broker)
        yield secured
        if secured.level == "fault":
            return
    if may_log_in:
        yield _check_login(broker, client_id)


def check_port(host: str, port: int, *, who: str = "broker") -> Finding:
    """Whether somebody listens there."""
    where = f"{host}:{port}"
    try:
        socket.create_connection((host, port), timeout=_TIMEOUT_S).close()
    except socket.gaierror as error:
        what = f"{who}: no address for the name {host!r}: {error.strerror}"
        return fault(what, f"getent hosts {host}; is the network up?")
    except OSError as error:
        reason = error.strerror or str(error)
        return fault(f"{who}: {where} cannot be reached: {reason}", f"is it running? ping {host}")
    return ok(f"{who}: {where} can be reached")


def check_tls(broker: BrokerSettings, *, who: str = "broker") -> Finding:
    """Whether both sides accept each other's certificates; closes before any login."""
    where = f"{broker.host}:{broker.port}"
    try:
        context = broker_context(broker)  # as the daemons' connection
    except (OSError, ValueError) as error:  # ssl.SSLError is an OSError
        files = f"{broker.ca_file}, {broker.certificate_file}, {broker.key_file}"
        return fault(f"{who}: cannot use {files}: {error}", "ls -l them")
    assert context is not None  # TLS is what is asked about
    try:
        with (
            socket.create_connection((broker.host, broker.port), timeout=_TIMEOUT_S) as plain,
            context.wrap_socket(plain, server_hostname=broker.host) as secured,
        ):
            version = secured.version()
            secured.settimeout(_VERDICT_S)
            if not _is_kept(secured):
                return fault(f"{who}: {where} closes after TLS", "look into the broker's log")
    except ssl.SSLError as error:
        return judge_tls_error(where, str(error), who=who)
    except OSError as error:
        return judge_tls_error(where, error.strerror or str(error), who=who)
    return ok(f"{who}: {version} with {where}")


def _is_kept(secured: ssl.SSLSocket) -> bool:
    """Whether the server waits for our login rather than ending the connection."""
    try:
        return secured.recv(1) != b""
    except TimeoutError:
        return True


def _check_login(broker: BrokerSettings, client_id: str) -> Finding:
    from fedpt.drivers.mqtt import MqttLink

    link = MqttLink(broker, client_id, on_message=lambda _message: None)
    try:
        link.start(timeout_s=_TIMEOUT_S)
    except BrokerError as error:
        return fault(f"broker: {error}", "look into the broker's log: journalctl -u mosquitto")
    link.stop()
    return ok(f"broker: it accepts {client_id}")
