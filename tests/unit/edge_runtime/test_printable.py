from hypothesis import given
from hypothesis import strategies as st

from edge_runtime.printable import printable


def test_a_terminal_gets_no_orders_from_a_model() -> None:
    assert printable("a\x1b]0;title\x07b\x9bc\r") == "a\ufffd]0;title\ufffdb\ufffdc\ufffd"


@given(st.text())
def test_all_that_is_printable_stays(text: str) -> None:
    shown = printable(text)
    assert len(shown) == len(text)
    assert all(one == other for one, other in zip(text, shown, strict=True)
               if one.isprintable() or one in "\t\n")  # fmt: skip
