"""Stop strings in texts that come in pieces."""

from hypothesis import given
from hypothesis import strategies as st

from edge_runtime.stop_strings import StopStrings

texts = st.text(alphabet="ab.", max_size=12)


@given(st.lists(texts, max_size=8), st.lists(texts.filter(bool), max_size=3))
def test_what_comes_through_ends_before_the_first_stop_string(
    pieces: list[str], strings: list[str]
) -> None:
    stop, shown = StopStrings(strings), ""
    for piece in pieces:
        shown += stop.feed(piece)
        if stop.is_hit:
            break
    shown += stop.rest()
    whole = "".join(pieces)
    places = [whole.find(one) for one in strings if one in whole]
    if stop.is_hit:
        assert not any(one in shown for one in strings)
        assert whole.startswith(shown)
        assert any(whole[len(shown) :].startswith(one) for one in strings)
    else:
        assert not places
        assert shown == whole


def test_text_that_cannot_be_a_stop_string_is_not_held_back() -> None:
    stop = StopStrings(["\nUser:"])
    assert stop.feed("The lamp") == "The lamp"
    assert stop.feed(" is on\nUs") == " is on"
    assert stop.feed("ed") == "\nUsed"
