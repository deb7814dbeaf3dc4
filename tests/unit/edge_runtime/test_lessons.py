import json
import stat
import tempfile
import threading
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_runtime.lessons import Learnt, Lesson, LessonBook, example_of, learnt_note
from fedpt.errors import DataFileError, StorageError, UsageError
from fedpt.examples import read_examples

TEXTS = st.text(st.characters(exclude_categories=["Cs"])).filter(str.strip)
LESSONS = st.builds(Lesson, TEXTS, TEXTS)
GOOD_NIGHT = Lesson("Good night", "All lights go out.")


@given(st.lists(LESSONS, max_size=5))
def test_what_is_taught_is_what_training_reads(lessons: list[Lesson]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder) / "data.jsonl"
        book = LessonBook(data)
        for lesson in [*lessons, GOOD_NIGHT]:
            book.add(lesson)
        assert read_examples(data) == list(dict.fromkeys(map(example_of, [*lessons, GOOD_NIGHT])))
        assert LessonBook(data).example_count == book.example_count


def test_a_lesson_is_a_line_of_instruction_and_response(tmp_path: Path) -> None:
    assert LessonBook(tmp_path / "new" / "data.jsonl").add(GOOD_NIGHT) == Learnt(True, 1)
    line = (tmp_path / "new" / "data.jsonl").read_text()
    assert json.loads(line) == {"instruction": "Good night", "response": "All lights go out."}
    assert line.endswith("}\n")


def test_the_same_pair_is_not_added_twice(tmp_path: Path) -> None:
    book = LessonBook(tmp_path / "data.jsonl")
    book.add(GOOD_NIGHT)
    again = book.add(Lesson(" Good night ", "All lights go out.\n"))
    assert again == Learnt(False, 1)
    assert "nothing added" in learnt_note(again)


def test_another_answer_to_the_same_question_is_another_lesson(tmp_path: Path) -> None:
    book = LessonBook(tmp_path / "data.jsonl")
    book.add(GOOD_NIGHT)
    assert book.add(Lesson("Good night", "Sleep well.")) == Learnt(True, 2)


def test_a_file_whose_last_line_lacks_its_end_keeps_that_line(tmp_path: Path) -> None:
    data = tmp_path / "data.jsonl"
    data.write_text('{"instruction": "a", "response": "b"}')
    assert LessonBook(data).add(GOOD_NIGHT).examples == 2
    assert len(read_examples(data)) == 2


def test_only_the_owner_can_read_what_was_taught(tmp_path: Path) -> None:
    data = tmp_path / "data.jsonl"
    data.write_text("")
    data.chmod(0o644)
    LessonBook(data).add(GOOD_NIGHT)
    assert stat.S_IMODE(data.stat().st_mode) == 0o600


def test_behind_a_link_the_file_itself_is_taught(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "data.jsonl")
    LessonBook(tmp_path / "link").add(GOOD_NIGHT)
    assert (tmp_path / "link").is_symlink()
    assert len(read_examples(tmp_path / "data.jsonl")) == 1


def test_a_file_with_a_bad_line_is_left_alone(tmp_path: Path) -> None:
    data = tmp_path / "data.jsonl"
    book = LessonBook(data)
    data.write_text("half a li")
    with pytest.raises(DataFileError, match="line 1"):
        book.add(GOOD_NIGHT)
    assert data.read_text() == "half a li"


def test_a_folder_that_cannot_be_written_is_told_and_nothing_counted(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    book = LessonBook(tmp_path / "data.jsonl")
    (tmp_path / "data.jsonl").symlink_to("/proc/data.jsonl")
    with pytest.raises(StorageError, match=r"cannot write /proc/data\.jsonl"):
        book.add(GOOD_NIGHT)
    assert book.example_count == 0


def test_a_device_without_data_says_which_setting_is_missing() -> None:
    assert LessonBook(None).example_count == 0
    with pytest.raises(UsageError, match="set data = "):
        LessonBook(None).add(GOOD_NIGHT)


@pytest.mark.parametrize(
    ("lesson", "complaint"),
    [
        (Lesson(" ", "b"), "the question is empty"),
        (Lesson("a", "\n"), "the answer is empty"),
        (Lesson("a", "\ud800"), "half a character"),
    ],
)
def test_what_is_no_lesson_is_refused(tmp_path: Path, lesson: Lesson, complaint: str) -> None:
    with pytest.raises(UsageError, match=complaint):
        LessonBook(tmp_path / "data.jsonl").add(lesson)
    assert not (tmp_path / "data.jsonl").exists()


def test_lessons_of_many_teachers_at_once_are_all_kept(tmp_path: Path) -> None:
    book = LessonBook(tmp_path / "data.jsonl")
    teachers = [
        threading.Thread(target=book.add, args=(Lesson(f"question {number}", "answer"),))
        for number in range(8)
    ]
    for one in teachers:
        one.start()
    for one in teachers:
        one.join()
    assert len(read_examples(tmp_path / "data.jsonl")) == 8
