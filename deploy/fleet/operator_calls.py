"""The operator's calls to the enrolment service: remove a name, list all."""

import ssl
import time
from typing import Final, Literal

import httpx
import msgspec

from deploy.fleet.fleet_folder import Fleet
from fedpt.enrolment import OperatorReply, Refusal, Statement, sign_statement
from fedpt.errors import EnrolmentError
from fedpt.signing import SigningKey

_TIMEOUT_S: Final = 20.0
_ERROR: Final = 400


def call_service(
    fleet: Fleet,
    key: SigningKey,
    action: Literal["remove", "list"],
    *,
    name: str = "",
    serials: tuple[str, ...] = (),
) -> OperatorReply:
    """Say it, signed, to the fleet's enrolment service.

    Raises:
        EnrolmentError: The service cannot be reached, or refuses.
    """
    statement = Statement(action=action, at_unix_s=time.time(), name=name, serials=serials)
    url = f"https://{fleet.record.hosts[0]}:{fleet.record.enrolment_port}/operator"
    authority = fleet.folder / "authority" / "root-ca.pem"
    body = msgspec.msgpack.encode(sign_statement(statement, key))
    try:
        with httpx.Client(
            verify=ssl.create_default_context(cafile=authority), timeout=_TIMEOUT_S, trust_env=False
        ) as client:
            response = client.post(url, content=body)
    except httpx.HTTPError as error:
        raise EnrolmentError(f"no answer from the enrolment service, {url}: {error}") from error
    try:
        if response.status_code >= _ERROR:
            refusal = msgspec.msgpack.decode(response.content, type=Refusal)
            raise EnrolmentError(f"the enrolment service says: {refusal.reason}")
        return msgspec.msgpack.decode(response.content, type=OperatorReply)
    except (msgspec.MsgspecError, ValueError, RecursionError):
        raise EnrolmentError(
            f"{url} answered HTTP {response.status_code}, nothing of an enrolment service"
        ) from None
