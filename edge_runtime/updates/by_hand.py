"""Installing a release from the command line: from a folder, on a stick say, or over HTTP."""

import threading
from pathlib import Path

import httpx
import msgspec

from edge_runtime.settings import DeviceSettings, ReleaseSettings
from edge_runtime.updates.fetching import new_client, require_url
from edge_runtime.updates.job import PrepareJob, job_folder, job_of
from edge_runtime.updates.preparer import Prepared, Preparer
from edge_runtime.updates.release_store import ReleaseStore
from edge_runtime.updates.trust import load_trust
from fedpt.errors import ArtifactError, BlobError, ReleaseError, SettingsError
from fedpt.gguf_file import read_gguf, weights_sha256
from fedpt.progress import OnProgress, Progress, ignore_progress
from fedpt.release_folder import read_signed, signed_manifest
from fedpt.releases import MANIFEST_FILE, SIGNATURE_FILE, Kind, SignedManifest, verify_manifest


def require_releases(settings: DeviceSettings) -> ReleaseSettings:
    """The settings of releases.

    Raises:
        SettingsError: There are none.
    """
    if settings.releases is None:
        raise SettingsError("this device takes no releases: its settings have no [releases]")
    return settings.releases


def install_by_hand(
    settings: DeviceSettings, source: str, *, on_progress: OnProgress = ignore_progress
) -> tuple[Kind, str]:
    """Fetch, check, try and switch; the running device, if any, goes on with what it has.

    Returns:
        The release's kind and name.

    Raises:
        SettingsError: This device takes no releases.
        ReleaseError: It must not or does not work.
        BlobError: It cannot be fetched.
        StorageError: The disk is full, say.
    """
    releases = require_releases(settings)
    store = ReleaseStore(releases.folder)
    signed = _fetch_signed(source)
    kind = verify_manifest(signed, load_trust(store, releases.trust_file)).kind
    if store.shelf(kind).current == signed.id:
        raise ReleaseError(f"{signed.id} is installed already")
    absolute = source if "://" in source else str(Path(source).absolute())
    job = job_of(settings, signed, absolute, base_weights=_base_weights(settings.small))
    _prepare(settings, job, on_progress)
    store.switch(kind, signed.id, starts=releases.starts_before_rollback)
    if kind == "keys":
        store.mark_good(["keys"])
    return kind, signed.id


def _prepare(settings: DeviceSettings, job: PrepareJob, on_progress: OnProgress) -> None:
    """In a process of its own: what is tried may crash it."""
    ended = threading.Event()
    outcome: list[Prepared] = []

    def end(prepared: Prepared) -> None:
        outcome.append(prepared)
        ended.set()

    folder = job_folder(settings).with_name("installing-by-hand")
    preparer = Preparer(folder, on_prepared=end)
    try:
        preparer.start(job, on_line=lambda line: on_progress(_progress(line)))
        ended.wait()
    finally:
        preparer.stop()
    result = outcome[0].result
    if result.fault:
        raise ReleaseError(result.fault)


def _fetch_signed(source: str) -> SignedManifest:
    if "://" not in source:
        return read_signed(Path(source))
    require_url(source)
    base = source.rstrip("/")
    try:
        with new_client() as client:
            content, signature = (
                client.get(f"{base}/{name}").raise_for_status().content
                for name in (MANIFEST_FILE, SIGNATURE_FILE)
            )
        return signed_manifest(content, signature)
    except httpx.HTTPError as error:
        raise BlobError(f"cannot fetch the release's manifest from {base}: {error}") from None
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise ReleaseError(f"{base} holds no signed release: {error}") from error


def _base_weights(small: Path) -> str:
    """A device whose model is missing or damaged may be just the one that needs a release."""
    try:
        return weights_sha256(read_gguf(small))
    except ArtifactError:
        return ""


def _progress(line: bytes) -> Progress:
    done, _, rest = line.decode(errors="replace").strip().partition(" ")
    total, _, note = rest.partition(" ")
    known = done.isdigit() and total.isdigit()
    return Progress(int(done), int(total) or 1, note) if known else Progress(0, 1, note)
