"""TLS as everybody here speaks it to the broker, and to services of the same fleet."""

import ssl
from pathlib import Path

from fedpt.settings import BrokerSettings


def broker_context(broker: BrokerSettings) -> ssl.SSLContext | None:
    """Verifies the broker's certificate and host name, and shows ours; None: no TLS is wanted.

    Raises:
        OSError: A file cannot be read or used (`ssl.SSLError` is one).
    """
    if broker.ca_file is None:
        return None
    context = authority_context(broker.ca_file)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    load_identity(context, broker)
    return context


def load_identity(context: ssl.SSLContext, broker: BrokerSettings) -> None:
    """Show our certificate from the next connection on.

    Its file may hold the key too, so that both change in one step.

    Raises:
        OSError: A file cannot be read or used.
    """
    if broker.certificate_file is not None:
        context.load_cert_chain(broker.certificate_file, broker.key_file)


def authority_context(ca_file: Path) -> ssl.SSLContext:
    """Believes only whom this authority vouches for.

    Raises:
        OSError: The file cannot be read or used.
    """
    return ssl.create_default_context(cafile=ca_file)
