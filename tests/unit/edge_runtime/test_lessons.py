import threading
from pathlib import Path

import pytest

from edge_runtime.data.store import DataStore
from edge_runtime.lessons import Learnt, Lesson, example_of, learn, learnt_note
from fedpt.errors import DataFileError, StorageError, UsageError
from fedpt.examples import Example

GOOD_NIGHT = Lesson("Good night", "All lights go out.")


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return tmp_path / "new" / "private.db"


def test_what_is_taught_is_what_training_reads(data: Path) -> None:
    assert learn(data, GOOD_NIGHT) == Learnt(id=1, is_new=True, examples=1)
    assert DataStore(data).usable() == {1: Example("Good night", "All lights go out.")}


def test_the_same_pair_is_not_added_twice(data: Path) -> None:
    learn(data, GOOD_NIGHT)
    again = learn(data, Lesson(" Good night ", "All lights go out.\n"))
    assert again == Learnt(id=1, is_new=False, examples=1)
    assert "nothing added" in learnt_note(again)


def test_another_answer_to_the_same_question_is_another_lesson(data: Path) -> None:
    learn(data, GOOD_NIGHT)
    assert learn(data, Lesson("Good night", "Sleep well.")).examples == 2


def test_a_lesson_with_a_secret_waits_and_the_teacher_is_told(data: Path) -> None:
    learnt = learn(data, Lesson("my card?", "4111 1111 1111 1111"))
    assert learnt == Learnt(id=1, is_new=True, examples=0, secrets=("card number",))
    assert "secret (card number)" in learnt_note(learnt)
    assert "fedpt device data allow 1" in learnt_note(learnt)
    assert "4111" not in learnt_note(learnt)


def test_a_lesson_that_was_allowed_is_known_like_any_other(data: Path) -> None:
    lesson = Lesson("my card?", "4111 1111 1111 1111")
    learn(data, lesson)
    DataStore(data).allow([1])
    assert learn(data, lesson) == Learnt(id=1, is_new=False, examples=1)


def test_a_damaged_store_is_left_alone(data: Path) -> None:
    data.parent.mkdir()
    data.write_text("half a li")
    with pytest.raises(DataFileError, match="no data store"):
        learn(data, GOOD_NIGHT)
    assert data.read_text() == "half a li"


def test_a_folder_that_cannot_be_made_is_told(data: Path) -> None:
    data.parent.write_text("")
    with pytest.raises(StorageError, match="cannot make"):
        learn(data, GOOD_NIGHT)


def test_a_device_without_data_says_which_setting_is_missing() -> None:
    with pytest.raises(UsageError, match="set data = "):
        learn(None, GOOD_NIGHT)


@pytest.mark.parametrize(
    ("lesson", "complaint"),
    [
        (Lesson(" ", "b"), "the question is empty"),
        (Lesson("a", "\n"), "the answer is empty"),
        (Lesson("a", "\ud800"), "half a character"),
    ],
)
def test_what_is_no_lesson_is_refused(data: Path, lesson: Lesson, complaint: str) -> None:
    with pytest.raises(UsageError, match=complaint):
        example_of(lesson)
    with pytest.raises(UsageError, match=complaint):
        learn(data, lesson)
    assert not data.exists()


def test_lessons_of_many_teachers_at_once_are_all_kept(data: Path) -> None:
    teachers = [
        threading.Thread(target=learn, args=(data, Lesson(f"question {number}", "answer")))
        for number in range(8)
    ]
    for one in teachers:
        one.start()
    for one in teachers:
        one.join()
    assert DataStore(data).counts().usable == 8
