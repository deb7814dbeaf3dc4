"""Which examples are held out."""

from edge_runtime.data.held_out import split
from fedpt.chat import EncodedExample


def examples(count: int) -> list[EncodedExample]:
    return [EncodedExample((1, number), (number, 2)) for number in range(count)]


def held_out(count: int) -> set[EncodedExample]:
    data = examples(count)
    return {data[index] for index in split(data)[1]}


def test_about_a_tenth_is_held_out_and_nothing_is_lost() -> None:
    kept, judges = split(examples(300))
    assert 15 <= len(judges) <= 45
    assert sorted([*kept, *judges]) == list(range(300))


def test_examples_stay_where_they_are_as_data_grows() -> None:
    assert held_out(100) < held_out(200) < held_out(300)


def test_of_few_examples_none_is_held_out() -> None:
    assert split(examples(19)) == (list(range(19)), [])
    assert split(examples(1)) == ([0], [])


def test_copies_of_an_example_are_never_on_both_sides() -> None:
    data = examples(60) * 2
    kept, judges = split(data)
    assert not {data[index] for index in kept} & {data[index] for index in judges}
