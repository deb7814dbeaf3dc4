import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_runtime.answer_options import PLAIN_OPTIONS, option_rows, sampling_of, with_option
from fedpt.decoding.sampling import Sampling
from fedpt.errors import UsageError


@pytest.mark.parametrize("text", ["temperature 0.7", "temperature=0.7", " temperature  0.7 "])
def test_an_option_is_set_by_its_name(text: str) -> None:
    assert with_option(PLAIN_OPTIONS, text).sampling == Sampling(temperature=0.7)


def test_each_option_that_is_listed_can_be_set_to_what_is_listed() -> None:
    options = with_option(PLAIN_OPTIONS, "max-tokens 7")
    for name, value in option_rows(options):
        assert with_option(options, f"{name} {value}") == options


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("colour red", "no option 'colour'; there are max-tokens, min-p"),
        ("temperature", "give a value: /set temperature 0"),
        ("temperature hot", "temperature is a number, got 'hot'"),
        ("temperature -1", "this cannot be"),
        ("temperature nan", "this cannot be"),
        ("top-p 0", "this cannot be"),
        ("top-k 1.5", "top-k is a number, got '1.5'"),
        ("max-tokens 0", "max-tokens is a whole number of 1 or more"),
        ("max-tokens ²", "max-tokens is a whole number"),
        ("seed -1", "this cannot be"),
    ],
)
def test_what_cannot_be_set_is_told(text: str, complaint: str) -> None:
    with pytest.raises(UsageError, match=complaint):
        with_option(PLAIN_OPTIONS, text)


@given(st.text())
def test_any_text_is_an_option_or_a_usage_error(text: str) -> None:
    with contextlib.suppress(UsageError):
        assert with_option(PLAIN_OPTIONS, text) != PLAIN_OPTIONS


@pytest.mark.parametrize(
    "options", [Sampling(top_p=0.9), Sampling(top_k=4), Sampling(min_p=0.1), Sampling(seed=1)]
)
def test_what_does_nothing_without_a_temperature_is_refused(options: Sampling) -> None:
    with pytest.raises(UsageError, match="without --temperature nothing is left to chance"):
        sampling_of(options)


def test_bounds_hold_for_options_too() -> None:
    with pytest.raises(UsageError, match="top_p"):
        sampling_of(Sampling(temperature=1, top_p=0))
