"""Replaces keys and certificates: of releases, of adapters, of the services, of the authority."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Final, Literal

import msgspec

from deploy.fleet.adding import issuing_authority, ready_credentials, write_worker
from deploy.fleet.creating import write_issuing_authority, write_service_identities
from deploy.fleet.fleet_folder import DeviceRecord, Fleet
from deploy.fleet.release import make_release, stage
from fedpt.certificates import Authority
from fedpt.files import write_bytes
from fedpt.releases import Kind, Trust, TrustedKey
from fedpt.signing import PublicKey, SigningKey

_SECRET: Final = 0o600
_OF_OPERATOR: Final = 2
"""How many release keys are believed at a time: a board that was away for one rotation can still
check the next one."""


def rotate_signing_key(
    fleet: Fleet,
    which: Literal["release", "adapter"],
    passphrase: str,
    *,
    is_compromised: bool = False,
) -> Path:
    """Make a new key, and the release that tells boards to believe it, signed by the old one.

    Interrupted, it is to be done again: the old key is still believed and in its place.

    Args:
        fleet: Whose key.
        which: The operator's key for releases, or the coordinator's for adapters.
        passphrase: Of the operator's keys.
        is_compromised: Believe the old release key no more; a board that misses this release has
            to be set up anew.

    Returns:
        The release of keys, announced to all boards once it lies in the coordinator's folder.

    Raises:
        FleetError: The passphrase is wrong, or a key is missing.
        StorageError: Something cannot be written.
    """
    old = fleet.signing_key("release", passphrase)
    new = SigningKey.generate()
    trust = _replaced(fleet.trust(), which, new.public, keep=1 if is_compromised else _OF_OPERATOR)
    proposal = fleet.folder / "keys" / "next" / fleet.trust_file.name
    write_bytes(proposal, trust.to_json())
    release = make_release("keys", proposal, old, releases=fleet.releases)
    stage(release, 1.0)
    if which == "release":
        key_path, content = fleet.folder / "keys" / "release.key", new.to_pem(passphrase)
    else:
        key_path, content = fleet.server / "coordinator" / "adapter.key", new.to_pem()
    write_bytes(key_path, content, mode=_SECRET)
    write_bytes(fleet.server / "coordinator" / "trust.json", trust.to_json())
    write_bytes(fleet.trust_file, trust.to_json())
    proposal.unlink()
    return release


def rotate_services(fleet: Fleet) -> list[Path]:
    """New keys and certificates for broker, enrolment service, coordinator and all logit workers.

    Returns:
        The folders of the workers on other machines, to be copied there.

    Raises:
        FleetError: The issuing authority's key is not here.
        StorageError: They cannot be written.
    """
    write_service_identities(
        fleet.folder, fleet.record, issuing_authority(fleet), datetime.now(UTC)
    )
    workers = [one for one in fleet.devices() if one.role == "worker" and not one.is_removed]
    return [_renew_worker(fleet, one) for one in workers]


def rotate_authority(fleet: Fleet, passphrase: str) -> list[Path]:
    """Put the issuing authority out, of whose key a thief may have a copy, and make another.

    The broker refuses whoever the old one has vouched for: every board needs a new token.

    Returns:
        As `rotate_services`, which is a part of it.

    Raises:
        FleetError: The passphrase is wrong, or the root's key is not here.
        StorageError: Something cannot be written.
    """
    root = Authority.from_pem(
        fleet.read("authority/root-ca.pem"), fleet.read("authority/root-ca.key"), passphrase
    )
    write_issuing_authority(fleet.folder, fleet.record, root, datetime.now(UTC))
    return rotate_services(fleet)


def _renew_worker(fleet: Fleet, record: DeviceRecord) -> Path:
    """A new certificate; a removal still revokes the older ones too."""
    credentials = ready_credentials(fleet, record.name, record.board)
    folder = write_worker(fleet, credentials)
    serials = [*record.serials, *credentials.record.serials]
    fleet.write_device(msgspec.structs.replace(record, serials=serials))
    return folder


def _replaced(trust: Trust, which: str, new: PublicKey, *, keep: int) -> Trust:
    """The new key first, then those before it, `keep` in all; keys for other things stay."""
    is_adapter = which == "adapter"
    same = [one for one in trust.keys if (one.kinds == ["adapter"]) == is_adapter]
    others = [one for one in trust.keys if one not in same]
    adapter_only: list[Kind] = ["adapter"]
    kinds = same[0].kinds if same else adapter_only
    return Trust([TrustedKey(new, kinds), *same[: keep - 1], *others])
