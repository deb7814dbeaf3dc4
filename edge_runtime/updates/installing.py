"""Installing a release, in the order that makes a power cut harmless at every step.

```
prepare    verify → space → fetch → hashes → trial → complete      its own process; touches nothing
switch     noted → previous → switched                             that is in use
```
`prepare` can be repeated: what was fetched stays. `ReleaseStore.switch` is in the daemon's hands,
which knows when nothing is lost by it.
"""

import time
from dataclasses import dataclass
from pathlib import Path

from edge_runtime.updates.fetching import Fetcher, is_here, require_hashes, require_space
from edge_runtime.updates.release_store import OnStep, ReleaseStore
from edge_runtime.updates.runtime_environment import drop_wheels
from edge_runtime.updates.trial import Trial, try_release
from edge_runtime.updates.trust import load_trust
from fedpt.errors import ReleaseError
from fedpt.releases import (
    ADAPTER_FILE,
    SignedManifest,
    require_news,
    require_usable,
    verify_manifest,
)


@dataclass(frozen=True, slots=True)
class Device:
    """What a release must get on with."""

    store: ReleaseStore
    trust_file: Path
    """Until the first keys release."""
    runtime: str
    small: Path
    base_weights: str
    reserve_mb: int
    tolerance: float


def prepare(
    signed: SignedManifest,
    device: Device,
    fetch: Fetcher,
    *,
    on_step: OnStep = lambda _name: None,
) -> None:
    """Fetch and try a release, and mark it as complete. What is in use stays so.

    Raises:
        ReleaseError: It must not or does not work; there is no use in trying it again.
        BlobError: A file did not come, or not as it was signed; try again later.
        StorageError: The disk is full, say; try again later.
    """
    store = device.store
    manifest = verify_manifest(signed, load_trust(store, device.trust_file))
    kind, shelf = manifest.kind, store.shelf(manifest.kind)
    require_news(manifest, highest_counter=shelf.highest_counter, now_unix_s=time.time())
    require_usable(manifest, runtime=device.runtime, base_weights=device.base_weights)
    if signed.id in shelf.refused:
        raise ReleaseError(f"{signed.id} was refused before: {shelf.refused[signed.id]}")
    on_step("verify")
    if store.is_complete(kind, signed.id):
        return
    store.prune(kind, keep=[signed.id])
    folder = store.path(kind, signed.id)
    require_space(manifest, folder, reserve_mb=device.reserve_mb)
    on_step("space")
    store.begin(kind, signed)
    for file in manifest.files:
        if not is_here(file, folder):
            fetch(file, folder / file.path)
    on_step("fetch")
    require_hashes(manifest, folder)
    on_step("hashes")
    adapter = store.current_path("adapter", ADAPTER_FILE)
    try_release(Trial(manifest, folder, device.small, adapter, device.tolerance))
    on_step("trial")
    store.complete(kind, signed.id)
    on_step("complete")
    if kind == "runtime":
        drop_wheels(folder)
