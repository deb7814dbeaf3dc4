"""Mosquitto's configuration for a fleet: TLS 1.3, client certificates, access by name.

The common name of a certificate is user name and client id, whatever the client says, so the
access rules (`coordinator.enrolment.broker_files`) hold for whoever owns the certificate's key.
"""

from pathlib import Path

from fedpt.wire.codec import MAX_MESSAGE_BYTES


def broker_config(*, files: Path, written: Path, state: Path, host: str, port: int) -> str:
    """The text of mosquitto.conf; works from Mosquitto 2.0.11 on.

    Args:
        files: Folder of certificate, key and authorities.
        written: Folder that the enrolment service writes access rules and revocations to.
        state: Folder for what must outlive a restart.
        host: Address to listen on; empty: all.
        port: TCP port.
    """
    return f"""\
# A fleet's broker. Written by fedpt fleet init.
per_listener_settings false
persistence true
persistence_location {state}/

# Nobody without a certificate of this fleet; its common name is user name and client id.
listener {port}{f" {host}" if host else ""}
allow_anonymous false
cafile {files}/ca.pem
certfile {files}/broker.pem
keyfile {files}/broker.key
crlfile {written}/crl.pem
tls_version tlsv1.3
require_certificate true
use_identity_as_username true
use_username_as_clientid true
acl_file {written}/acl

# Small messages at once: without it an answer takes 40 ms more.
set_tcp_nodelay true

# What one board can make the broker keep.
max_packet_size {MAX_MESSAGE_BYTES + 1024}
max_inflight_messages 64
max_queued_messages 1000
max_queued_bytes 67108864
memory_limit 1073741824
max_connections 2000
persistent_client_expiration 14d

log_dest stderr
log_type error
log_type warning
log_type notice
"""
