"""Asks the enrolment service over HTTPS, and keeps the board's certificate fresh.

What is asked for and kept is `edge_runtime.identity`'s.
"""

import logging
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Final

import httpx

from edge_runtime.identity import Identity
from edge_runtime.settings import DeviceSettings
from fedpt.drivers.enrolment_service import call
from fedpt.enrolment import CertificateReply
from fedpt.errors import EnrolmentError, FedptError, SettingsError
from fedpt.wire.messages import Message

_logger = logging.getLogger(__name__)

_RETRY_S: Final = 2.0
_LOOK_EVERY_S: Final = 3600.0
_LARGEST_REPLY: Final = 64 * 1024


def ensure_identity(settings: DeviceSettings) -> None:
    """Enrol this board if it has no certificate that is good now, or was given a new token.

    The service is waited for a little only: whoever started us starts us again.

    Raises:
        EnrolmentError: The service does not answer, or refuses us, or the token is missing.
        SettingsError: Enrolment is asked for without the files it needs.
    """
    if settings.enrolment is None:
        return
    identity = identity_of(settings)
    if settings.enrolment.token_file.exists() and identity.need(datetime.now(UTC)) != "enrol":
        _try_new_token(settings, identity)
        return
    end = time.monotonic() + settings.connect_timeout_s
    while identity.need(datetime.now(UTC)) == "enrol":
        try:
            enrol(settings, identity)
        except httpx.TransportError as error:
            if time.monotonic() > end:
                raise EnrolmentError(
                    f"no answer from the enrolment service, {settings.enrolment.url}: {error};"
                    " are host and port right, and this board's clock?"
                ) from error
            _logger.warning("the enrolment service does not answer: %s", error)
            time.sleep(_RETRY_S)


def identity_of(settings: DeviceSettings) -> Identity:
    """The identity that these settings name.

    Raises:
        SettingsError: They name none.
    """
    if settings.broker.certificate_file is None or settings.broker.ca_file is None:
        raise SettingsError("enrolment needs broker.ca_file and broker.certificate_file")
    return Identity(settings.broker.certificate_file, settings.name)


def enrol(settings: DeviceSettings, identity: Identity) -> None:
    """Exchange the token for a certificate; the token is deleted when it has done its work.

    Raises:
        EnrolmentError: There is no token, or the service refuses it.
        httpx.TransportError: The service cannot be reached.
    """
    assert settings.enrolment is not None  # the caller's to know
    path = settings.enrolment.token_file
    try:
        token = path.read_text().strip()
    except OSError as error:
        raise EnrolmentError(
            f"this board has no certificate and no token ({path}: {error.strerror}); make one:"
            f" fedpt fleet add {settings.name} --renew-token"
        ) from None
    identity.take(_ask(settings, "enrol", identity.enrolment_request(token)))
    path.unlink(missing_ok=True)
    _logger.info("enrolled", extra={"device": settings.name})


def _try_new_token(settings: DeviceSettings, identity: Identity) -> None:
    """A board that was removed, say, comes back by it; a used one leaves the board as it was."""
    try:
        enrol(settings, identity)
    except (EnrolmentError, httpx.TransportError) as error:
        _logger.warning("the new token did not help, the old identity stays: %s", error)


class IdentityKeeper:
    """Renews the certificate long before it ends, on a thread of its own."""

    def __init__(self, settings: DeviceSettings, *, on_renewed: Callable[[], None]) -> None:
        self._settings = settings
        self._on_renewed = on_renewed
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._keep, name="identity", daemon=True)

    def start(self) -> None:
        """Begin, if this board was enrolled."""
        if self._settings.enrolment is not None:
            self._thread.start()

    def stop(self) -> None:
        """End soon."""
        self._stopped.set()

    def renew_if_due(self) -> bool:
        """One look: whether a new certificate came.

        Raises:
            FedptError: The service refuses it, or it cannot be kept.
            httpx.TransportError: The service cannot be reached.
        """
        identity = identity_of(self._settings)
        if identity.need(datetime.now(UTC)) != "renew":
            return False
        identity.take(_ask(self._settings, "renew", identity.renewal_request()))
        _logger.info("certificate renewed", extra={"device": self._settings.name})
        self._on_renewed()
        return True

    def _keep(self) -> None:
        while not self._stopped.is_set():
            try:
                self.renew_if_due()
            except (FedptError, httpx.HTTPError) as error:  # it goes on with the old one
                _logger.warning("certificate not renewed: %s", error)
            self._stopped.wait(_LOOK_EVERY_S)


def _ask(settings: DeviceSettings, path: str, message: Message) -> CertificateReply:
    enrolment, ca_file = settings.enrolment, settings.broker.ca_file
    assert enrolment is not None  # the caller's to know
    assert ca_file is not None  # `identity_of` looked
    return call(
        f"{enrolment.url.rstrip('/')}/{path}",
        message,
        CertificateReply,
        ca_file=ca_file,
        largest_reply=_LARGEST_REPLY,
    )
