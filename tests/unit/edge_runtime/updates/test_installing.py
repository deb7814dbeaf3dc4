"""An installation ends with the old release or the new one, wherever the power fails."""

import subprocess
from pathlib import Path

import pytest

from edge_runtime.updates import boot_guard
from edge_runtime.updates.fetching import folder_fetcher
from edge_runtime.updates.installing import prepare
from edge_runtime.updates.trust import load_trust
from fedpt.errors import BlobError, FedptError, ReleaseError, StorageError
from fedpt.releases import KINDS, SignedManifest, Trust, TrustedKey
from tests.fakes import power_cuts
from tests.fakes.releases import (
    OTHER_KEY,
    device,
    signed,
    signed_files,
    trust,
    write_wheelhouse,
)
from tests.fakes.tiny_federation import TinyFederation
from tests.unit.edge_runtime.updates.conftest import Board

pytestmark = pytest.mark.llama

PREPARING = ["verify", "space", "fetch", "hashes", "trial", "complete"]
SWITCHING = ["noted", "previous", "switched"]


def install(board: Board, release: SignedManifest) -> None:
    power_cuts.install(board.source, board.device, release)


def install_until_power_cut(board: Board, release: SignedManifest, step: str) -> None:
    power_cuts.install_until_power_cut(board.source, board.device, release, step)


def test_the_steps_come_in_the_order_that_makes_power_cuts_harmless(
    board: Board, tiny: TinyFederation
) -> None:
    steps: list[str] = []
    release = board.offer(
        "model", 2, {"model.gguf": tiny.small}, base_weights=board.device.base_weights
    )
    prepare(release, board.device, folder_fetcher(board.source), on_step=steps.append)
    assert board.store.shelf("model").candidate == ""
    board.store.switch("model", release.id, starts=3, on_step=steps.append)
    assert steps == PREPARING + SWITCHING
    assert board.store.shelf("model").current == release.id


@pytest.mark.parametrize("step", PREPARING + SWITCHING)
def test_a_power_cut_leaves_the_old_or_the_new_model_and_the_next_try_ends_it(
    board: Board, tiny: TinyFederation, step: str
) -> None:
    old = board.store.shelf("model").current
    release = board.offer(
        "model", 2, {"model.gguf": tiny.small}, base_weights=board.device.base_weights
    )
    install_until_power_cut(board, release, step)
    found = board.store.shelf("model")
    assert found.current == (release.id if step == "switched" else old)
    assert found.highest_counter == (2 if step in SWITCHING else 1)
    boot_guard.guard(board.folder / "releases", 0.0)
    assert board.device.small.is_file()
    if step in SWITCHING:
        assert board.store.shelf("model").current == release.id
    else:
        install(board, release)
    shelf = board.store.shelf("model")
    assert (shelf.current, shelf.previous, shelf.candidate) == (release.id, old, release.id)


@pytest.mark.parametrize("step", [*PREPARING, "noted", "switched"])
def test_a_power_cut_leaves_no_adapter_or_a_whole_one(
    board: Board, tiny: TinyFederation, step: str
) -> None:
    release = board.offer(
        "adapter", 1, {"adapter.safetensors": tiny.adapter_blob},
        base_weights=board.device.base_weights,
    )  # fmt: skip
    install_until_power_cut(board, release, step)
    boot_guard.guard(board.folder / "releases", 0.0)
    if step not in SWITCHING:
        assert board.store.shelf("adapter").current == ""
        install(board, release)
    path = board.store.current_path("adapter", "adapter.safetensors")
    assert path is not None
    assert path.read_bytes() == tiny.adapter_blob.read_bytes()


@pytest.mark.slow
@pytest.mark.parametrize("step", ["fetch", "trial", "complete", "noted"])
def test_a_power_cut_leaves_a_runtime_that_starts(board: Board, tmp_path: Path, step: str) -> None:
    wheelhouse = write_wheelhouse(tmp_path / "wheelhouse")
    files = {
        "requirements.lock": wheelhouse / "requirements.lock",
        **{f"wheels/{path.name}": path for path in wheelhouse.glob("*.whl")},
    }
    release = board.offer("runtime", 1, files)
    install_until_power_cut(board, release, step)
    boot_guard.guard(board.folder / "releases", 0.0)
    if step != "noted":
        assert board.store.shelf("runtime").current == ""
        install(board, release)
    command = board.folder / "releases" / "runtime" / "current" / "bin" / "fedpt"
    ended = subprocess.run([command], capture_output=True, text=True, check=True)
    assert ended.stdout == "fedpt\n"


def test_a_runtime_that_does_not_start_is_refused(board: Board, tmp_path: Path) -> None:
    wheelhouse = write_wheelhouse(tmp_path / "wheelhouse", daemon="raise RuntimeError('no luck')")
    (wheel,) = wheelhouse.glob("*.whl")
    files = {"requirements.lock": wheelhouse / "requirements.lock", f"wheels/{wheel.name}": wheel}
    with pytest.raises(ReleaseError, match="cannot load the device daemon: RuntimeError: no luck"):
        install(board, board.offer("runtime", 1, files))
    assert board.store.shelf("runtime").current == ""


def test_a_runtime_with_a_wheel_of_another_hash_is_refused(board: Board, tmp_path: Path) -> None:
    wheelhouse = write_wheelhouse(tmp_path / "wheelhouse")
    (wheel,) = wheelhouse.glob("*.whl")
    lock = wheelhouse / "requirements.lock"
    lock.write_text(f"fedpt==0.2.0 --hash=sha256:{'0' * 64}\n")
    files = {"requirements.lock": lock, f"wheels/{wheel.name}": wheel}
    with pytest.raises(ReleaseError, match="cannot install its wheels"):
        install(board, board.offer("runtime", 1, files))


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"key": OTHER_KEY}, "unknown key"),
        ({"counter": 1}, "already seen 1"),
        ({"expires_unix_s": 1.0}, "expired"),
        ({"minimum_runtime": "9"}, "install the runtime's release first"),
    ],
)
def test_what_must_not_be_installed_is_refused_before_anything_is_written(
    board: Board, changes: dict, why: str
) -> None:
    release = signed("model", **{"counter": 2, **changes})
    with pytest.raises(ReleaseError, match=why):
        install(board, release)
    assert not board.store.path("model", release.id).exists()


def test_a_replay_stays_refused_after_the_rollback(board: Board, tiny: TinyFederation) -> None:
    files = {"model.gguf": tiny.small}
    weights = board.device.base_weights
    install(board, release := board.offer("model", 5, files, base_weights=weights))
    board.store.roll_back("model", "bad")
    with pytest.raises(ReleaseError, match="already seen 5"):
        install(board, board.offer("model", 4, files, base_weights=weights))
    with pytest.raises(ReleaseError, match="already seen 5"):
        install(board, release)


def test_an_adapter_for_another_base_is_refused(board: Board) -> None:
    with pytest.raises(ReleaseError, match="an adapter release for base cccc"):
        install(board, signed("adapter", base_weights="c" * 64))


def test_too_little_space_changes_nothing(board: Board, tiny: TinyFederation) -> None:
    short = device(board.folder, small=board.device.small, reserve_mb=2**40)
    release = signed_files("model", 2, {"model.gguf": tiny.small})
    with pytest.raises(StorageError, match="free some space"):
        prepare(release, short, folder_fetcher(board.source))
    assert not board.store.path("model", release.id).exists()


def test_a_file_changed_on_its_way_is_fetched_again(board: Board, tiny: TinyFederation) -> None:
    release = board.offer(
        "model", 2, {"model.gguf": tiny.small}, base_weights=board.device.base_weights
    )
    whole = (board.source / "model.gguf").read_bytes()
    (board.source / "model.gguf").write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    with pytest.raises(BlobError, match="not the file that was signed"):
        install(board, release)
    (board.source / "model.gguf").write_bytes(whole)
    install(board, release)
    assert board.store.shelf("model").current == release.id


def test_a_file_changed_on_the_disk_since_it_came_is_fetched_again(
    board: Board, tiny: TinyFederation
) -> None:
    weights = board.device.base_weights
    release = board.offer("model", 2, {"model.gguf": tiny.small}, base_weights=weights)
    size = tiny.small.stat().st_size
    (board.store.begin("model", release) / "model.gguf").write_bytes(bytes(size))
    with pytest.raises(BlobError, match="is not the file that was signed"):
        install(board, release)
    install(board, release)
    assert board.store.shelf("model").current == release.id


def test_keys_are_replaced_by_keys(board: Board, tmp_path: Path) -> None:
    """Old key signs the new keys; from then on only the new one counts."""
    path = tmp_path / "new-trust.json"
    path.write_bytes(trust(OTHER_KEY).to_json())
    with pytest.raises(ReleaseError, match="unknown key"):
        install(board, board.offer("keys", 1, {"trust.json": path}, key=OTHER_KEY))
    install(board, board.offer("keys", 2, {"trust.json": path}))
    assert load_trust(board.store, board.device.trust_file) == trust(OTHER_KEY)
    with pytest.raises(ReleaseError, match="unknown key"):
        install(board, signed("model", 7))
    with pytest.raises(FedptError, match="cannot copy"):  # which comes after the signature
        install(board, signed("model", 7, key=OTHER_KEY))


def test_a_key_that_may_not_sign_keys_cannot_replace_them(board: Board, tmp_path: Path) -> None:
    known = Trust([*trust().keys, TrustedKey(OTHER_KEY.public, ["adapter"])])
    board.device.trust_file.write_bytes(known.to_json())
    path = tmp_path / "new-trust.json"
    path.write_bytes(trust(OTHER_KEY, kinds=KINDS).to_json())
    with pytest.raises(ReleaseError, match="it may sign only adapter"):
        install(board, board.offer("keys", 1, {"trust.json": path}, key=OTHER_KEY))


def test_leftovers_of_an_interrupted_release_are_deleted_by_the_next(
    board: Board, tiny: TinyFederation
) -> None:
    half = board.store.begin("model", signed("model", 2))
    release = board.offer(
        "model", 3, {"model.gguf": tiny.small}, base_weights=board.device.base_weights
    )
    install(board, release)
    assert not half.exists()


def test_no_trust_file_is_told(board: Board) -> None:
    board.device.trust_file.unlink()
    with pytest.raises(ReleaseError, match="cannot read the trusted keys"):
        install(board, signed("model", 2))
