"""The operator's calls to the enrolment service: remove a name, list all."""

import time
from typing import Literal

import httpx

from deploy.fleet.fleet_folder import Fleet
from fedpt.drivers.enrolment_service import call
from fedpt.enrolment import OperatorReply, Statement, sign_statement
from fedpt.errors import EnrolmentError
from fedpt.signing import SigningKey


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
    url = f"{fleet.record.enrolment_url}/operator"
    authority = fleet.folder / "authority" / "root-ca.pem"
    signed = sign_statement(statement, key)
    try:
        return call(url, signed, OperatorReply, ca_file=authority)
    except httpx.HTTPError as error:
        raise EnrolmentError(f"no answer from the enrolment service, {url}: {error}") from error
