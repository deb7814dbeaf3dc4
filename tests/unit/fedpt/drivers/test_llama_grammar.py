"""Grammars over a tiny model's vocabulary, by llama.cpp's own sampler."""

import gc
import json
import re
from collections.abc import Iterator

import numpy as np
import pytest

from fedpt.drivers.llama import LlamaModel
from fedpt.drivers.llama_grammar import GrammarConstraint, schema_to_gbnf
from fedpt.errors import UsageError
from tests.fakes.tiny_federation import TinyFederation

pytestmark = pytest.mark.llama

SCHEMA = {
    "type": "object",
    "properties": {"on": {"type": "boolean"}, "level": {"type": "integer"}},
    "required": ["on", "level"],
    "additionalProperties": False,
}


@pytest.fixture(scope="module")
def model(tiny: TinyFederation) -> Iterator[LlamaModel]:
    with LlamaModel(tiny.small, vocabulary_only=True) as one:
        yield one


def written(model: LlamaModel, gbnf: str, seed: int, most: int = 60) -> tuple[str, bool]:
    """A text that random choices among the allowed tokens make, and whether it came to its end."""
    rng, constraint = np.random.default_rng(seed), GrammarConstraint.of_gbnf(model, gbnf)
    tokens: list[int] = []
    for _ in range(most):
        token = int(rng.choice(np.flatnonzero(constraint.allowed())))
        if model.is_end(token):
            return model.text(tokens), True
        tokens.append(token)
        constraint = constraint.after(token)
    return model.text(tokens), False


@pytest.mark.parametrize("seed", range(20))
def test_whatever_is_chosen_keeps_to_the_grammar(model: LlamaModel, seed: int) -> None:
    text, is_complete = written(model, 'root ::= ("on" | "off") "!" [0-9]{2}', seed)
    assert is_complete
    assert re.fullmatch(r"(on|off)![0-9]{2}", text)


@pytest.mark.parametrize("seed", range(10))
def test_a_schemas_texts_are_json_that_it_admits(model: LlamaModel, seed: int) -> None:
    text, is_complete = written(model, schema_to_gbnf(SCHEMA), seed, most=400)
    if is_complete:
        value = json.loads(text)
        assert set(value) == {"on", "level"}
        assert isinstance(value["on"], bool)


def test_a_few_tokens_are_judged_as_all_of_them(model: LlamaModel) -> None:
    gbnf = 'root ::= "The lamp" | "A window"'
    ids = np.array([3, 40, 200, 383])
    few = GrammarConstraint.of_gbnf(model, gbnf).allows(ids)
    assert few.tolist() == GrammarConstraint.of_gbnf(model, gbnf).allowed()[ids].tolist()


def test_a_constraint_is_a_value(model: LlamaModel) -> None:
    start = GrammarConstraint.of_gbnf(model, 'root ::= "ab" | "cd"')
    before = start.allowed().tolist()
    start.after(int(np.flatnonzero(start.allowed())[0]))
    gc.collect()
    fresh = GrammarConstraint.of_gbnf(model, 'root ::= "ab" | "cd"')
    assert before == fresh.allowed().tolist()


@pytest.mark.parametrize("gbnf", ["", "nonsense", "root ::= missing", 'other ::= "a"'])
def test_what_is_no_grammar_is_refused(model: LlamaModel, gbnf: str) -> None:
    with pytest.raises(UsageError, match="not a GBNF grammar with a rule 'root'"):
        GrammarConstraint.of_gbnf(model, gbnf)


def test_a_schema_that_cannot_be_a_grammar_is_refused() -> None:
    with pytest.raises(UsageError, match="cannot be made a grammar"):
        schema_to_gbnf({"$ref": "#/nowhere"})


def test_strings_of_a_schema_hold_no_line_ends(model: LlamaModel) -> None:
    constraint = GrammarConstraint.of_gbnf(model, schema_to_gbnf({"type": "string"}))
    [quote], [line_end], [letter] = (model.tokenize(one, special=False) for one in '"\na')
    allowed = constraint.after(quote).allowed()
    assert (bool(allowed[letter]), bool(allowed[line_end])) == (True, False)


def test_a_long_text_is_within_bounds_and_bottomless_groups_are_not(model: LlamaModel) -> None:
    schema = {"type": "string", "maxLength": 255}
    assert GrammarConstraint.of_gbnf(model, schema_to_gbnf(schema)).allowed().any()
    with pytest.raises(UsageError, match="more than 1000 deep"):
        GrammarConstraint.of_gbnf(model, "root ::= " + "(" * 2000 + '"a"' + ")" * 2000)


def test_what_the_parser_says_is_told(model: LlamaModel, capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(UsageError, match="number of repetitions exceeds sane defaults"):
        GrammarConstraint.of_gbnf(model, 'root ::= "a"{100000}')
    assert capfd.readouterr().err == ""
