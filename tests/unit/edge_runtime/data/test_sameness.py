import unicodedata

import pytest

from edge_runtime.data.sameness import digest_of
from fedpt.examples import Example

ONE = Example("Öffne die Küche", "Ja.", "Du bist ein Haus.")


@pytest.mark.parametrize(
    "other",
    [
        Example(" Öffne die Küche\n", "\tJa. ", "Du bist ein Haus.  "),
        Example(unicodedata.normalize("NFD", ONE.prompt), "Ja.", ONE.system),
    ],
)
def test_spaces_around_and_the_way_to_write_accents_make_no_difference(other: Example) -> None:
    assert other != ONE
    assert digest_of(other) == digest_of(ONE)


@pytest.mark.parametrize(
    "other",
    [
        Example("Öffne die Küche", "Nein.", "Du bist ein Haus."),
        Example("Öffne die Küche", "Ja."),
        Example("Öffne  die Küche", "Ja.", "Du bist ein Haus."),
        Example("öffne die küche", "Ja.", "Du bist ein Haus."),
        Example("Ja.", "Öffne die Küche", "Du bist ein Haus."),
    ],
)
def test_anything_else_makes_another_example(other: Example) -> None:
    assert digest_of(other) != digest_of(ONE)


def test_texts_do_not_run_into_each_other() -> None:
    assert digest_of(Example("ab", "c")) != digest_of(Example("a", "bc"))
