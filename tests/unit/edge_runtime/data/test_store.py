import tempfile
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from edge_runtime.data.sameness import digest_of
from edge_runtime.data.store import Counts, DataStore
from fedpt.errors import DataFileError, UsageError
from fedpt.examples import Example, read_examples, write_examples

CARD = Example("pay with 4111 1111 1111 1111", "done")
TEXTS = st.text(st.characters(exclude_categories=["Cs"])).filter(str.strip)
EXAMPLES = st.builds(Example, TEXTS, TEXTS, st.sampled_from(["", " ", "Be a house."]))


@pytest.fixture
def store(tmp_path: Path) -> DataStore:
    return DataStore(tmp_path / "private.db")


def test_an_example_is_kept_once(store: DataStore) -> None:
    (first,) = store.add([Example("a", "b")])
    (again,) = store.add([Example(" a", "b\n")])
    assert (first.is_new, again.is_new) == (True, False)
    assert first.id == again.id
    assert [one.example for one in store.entries()] == [Example("a", "b")]


def test_what_seems_to_hold_a_secret_waits_for_a_persons_word(store: DataStore) -> None:
    fine, flagged = store.add([Example("a", "b"), CARD])
    assert (flagged.is_usable, flagged.secrets) == (False, ("card number",))
    assert store.counts() == Counts(usable=1, flagged=1)
    assert store.usable() == {fine.id: Example("a", "b")}
    store.allow([flagged.id])
    assert store.usable() == {fine.id: Example("a", "b"), flagged.id: CARD}


def test_whoever_adds_can_give_that_word_at_once_and_later(store: DataStore) -> None:
    store.add([CARD])
    (again,) = store.add([CARD], allow_flagged=True)
    assert again.is_usable
    (once_more,) = store.add([CARD])
    assert once_more.is_usable, "what was allowed stays so"


def test_a_secret_in_any_of_the_texts_is_seen(store: DataStore) -> None:
    parts = [Example(CARD.prompt, "a"), Example("b", CARD.prompt), Example("c", "d", CARD.prompt)]
    assert [one.is_usable for one in store.add(parts)] == [False] * 3


def test_what_came_later_is_not_among_the_examples_up_to_a_place(store: DataStore) -> None:
    store.add([Example("a", "b"), CARD])
    place = store.last_place()
    before = store.usable(up_to_place=place)
    store.add([Example("later", "b")])
    store.allow([2])
    assert store.usable(up_to_place=place) == before
    assert len(store.usable()) == 3


def test_removed_texts_are_in_no_file_any_more(store: DataStore) -> None:
    store.add([Example("the garden gate", f"opens with {'moonlight ' * 2000}"), Example("a", "b")])
    store.remove([1])
    left = b"".join(one.read_bytes() for one in store.path.parent.iterdir())
    assert b"moonlight" not in left
    assert b"garden gate" not in left
    assert list(store.usable()) == [2]


def test_an_id_is_never_used_again(store: DataStore) -> None:
    store.add([Example("a", "b")])
    store.remove([1])
    assert store.add([Example("a", "b")])[0].id == 2


@pytest.mark.parametrize("change", [DataStore.remove, DataStore.allow])
def test_an_unknown_id_changes_nothing(store: DataStore, change: object) -> None:
    assert callable(change)
    with pytest.raises(UsageError, match="no examples yet"):
        change(store, [1])
    store.add([CARD])
    before = store.entries()
    with pytest.raises(UsageError, match=r"no example 7 in .* nothing was changed"):
        change(store, [1, 7])
    assert store.entries() == before


def test_without_a_usable_example_it_is_said_why(store: DataStore) -> None:
    assert (store.entries(), store.counts(), store.last_place()) == ([], Counts(), 0)
    store.require_sound()
    with pytest.raises(DataFileError, match="no examples to train on: fedpt device data add"):
        store.usable()
    assert not store.path.exists(), "who only reads makes no file"
    store.add([CARD])
    with pytest.raises(DataFileError, match=r"all 1 examples .* --flagged"):
        store.usable(up_to_place=store.last_place())


@given(st.lists(EXAMPLES, min_size=1, max_size=8))
@settings(deadline=None)  # each writes real files
def test_what_is_exported_adds_up_to_the_same_store(examples: list[Example]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        one, other = (DataStore(Path(folder) / name) for name in ("one.db", "other.db"))
        one.add(examples)
        kept = [entry.example for entry in one.entries()]
        write_examples(Path(folder) / "out.jsonl", kept)
        other.add(read_examples(Path(folder) / "out.jsonl"))
        assert [entry.example for entry in other.entries()] == kept
        assert len(kept) == len({digest_of(example) for example in examples})
        assert all(entry.is_new is False for entry in one.add(examples))


@dataclass
class Modelled:
    """An example as a store must have it."""

    id: int
    is_usable: bool


class StoreHistories(RuleBasedStateMachine):
    """Whatever is called in whatever order, the store is what a list would be."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.TemporaryDirectory()
        self.store = DataStore(Path(self.folder.name) / "private.db")
        self.expected: dict[Example, Modelled] = {}
        self.noted: dict[int, list[int]] = {}

    def teardown(self) -> None:
        self.folder.cleanup()

    @rule(number=st.integers(0, 5), has_secret=st.booleans(), is_allowed=st.booleans())
    def add(self, number: int, has_secret: bool, is_allowed: bool) -> None:
        example = Example(f"{CARD.prompt if has_secret else 'hello'} {number}", "yes")
        (kept,) = self.store.add([example], allow_flagged=is_allowed)
        assert kept.is_new == (example not in self.expected)
        modelled = self.expected.setdefault(example, Modelled(kept.id, False))
        modelled.is_usable |= is_allowed or not has_secret
        assert (kept.id, kept.is_usable) == (modelled.id, modelled.is_usable)

    @rule(data=st.data())
    def allow(self, data: st.DataObject) -> None:
        if self.expected:
            chosen = self.expected[data.draw(st.sampled_from(sorted(self.expected, key=str)))]
            self.store.allow([chosen.id])
            chosen.is_usable = True

    @rule(data=st.data())
    def remove(self, data: st.DataObject) -> None:
        if self.expected:
            example = data.draw(st.sampled_from(sorted(self.expected, key=str)))
            removed = self.expected.pop(example).id
            self.store.remove([removed])
            # its place may be given again: such a training begins anew, see the checkpoint
            self.noted = {place: ids for place, ids in self.noted.items() if removed not in ids}

    @rule()
    def note_place(self) -> None:
        if place := self.store.last_place():
            self.noted[place] = list(self.store.usable())

    @invariant()
    def is_as_expected(self) -> None:
        usable = {one.id for one in self.expected.values() if one.is_usable}
        assert self.store.counts() == Counts(len(usable), len(self.expected) - len(usable))
        assert [one.id for one in self.store.entries()] == sorted(
            one.id for one in self.expected.values()
        )
        if usable:
            assert set(self.store.usable()) == usable
        for place, ids in self.noted.items():
            assert list(self.store.usable(up_to_place=place)) == ids


StoreHistories.TestCase.settings = settings(max_examples=40, stateful_step_count=15, deadline=None)
test_a_store_is_what_was_done_to_it = StoreHistories.TestCase
