"""Releases of tiny real models and adapters."""

import shutil
from dataclasses import dataclass
from pathlib import Path

import pytest

from edge_runtime.updates.installing import Device
from edge_runtime.updates.release_store import ReleaseStore
from fedpt.gguf_file import read_gguf, weights_sha256
from fedpt.releases import SignedManifest
from tests.fakes.releases import device, signed_files
from tests.fakes.tiny_federation import TinyFederation


@dataclass(frozen=True)
class Board:
    """A device with the tiny federation's small model as release 1, proven."""

    folder: Path
    device: Device
    source: Path
    """Folder with a release's files, as on a stick."""

    @property
    def store(self) -> ReleaseStore:
        return self.device.store

    def offer(self, kind: str, counter: int, files: dict[str, Path], **changes) -> SignedManifest:
        """Lay files on the stick and sign them."""
        for name, path in files.items():
            (self.source / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, self.source / name)
        return signed_files(kind, counter, files, **changes)


@pytest.fixture
def board(tmp_path: Path, tiny: TinyFederation) -> Board:
    store = ReleaseStore(tmp_path / "releases")
    weights = weights_sha256(read_gguf(tiny.small))
    first = signed_files("model", 1, {"model.gguf": tiny.small}, base_weights=weights)
    shutil.copyfile(tiny.small, store.begin("model", first) / "model.gguf")
    store.complete("model", first.id)
    store.switch("model", first.id, starts=3)
    store.mark_good()
    small = tmp_path / "releases" / "model" / "current" / "model.gguf"
    source = tmp_path / "stick"
    source.mkdir()
    return Board(tmp_path, device(tmp_path, small=small, base_weights=weights), source)
