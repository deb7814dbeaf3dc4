"""The demonstration's data: disjoint, natural, unlike from home to home, the same every time."""

import json
import os
import random
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Iterable
from itertools import combinations

import pytest

from deploy.demo import smart_home
from deploy.demo.homes import Home
from deploy.demo.smart_home import (
    SYSTEM_PROMPT,
    SmartHomeData,
    intent_of,
    make_smart_home_data,
)
from fedpt.errors import UsageError
from fedpt.examples import Example

SPANISH = {"el", "la", "las", "al", "del", "de", "apaga", "aspira", "crea", "limpia", "pon"}


@pytest.fixture(scope="module")
def data() -> SmartHomeData:
    return make_smart_home_data()


@pytest.fixture(scope="module")
def private(data: SmartHomeData) -> list[Example]:
    return [example for examples in data.private.values() for example in examples]


@pytest.fixture(scope="module")
def examples(data: SmartHomeData, private: list[Example]) -> list[Example]:
    return [*private, *data.evaluation]


@pytest.fixture(scope="module")
def prompts(data: SmartHomeData, examples: list[Example]) -> list[str]:
    return [*(example.prompt for example in examples), *data.public_prompts]


def count_intents(examples: Iterable[Example]) -> Counter[str | None]:
    return Counter(intent_of(example.answer) for example in examples)


def slots_of(example: Example) -> dict[str, str | int]:
    slots: dict[str, str | int] = json.loads(example.answer)
    return slots


def is_spanish(prompt: str) -> bool:
    return not SPANISH.isdisjoint(prompt.split())


def test_every_split_has_the_number_asked_for() -> None:
    data = make_smart_home_data(devices=2, examples_per_device=7, public=5, evaluation=3, seed=1)
    assert [len(examples) for examples in data.private.values()] == [7, 7]
    assert (len(data.public_prompts), len(data.evaluation)) == (5, 3)


def test_no_evaluation_sentence_is_private(data: SmartHomeData, private: list[Example]) -> None:
    said = {example.prompt.casefold() for example in private}
    assert said.isdisjoint(example.prompt.casefold() for example in data.evaluation)


def test_no_sentence_comes_twice_anywhere(prompts: list[str]) -> None:
    assert [prompt for prompt, n in Counter(map(str.casefold, prompts)).items() if n > 1] == []


def test_the_same_seed_gives_the_same_data(data: SmartHomeData) -> None:
    assert make_smart_home_data() == data


def test_another_seed_gives_other_data() -> None:
    other = make_smart_home_data(examples_per_device=20, seed=1)
    assert other.private["loft"] != make_smart_home_data(examples_per_device=20).private["loft"]


@pytest.mark.parametrize("hash_seed", ["1", "2"])
def test_the_data_does_not_depend_on_hash_randomisation(hash_seed: str) -> None:
    code = (
        "from deploy.demo.smart_home import make_smart_home_data as make;"
        "import sys; sys.stdout.buffer.write(repr(make(examples_per_device=9, seed=5)).encode())"
    )
    environment = {
        **os.environ,
        "PYTHONHASHSEED": hash_seed,
        "PYTHONPATH": os.pathsep.join(sys.path),
    }
    run = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, check=True, timeout=60
    )
    assert run.stdout.decode() == repr(make_smart_home_data(examples_per_device=9, seed=5))


def test_every_answer_is_compact_json_that_begins_with_the_intent(
    examples: list[Example],
) -> None:
    for example in examples:
        slots = slots_of(example)
        assert example.answer == json.dumps(slots, separators=(",", ":"), ensure_ascii=False)
        assert next(iter(slots)) == "intent"
        assert intent_of(example.answer) == slots["intent"]


def test_a_slot_s_value_is_in_the_sentence(examples: list[Example]) -> None:
    for example in examples:
        slots = slots_of(example)
        for slot in slots.keys() - {"intent", "domain", "color"}:
            value = re.escape(str(slots[slot]))
            assert re.search(rf"(?<!\w){value}(?!\w)", example.prompt), example


def test_an_answer_keeps_its_slots_in_one_order(examples: list[Example]) -> None:
    pairs = {pair for example in examples for pair in combinations(slots_of(example), 2)}
    assert [pair for pair in pairs if pair[::-1] in pairs] == []


def test_answers_are_short(examples: list[Example]) -> None:
    assert max(len(example.answer) for example in examples) <= 80


def test_no_sentence_has_template_debris(prompts: list[str]) -> None:
    assert [prompt for prompt in prompts if re.search(r"[\[\](){}<>|:;_]|  |^ | $", prompt)] == []


def test_sentences_are_lower_case_and_3_to_16_words_long(prompts: list[str]) -> None:
    assert all(prompt == prompt.lower() for prompt in prompts)
    assert all(3 <= len(prompt.split()) <= 16 for prompt in prompts)


@pytest.mark.parametrize(
    "debris", ["the the", "a the", "del el", "del la", "de el", "de del", "1 minutes"]
)
def test_nothing_is_said_that_nobody_says(prompts: list[str], debris: str) -> None:
    assert [prompt for prompt in prompts if re.search(rf"\b{debris}\b", prompt)] == []


def test_every_example_has_the_one_short_system_prompt(examples: list[Example]) -> None:
    assert {example.system for example in examples} == {SYSTEM_PROMPT}
    assert len(SYSTEM_PROMPT.split()) <= 12


def test_the_last_of_three_devices_speaks_another_language(data: SmartHomeData) -> None:
    loft, cottage, piso = data.private.values()
    assert not any(is_spanish(example.prompt) for example in [*loft, *cottage])
    assert [example.prompt for example in piso if not is_spanish(example.prompt)] == []


def test_homes_use_other_intents(data: SmartHomeData) -> None:
    loft, cottage, piso = (count_intents(examples) for examples in data.private.values())
    for one, other in ((loft, cottage), (cottage, piso), (loft, piso)):
        overlap = (one & other).total() / one.total()
        assert overlap < 0.7
    assert loft["HassMediaNext"] > 0
    assert cottage["HassMediaNext"] == piso["HassMediaNext"] == 0


def test_homes_have_other_things(data: SmartHomeData) -> None:
    loft, cottage, piso = (
        {slots_of(example).get("name") for example in examples} - {None}
        for examples in data.private.values()
    )
    assert loft.isdisjoint(cottage | piso)
    assert cottage.isdisjoint(piso)


def test_evaluation_has_the_homes_intents_and_languages_in_proportion(
    data: SmartHomeData, private: list[Example]
) -> None:
    held_out = count_intents(data.evaluation)
    for intent, count in count_intents(private).items():
        assert abs(held_out[intent] - count * len(data.evaluation) / len(private)) < 3
    assert sum(is_spanish(example.prompt) for example in data.evaluation) == 16


def test_public_prompts_name_nothing_that_a_device_has(
    data: SmartHomeData, private: list[Example]
) -> None:
    names = {str(slots_of(example).get("name", "\0")) for example in private}
    pattern = re.compile(rf"\b({'|'.join(map(re.escape, names))})\b")
    assert [prompt for prompt in data.public_prompts if pattern.search(prompt)] == []


def test_one_device_is_enough() -> None:
    data = make_smart_home_data(devices=1, examples_per_device=30, public=6, evaluation=6)
    assert list(data.private) == ["loft"]


def test_more_devices_than_homes_have_other_names_and_rooms() -> None:
    data = make_smart_home_data(devices=6, examples_per_device=40, public=6, evaluation=6)
    rooms = {
        name: {slots_of(example).get("area") for example in examples}
        for name, examples in data.private.items()
    }
    assert list(rooms) == ["loft", "cottage", "piso", "casa", "loft-2", "cottage-2"]
    assert rooms["loft"] != rooms["loft-2"]


@pytest.mark.parametrize("count", ["devices", "examples_per_device", "public", "evaluation"])
def test_a_senseless_count_is_refused_by_name(count: str) -> None:
    with pytest.raises(UsageError, match=f"{count}=-1"):
        make_smart_home_data(**{count: -1})


def test_a_home_with_too_few_sentences_says_how_many_it_has() -> None:
    home = Home("hut", "en", ("the kitchen",), {}, (), {"HassVacuumCleanArea": 1})
    grammar = smart_home._load_grammar("en")
    with pytest.raises(UsageError, match="'hut' has 2 different sentences left, 9 were asked for"):
        smart_home._draw(grammar, home, 9, random.Random(0), taken=set())


@pytest.mark.parametrize(
    ("response", "intent"),
    [
        ('{"intent":"HassTurnOff","area":"kitchen"}', "HassTurnOff"),
        ('Sure! {"intent": "HassTurnOn", "area"', "HassTurnOn"),
        ('{"area":"kitchen","intent":"HassLightSet"', "HassLightSet"),
        ('{"intent":"HassTurn', None),
        ('{"intent":null}', None),
        ("the lamp is off", None),
        ("", None),
    ],
)
def test_an_intent_is_read_from_an_answer_even_if_malformed(
    response: str, intent: str | None
) -> None:
    assert intent_of(response) == intent
