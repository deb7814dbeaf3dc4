"""Whatever happens to a device's releases, there is one in use, and it is whole."""

import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from unittest.mock import patch

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from edge_runtime.updates import boot_guard
from edge_runtime.updates.release_store import ReleaseStore
from fedpt.errors import ReleaseError, StorageError
from fedpt.release_folder import read_signed
from fedpt.releases import KINDS, Kind
from tests.fakes.releases import put_complete, signed


@pytest.fixture
def store(tmp_path: Path) -> ReleaseStore:
    return ReleaseStore(tmp_path / "releases")


def install(store: ReleaseStore, counter: int, kind: Kind = "model", *, good: bool = True) -> str:
    release = put_complete(store, kind, counter)
    store.switch(kind, release, starts=3)
    if good:
        store.mark_good()
    return release


def test_a_release_is_in_use_after_the_switch_and_the_one_before_is_kept(
    store: ReleaseStore,
) -> None:
    first, second = install(store, 1), install(store, 2, good=False)
    shelf = store.shelf("model")
    assert (shelf.current, shelf.previous, shelf.candidate) == (second, first, second)
    assert (shelf.tries_left, shelf.highest_counter) == (3, 2)
    assert store.current_path("model", "file") == store.path("model", second) / "file"
    assert store.mark_good() == [second]
    assert store.shelf("model").candidate == ""
    assert store.mark_good() == []


def test_two_releases_are_kept_and_leftovers_deleted(store: ReleaseStore) -> None:
    _, second, third = (install(store, counter) for counter in (1, 2, 3))
    half = store.begin("model", signed(counter=4))
    (half / "file.part").write_bytes(b"con")
    (half.parent / ".current.123").symlink_to("gone")
    store.prune("model")
    assert {path.name for path in half.parent.iterdir()} == {second, third, "current", "previous"}


def test_pruning_keeps_the_release_that_is_coming(store: ReleaseStore) -> None:
    half = store.begin("model", signed(counter=4))
    store.prune("model", keep=[half.name])
    assert half.is_dir()


def test_a_release_without_its_marker_cannot_be_used(store: ReleaseStore) -> None:
    store.begin("model", one := signed())
    with pytest.raises(ReleaseError, match="is not complete"):
        store.switch("model", one.id, starts=3)


def test_a_manifest_comes_back_as_it_was_signed(store: ReleaseStore) -> None:
    one = signed()
    assert read_signed(store.begin("model", one)) == one
    with pytest.raises(ReleaseError, match="holds no signed release"):
        read_signed(store.path("model", "9-other"))


def test_after_a_rollback_the_counter_stays_and_the_release_is_remembered(
    store: ReleaseStore,
) -> None:
    first, second = install(store, 1), install(store, 2, good=False)
    assert store.roll_back("model", "it hangs")
    shelf = store.shelf("model")
    assert (shelf.current, shelf.candidate, shelf.highest_counter) == (first, "", 2)
    assert shelf.refused == {second: "it hangs"}
    assert shelf.rolled_back["id"] == second
    assert not store.roll_back("model", "again")


def test_one_that_never_proved_itself_is_not_what_a_rollback_leads_to(store: ReleaseStore) -> None:
    first = install(store, 1)
    install(store, 2, good=False)
    third = install(store, 3, good=False)
    assert store.shelf("model").previous == first
    store.roll_back("model", "bad")
    assert store.shelf("model").current == first
    assert third in store.shelf("model").refused


def test_the_only_model_stays_but_the_only_adapter_goes(store: ReleaseStore) -> None:
    only = install(store, 1, good=False)
    install(store, 1, "adapter", good=False)
    assert not store.roll_back("model", "bad")
    assert store.roll_back("adapter", "bad")
    assert store.shelf("model").current == only
    assert store.shelf("adapter").current == ""


def test_a_start_that_says_nothing_is_given_back(store: ReleaseStore, tmp_path: Path) -> None:
    install(store, 1)
    install(store, 2, good=False)
    boot_guard.guard(tmp_path / "releases", 0.0)
    assert store.shelf("model").tries_left == 2
    for _ in range(3):
        store.give_start_back(["model"], starts=3)
    assert store.shelf("model").tries_left == 3


def test_a_damaged_memory_costs_no_counter_of_what_lies_here(
    store: ReleaseStore, tmp_path: Path
) -> None:
    install(store, 1)
    release = install(store, 7)
    (tmp_path / "releases" / "boot.json").write_text('{"kinds": {"model": {"highest_cou')
    shelf = store.shelf("model")
    assert (shelf.current, shelf.highest_counter) == (release, 7)


def test_a_rounds_adapter_raises_the_counter_of_adapters(store: ReleaseStore) -> None:
    store.note_round_release("12-abcdef")
    shelf = store.shelf("adapter")
    assert (shelf.round_release, shelf.highest_counter) == ("12-abcdef", 12)
    store.note_round_release("11-abcdef")
    assert store.shelf("adapter").highest_counter == 12


def test_a_folder_that_cannot_be_written_is_told(store: ReleaseStore, tmp_path: Path) -> None:
    (tmp_path / "releases").touch()
    with pytest.raises(StorageError, match="cannot write"):
        store.refuse("model", "1-a", "bad")


class PowerCutError(Exception):
    """Stands for the moment after which nothing happens any more."""


class StoreMachine(RuleBasedStateMachine):
    """Installs, rollbacks, prunings, starts; the power may fail before any change on the disk."""

    kind: Kind = "model"

    @initialize()
    def begin(self) -> None:
        self.root = Path(tempfile.mkdtemp())
        self.store = ReleaseStore(self.root)
        self.counter = 1
        self.highest = 0
        release = put_complete(self.store, self.kind, self.counter)
        self.store.switch(self.kind, release, starts=2)
        self.store.mark_good()
        self.good = {release}

    def teardown(self) -> None:
        shutil.rmtree(self.root)

    def until_power_cut(self, do: Callable[[], object], left: int) -> None:
        """Run, and fail before the `left`-th replacement of a file or link."""
        replace = os.replace
        remaining = [left]

        def count_down(source: Path, target: Path) -> None:
            remaining[0] -= 1
            if remaining[0] < 0:
                raise PowerCutError
            replace(source, target)

        with patch.object(Path, "replace", count_down):
            try:
                do()
            except PowerCutError:
                return

    @rule(left=st.integers(0, 6))
    def install(self, left: int) -> None:
        if self.store.shelf(self.kind).candidate:
            return
        self.counter += 1
        release = put_complete(self.store, self.kind, self.counter)
        self.until_power_cut(lambda: self.store.switch(self.kind, release, starts=2), left)

    @rule(left=st.integers(0, 6))
    def start(self, left: int) -> None:
        self.until_power_cut(lambda: boot_guard.guard(self.root, 0.0), left)

    @rule()
    def start_without_the_guard(self) -> None:
        self.store.finish_interrupted()

    @rule(left=st.integers(0, 3))
    def prove(self, left: int) -> None:
        shelf = self.store.shelf(self.kind)
        if shelf.candidate and shelf.candidate == shelf.current and shelf.tries_left > 0:
            self.until_power_cut(self.store.mark_good, left)
            self.good.add(shelf.current)

    @rule(left=st.integers(0, 6))
    def roll_back(self, left: int) -> None:
        self.until_power_cut(lambda: self.store.roll_back(self.kind, "bad"), left)

    @rule()
    def prune(self) -> None:
        self.store.prune(self.kind)

    @invariant()
    def a_whole_release_is_in_use(self) -> None:
        shelf = self.store.shelf(self.kind)
        assert (self.root / self.kind / "current" / ".complete").is_file()
        assert shelf.current in self.good or shelf.current == shelf.candidate

    @invariant()
    def counters_only_grow(self) -> None:
        highest = self.store.shelf(self.kind).highest_counter
        assert highest >= self.highest
        self.highest = highest

    @invariant()
    def what_was_refused_is_not_in_use_after_a_start(self) -> None:
        shelf = self.store.shelf(self.kind)
        assert shelf.current not in shelf.refused


TestStoreMachine = StoreMachine.TestCase
TestStoreMachine.settings = settings(max_examples=25, stateful_step_count=20, deadline=None)


def test_every_kind_has_a_shelf(store: ReleaseStore) -> None:
    assert set(store.shelves()) == set(KINDS)
