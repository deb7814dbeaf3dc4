"""A running device and its releases: heard, prepared in a real child process, switched."""

import queue
import shutil
import signal
import time
from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from edge_runtime.settings import DeviceSettings, ReleaseSettings
from edge_runtime.updates import preparer
from edge_runtime.updates.preparer import Prepared
from edge_runtime.updates.updater import Updater
from fedpt.blobs import CHUNK_BYTES
from fedpt.errors import ReleaseError
from fedpt.files import sha256_bytes
from fedpt.releases import Kind, ReleaseFile, SignedManifest
from fedpt.wire.messages import ReleaseAnnouncement, RoundAnnouncement
from tests.fakes.releases import OTHER_KEY, WEIGHTS, signed, trust
from tests.fakes.wire_messages import ADAPTER, announcement
from tests.unit.edge_runtime.updates.conftest import Board

pytestmark = pytest.mark.llama


class Bench:
    """An updater, and the daemon's loop around it."""

    def __init__(self, board: Board, **changes: Any) -> None:
        usual = {
            "folder": board.folder / "releases",
            "trust_file": board.device.trust_file,
            "start_within_s": 0,
            "healthy_after_s": 1000.0,
            "reserve_mb": 0,
            "canary_tolerance": 9.0,
        }
        releases = ReleaseSettings(**{**usual, **changes})
        settings = DeviceSettings(
            name="board-1",
            small=board.device.small,
            state_dir=board.folder / "state",
            releases=releases,
        )
        self.ended: queue.SimpleQueue[Prepared] = queue.SimpleQueue()
        self.updater = Updater(
            settings, releases, base_weights=board.device.base_weights, on_prepared=self.ended.put
        )
        self.switched: list[Kind] = []
        self.is_idle = True
        self.files: dict[str, bytes] = {}
        self.later = 0.0

    def hear(self, release: SignedManifest, **changes: Any) -> None:
        message = ReleaseAnnouncement(release=release.to_wire(), **changes)
        self.updater.hear(message, self.now)

    @property
    def now(self) -> float:
        return time.monotonic() + self.later

    def step(self) -> None:
        """One turn of the loop; chunks that are asked for come at once."""
        request = self.updater.next_request(self.now)
        for index in request.indices if request else []:
            content = self.files[request.sha256]
            chunk = content[index * CHUNK_BYTES : (index + 1) * CHUNK_BYTES]
            self.updater.keep_chunk(request.sha256, index, chunk)
        kind = self.updater.step(self.now, is_idle=self.is_idle)
        if kind is not None:
            self.switched.append(kind)
        if self.updater.is_trying:
            self.updater.hear_prepared(self.ended.get(timeout=60))

    def steps(self, claim: Callable[[], bool]) -> None:
        for _ in range(50):
            if claim():
                return
            self.step()
        raise AssertionError("never")


def keys_release(board: Board, counter: int = 1, **changes: Any) -> tuple[SignedManifest, bytes]:
    content = trust(OTHER_KEY).to_json()
    (board.folder / "new.json").write_bytes(content)
    return board.offer(
        "keys", counter, {"trust.json": board.folder / "new.json"}, **changes
    ), content


def test_a_release_comes_in_chunks_is_tried_and_used_when_the_device_is_idle(board: Board) -> None:
    bench = Bench(board)
    content = board.device.small.read_bytes()
    release = board.offer(
        "model", 2, {"model.gguf": board.device.small}, base_weights=board.device.base_weights
    )
    bench.files[sha256_bytes(content)] = content
    bench.is_idle = False
    bench.hear(release)
    for _ in range(3):
        bench.step()
    assert not board.store.path("model", release.id).exists()
    bench.is_idle = True
    bench.steps(lambda: bench.updater.store.is_complete("model", release.id))
    bench.is_idle = False
    bench.step()
    assert board.store.shelf("model").current != release.id
    bench.is_idle = True
    bench.steps(lambda: bench.switched == ["model"])
    assert board.store.shelf("model").candidate == release.id
    assert bench.updater.installed["model"] == release.id
    bench.updater.note_health(time.monotonic())
    assert board.store.shelf("model").candidate == release.id
    bench.updater.note_health(time.monotonic() + 1001)
    assert board.store.shelf("model").candidate == ""


def test_new_keys_count_at_once_and_what_the_old_ones_signed_is_forgotten(board: Board) -> None:
    bench = Bench(board)
    release, content = keys_release(board)
    bench.files[sha256_bytes(content)] = content
    bench.hear(signed("model", 5), fraction=0.0)
    bench.hear(release)
    bench.steps(lambda: bench.switched == ["keys"])
    assert board.store.shelf("keys").candidate == ""
    assert bench.updater.trust == trust(OTHER_KEY)
    with pytest.raises(ReleaseError, match="unknown key"):
        bench.hear(signed("model", 6))
    bench.hear(signed("model", 6, key=OTHER_KEY), fraction=0.0)


def test_a_release_that_does_not_work_is_refused_for_good(board: Board) -> None:
    (board.folder / "bad.gguf").write_bytes(b"no model")
    release = board.offer("model", 2, {"model.gguf": board.folder / "bad.gguf"})
    bench = Bench(board)
    bench.files[sha256_bytes(b"no model")] = b"no model"
    bench.hear(release)
    bench.steps(lambda: bench.updater.fault != "")
    assert "the model release does not work" in bench.updater.fault
    assert "does not work" in board.store.shelf("model").refused[release.id]
    again = Bench(board)
    again.hear(release)
    for _ in range(3):
        again.step()
    assert again.updater.fault == ""  # nothing was tried
    assert board.store.shelf("model").highest_counter == 1


def test_a_server_that_is_away_is_asked_again_after_a_pause(board: Board) -> None:
    bench = Bench(board)
    release, _ = keys_release(board)
    bench.hear(release, url="http://127.0.0.1:1/")
    bench.steps(lambda: bench.updater.fault != "")
    assert "cannot fetch http://127.0.0.1:1/trust.json" in bench.updater.fault
    assert board.store.shelf("keys").refused == {}
    bench.updater.fault = ""
    bench.step()
    assert bench.updater.fault == ""
    bench.later = 700.0
    bench.steps(lambda: bench.updater.fault != "")


def test_too_little_space_is_told_and_tried_again_later(board: Board) -> None:
    bench = Bench(board, reserve_mb=2**40)
    bench.hear(keys_release(board)[0])
    bench.step()
    assert "free some space" in bench.updater.fault
    assert board.store.shelf("keys").refused == {}


@pytest.mark.parametrize(
    ("number", "times", "why"), [(signal.SIGSEGV, 1, "signal 11"), (signal.SIGKILL, 3, "signal 9")]
)
def test_a_release_that_crashes_whoever_tries_it_is_refused(
    board: Board, monkeypatch: pytest.MonkeyPatch, number: int, *, times: int, why: str
) -> None:
    """A crash is its fault; to be killed from outside may happen, but not always."""
    monkeypatch.setattr(preparer, "_MODULE", "tests.fakes.dies_by_signal")
    monkeypatch.setenv("FEDPT_TEST_SIGNAL", str(int(number)))
    bench = Bench(board)
    release, content = keys_release(board)
    bench.files[sha256_bytes(content)] = content
    bench.hear(release)
    for attempt in range(times):
        assert board.store.shelf("keys").refused == {}
        bench.updater.fault, bench.later = "", 1000.0 * attempt
        bench.steps(lambda: bench.updater.fault != "")
    assert why in board.store.shelf("keys").refused[release.id]


def test_an_announcement_that_is_taken_back_is_forgotten(board: Board) -> None:
    bench = Bench(board)
    bench.hear(keys_release(board)[0])
    bench.updater.step(bench.now, is_idle=True)
    assert bench.updater.wanted
    bench.updater.forget("keys")
    bench.updater.step(bench.now, is_idle=True)
    assert not bench.updater.wanted


def test_a_newer_announcement_replaces_one_whose_files_are_coming(board: Board) -> None:
    bench = Bench(board)
    bench.hear(signed("model", 3, files=[_file("old")]))
    bench.updater.step(bench.now, is_idle=True)
    assert bench.updater.wanted == sha256_bytes(b"old")
    bench.hear(signed("model", 4, files=[_file("new")]))
    bench.updater.step(bench.now, is_idle=True)
    assert bench.updater.wanted == sha256_bytes(b"new")


def _file(content: str) -> ReleaseFile:
    data = content.encode()
    return ReleaseFile(path="file", sha256=sha256_bytes(data), size_bytes=len(data))


def _round(counter: int, board: Board, **changes: Any) -> RoundAnnouncement:
    files = [ReleaseFile(path="a", sha256=ADAPTER.sha256, size_bytes=ADAPTER.size_bytes)]
    usual = {"files": files, "base_weights": board.device.base_weights}
    return announcement(release=signed("adapter", counter, **{**usual, **changes}).to_wire())


def test_a_rounds_adapter_may_be_announced_again_but_no_older_one(board: Board) -> None:
    updater = Bench(board).updater
    for counter in (5, 5, 7, 7):
        updater.require_round_adapter(_round(counter, board))
    restarted = Bench(board).updater
    restarted.require_round_adapter(_round(7, board))
    for counter in (5, 6):
        with pytest.raises(ReleaseError, match="already seen 7"):
            restarted.require_round_adapter(_round(counter, board))


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"key": OTHER_KEY}, "unknown key"),
        ({"files": [_file("other")]}, "not about its adapter"),
        ({"expires_unix_s": 1.0}, "expired"),
        ({"base_weights": WEIGHTS}, "an adapter release for base"),
    ],
)
def test_a_rounds_adapter_that_nobody_vouches_for_is_refused(
    board: Board, changes: dict[str, Any], why: str
) -> None:
    updater = Bench(board).updater
    with pytest.raises(ReleaseError, match=why):
        updater.require_round_adapter(_round(5, board, **changes))
    with pytest.raises(ReleaseError, match="is not signed"):
        updater.require_round_adapter(announcement())
    updater.require_round_adapter(_round(1, board))


def test_a_changed_byte_in_a_rounds_signature_is_refused(board: Board) -> None:
    told = _round(5, board)
    assert told.release is not None
    forged = msgspec.structs.replace(told.release, signature=bytes(64))
    with pytest.raises(ReleaseError, match="wrong signature"):
        Bench(board).updater.require_round_adapter(announcement(release=forged))


def test_starts_that_say_nothing_are_given_back(board: Board) -> None:
    store = board.store
    folder = store.begin("model", release := signed("model", 2))
    shutil.copyfile(board.device.small, folder / "model.gguf")
    store.complete("model", release.id)
    store.switch("model", release.id, starts=1)
    updater = Bench(board).updater
    updater.give_start_back("adapter")
    assert store.shelf("model").tries_left == 1
    updater.give_start_back()
    assert store.shelf("model").tries_left == 2


def test_a_release_installed_by_hand_meanwhile_proves_nothing_by_what_runs(board: Board) -> None:
    store = board.store
    for counter in (2, 3):
        folder = store.begin("model", release := signed("model", counter))
        (folder / "model.gguf").write_bytes(board.device.small.read_bytes())
        store.complete("model", release.id)
        store.switch("model", release.id, starts=3)
        if counter == 2:
            updater = Bench(board, healthy_after_s=0).updater
    updater.note_health(time.monotonic() + 1)
    assert store.shelf("model").candidate == release.id
    Bench(board, healthy_after_s=0).updater.note_health(time.monotonic() + 1)
    assert store.shelf("model").candidate == ""


def test_a_kind_in_use_from_elsewhere_is_left_alone(board: Board) -> None:
    bench = Bench(board)
    bench.hear(signed("runtime", 3, files=[_file("new")]))
    bench.step()
    assert not bench.updater.wanted
