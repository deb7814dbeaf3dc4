"""Replaces keys and certificates: of releases, of the coordinator's adapters, of the services."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Final, Literal

from deploy.fleet.adding import issuing_authority
from deploy.fleet.creating import write_service_identities
from deploy.fleet.fleet_folder import Fleet
from deploy.fleet.release import make_release, stage
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


def rotate_services(fleet: Fleet) -> None:
    """New keys and certificates for broker, enrolment service, coordinator and its worker.

    Raises:
        FleetError: The issuing authority's key is not here.
        StorageError: They cannot be written.
    """
    write_service_identities(
        fleet.folder, fleet.record, issuing_authority(fleet), datetime.now(UTC)
    )


def _replaced(trust: Trust, which: str, new: PublicKey, *, keep: int) -> Trust:
    """The new key first, then those before it, `keep` in all; keys for other things stay."""
    is_adapter = which == "adapter"
    same = [one for one in trust.keys if (one.kinds == ["adapter"]) == is_adapter]
    others = [one for one in trust.keys if one not in same]
    adapter_only: list[Kind] = ["adapter"]
    kinds = same[0].kinds if same else adapter_only
    return Trust([TrustedKey(new, kinds), *same[: keep - 1], *others])
