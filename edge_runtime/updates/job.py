"""What the device daemon and its installing process say to each other, in a `fedpt.job_folder`."""

from importlib.metadata import version
from pathlib import Path

import msgspec

from edge_runtime.settings import DeviceSettings
from fedpt.releases import SignedManifest


class PrepareJob(msgspec.Struct, frozen=True, kw_only=True):
    """Fetch, check and try a release; see `installing.prepare`."""

    signed: SignedManifest
    source: str
    """A folder or a URL; empty: the files were delivered into the release's folder."""
    releases: str
    trust_file: str
    runtime: str
    small: str
    base_weights: str
    reserve_mb: int
    tolerance: float


class PrepareResult(msgspec.Struct, frozen=True, kw_only=True):
    """How it went; an empty fault: the release is complete."""

    fault: str = ""
    is_final: bool = False
    """Whether trying again would end the same way."""


def job_of(
    settings: DeviceSettings, signed: SignedManifest, source: str, *, base_weights: str
) -> PrepareJob:
    """The job of installing a release on this device; there must be release settings."""
    releases = settings.releases
    assert releases is not None  # the caller's precondition
    return PrepareJob(
        signed=signed,
        source=source,
        releases=str(releases.folder),
        trust_file=str(releases.trust_file),
        runtime=version("fedpt"),
        small=str(settings.small),
        base_weights=base_weights,
        reserve_mb=releases.reserve_mb,
        tolerance=releases.canary_tolerance,
    )


def job_folder(settings: DeviceSettings) -> Path:
    """Where jobs of installing lie."""
    return settings.state_dir / "installing"
