"""An installation in a process of its own, which dies like a board whose power fails.

The processes come from a fork server, which has everything imported and no thread running yet:
libllama's threads do not survive a fork, and a new interpreter for every step takes its time.
"""

import multiprocessing
import os
import signal
from pathlib import Path

from edge_runtime.updates.fetching import folder_fetcher
from edge_runtime.updates.installing import Device, prepare
from fedpt.releases import SignedManifest, read_manifest

_context = multiprocessing.get_context("forkserver")
_context.set_forkserver_preload(["tests.fakes.power_cuts", "fedpt.drivers.llama"])
_WAIT_S = 60.0


def install(source: Path, device: Device, release: SignedManifest, cut_at: str = "") -> None:
    """All steps, in this very process, which is killed after the step `cut_at`."""

    def cut(name: str) -> None:
        if name == cut_at:
            os.kill(os.getpid(), signal.SIGKILL)

    prepare(release, device, folder_fetcher(source), on_step=cut)
    kind = read_manifest(release.content).kind
    device.store.switch(kind, release.id, starts=3, on_step=cut)


def install_until_power_cut(
    source: Path, device: Device, release: SignedManifest, step: str
) -> None:
    """Fails if the step never came."""
    process = _context.Process(target=install, args=(source, device, release, step))
    process.start()
    process.join(_WAIT_S)
    code = process.exitcode
    process.kill()
    assert code == -signal.SIGKILL
