"""Windows of tokens: everything once, nothing alone."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from converters.text_windows import read_text, windows
from fedpt.errors import DataFileError


@given(count=st.integers(0, 60), size=st.integers(2, 20))
def test_every_token_is_in_one_window(count: int, size: int) -> None:
    found = list(windows(range(count), size))
    rest = [count - 1] if count % size == 1 else []  # a token alone foretells nothing
    assert [token for window in found for token in window] + rest == list(range(count))
    assert all(2 <= len(window) <= size for window in found)


def test_each_window_begins_as_texts_of_the_model_do() -> None:
    assert list(windows([5, 6, 7, 8, 9], 3, begin=1)) == [[1, 5, 6], [1, 7, 8], [1, 9]]


@pytest.mark.parametrize(
    ("content", "message"), [(b"", "holds no text"), (b"\xff\xfe", "cannot read the text")]
)
def test_what_is_no_text_is_refused(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "t.txt").write_bytes(content)
    with pytest.raises(DataFileError, match=message):
        read_text(tmp_path / "t.txt")


def test_a_missing_text_is_told(tmp_path: Path) -> None:
    with pytest.raises(DataFileError, match="cannot read the text"):
        read_text(tmp_path / "none.txt")
