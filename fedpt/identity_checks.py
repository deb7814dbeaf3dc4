"""What both doctors look at of a certificate and its key: whose, until when, vouched for, private.

Pure judgements (`judge_…`), and the looks that hand them what the files say.
"""

import stat
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Final

from fedpt.certificate_file import key_fits, leads_to_authority, read_facts
from fedpt.doctor import Finding, fault, ok, warning
from fedpt.settings import BrokerSettings

if TYPE_CHECKING:
    from fedpt.certificates import CertificateFacts

_SOON: Final = timedelta(days=14)
_OF_OTHERS: Final = stat.S_IRWXG | stat.S_IRWXO


def judge_certificate(
    facts: "CertificateFacts", name: str | None, now: datetime, *, renew: str
) -> Finding:
    """Whether a certificate can be used now, by `name`.

    Args:
        facts: What it says.
        name: The MQTT client id that it must be for; None: any.
        now: An aware time.
        renew: How to get another.
    """
    day = facts.not_after.date().isoformat()
    if name is not None and facts.name != name:
        return fault(f"certificate: it is for {facts.name!r}, not for {name!r}", renew)
    if now < facts.not_before:
        what = f"certificate: not valid before {facts.not_before:%Y-%m-%d %H:%M} UTC"
        return fault(what, "the clock may be wrong: timedatectl")
    if now > facts.not_after:
        return fault(f"certificate: it ended on {day}", renew)
    if facts.not_after - now < _SOON:
        return warning(f"certificate: it ends on {day}", renew)
    return ok(f"certificate: {facts.name}, until {day}")


def judge_private(path: Path, mode: int) -> Finding:
    """Whether only its owner can read a key, password or token."""
    if mode & _OF_OTHERS:
        what = f"secret: others may read {path} (mode {stat.S_IMODE(mode):04o})"
        return fault(what, f"chmod 600 {path}")
    return ok(f"secret: {path} is its owner's alone")


def private_file(path: Path) -> Iterator[Finding]:
    """A secret file's mode."""
    try:
        yield judge_private(path, path.stat().st_mode)
    except OSError as error:
        yield fault(f"secret: cannot read {path}: {error.strerror}", f"ls -l {path}")


def identity(broker: BrokerSettings, name: str | None, *, renew: str) -> Iterator[Finding]:
    """Certificate, key and authority, where the broker is asked with them.

    Raises:
        ArtifactError: A file is missing or damaged: what the doctor then tells.
    """
    certificate, key, authority = broker.certificate_file, broker.key_file, broker.ca_file
    if broker.password_file is not None:
        yield from private_file(broker.password_file)
    if certificate is None or authority is None:
        return
    if not certificate.exists():
        yield fault(f"certificate: there is none at {certificate}", renew)
        return
    yield judge_certificate(read_facts(certificate), name, datetime.now(UTC), renew=renew)
    if not leads_to_authority(certificate, authority):
        what = f"certificate: {authority} does not vouch for {certificate}"
        yield fault(what, f"{renew}; or put the federation's root certificate there")
    key = key or certificate  # one file may hold both
    yield from private_file(key)
    if key.exists() and not key_fits(certificate, key):
        yield fault(f"certificate: {key} is not the key of {certificate}", renew)
