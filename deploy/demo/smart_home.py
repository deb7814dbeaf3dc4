"""Data for the demonstration: what people say to their smart homes, and the intent they mean.

A device stands for one home: its rooms and things, its language, its mix of intents, so the data
of a federation is as unlike as in life. The sentences are random expansions of the templates in
`home-assistant-intents` (CC-BY-4.0), parsed by `hassil`. Those templates are made for
recognition: they accept far more than anybody says. So each language here narrows them with
plainer rules, and with patterns of how a sentence begins and what it never contains.

Knows nothing of models, files or devices; `fedpt.examples` writes what this makes.
"""

import json
import random
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, NamedTuple

from hassil import expression as tree
from hassil.parse_expression import parse_sentence
from hassil.sample import sample_expression
from home_assistant_intents import get_intents

from deploy.demo.homes import HOMES, INTENTS, NEIGHBOURS, Home
from deploy.demo.speech import LANGUAGES
from fedpt.errors import UsageError
from fedpt.examples import Example

SYSTEM_PROMPT: Final = "Answer each smart-home command with its intent as JSON."


@dataclass(frozen=True, slots=True)
class SmartHomeData:
    """A federation's data; no sentence is in it twice, whatever its case."""

    private: Mapping[str, tuple[Example, ...]]
    """By device, named as its home."""
    public_prompts: tuple[str, ...]
    """For distillation: other rooms and things, the same intents and languages, no answers."""
    evaluation: tuple[Example, ...]
    """Held out: as many from each home, its intents as often as in its private examples."""


def make_smart_home_data(
    *,
    devices: int = 3,
    examples_per_device: int = 160,
    public: int = 96,
    evaluation: int = 48,
    seed: int = 0,
) -> SmartHomeData:
    """Make the data of a federation; the same arguments give the same data everywhere.

    The first two devices speak English, the next two Spanish; from the fifth on their homes come
    again with other rooms. An intent that has no new sentence left gives its place to others.

    Raises:
        UsageError: A count is senseless or beyond a home's sentences. The command line prints it.
    """
    if devices < 1 or min(examples_per_device, public, evaluation) < 0:
        raise UsageError(
            "smart-home data needs at least 1 device and no negative count, got "
            f"{devices=}, {examples_per_device=}, {public=}, {evaluation=}"
        )
    homes = [_nth_home(number, seed) for number in range(devices)]
    grammars = {language: _load_grammar(language) for language in {h.language for h in homes}}
    shares = zip(_share(evaluation, devices), _share(public, devices), strict=True)
    taken: set[str] = set()
    private: dict[str, tuple[Example, ...]] = {}
    held_out: list[Example] = []
    prompts: list[str] = []
    for home, (extra, shared) in zip(homes, shares, strict=True):
        grammar, rng = grammars[home.language], random.Random(f"{seed} {home.name}")
        examples = _draw(grammar, home, examples_per_device + extra, rng, taken=taken)
        held_out += _hold_out(examples, extra, rng)
        private[home.name] = tuple(examples)
        neighbour = replace(NEIGHBOURS[home.language], intents=home.intents)
        prompts += [
            example.prompt for example in _draw(grammar, neighbour, shared, rng, taken=taken)
        ]
    rng = random.Random(seed)
    rng.shuffle(held_out)
    rng.shuffle(prompts)
    return SmartHomeData(private, tuple(prompts), tuple(held_out))


def intent_of(response: str) -> str | None:
    """Read the intent's name from a generated answer, even one cut short or not quite JSON."""
    match = re.search(r'"intent"\s*:\s*"(\w+)"', response)
    return match[1] if match else None


_ATTEMPTS: Final = 600
"""Tries before a block counts as used up; one in two to one in fifty gives a natural sentence."""

_SLOT_ORDER: Final = (
    *("area", "name", "domain", "brightness", "color", "temperature", "position"),
    *("volume_level", "hours", "minutes", "item"),
)

_NUMBERS: Final[Mapping[str, Sequence[int]]] = {
    "brightness": range(5, 101, 5),
    "temperature": range(16, 26),
    "position": range(5, 100, 5),
    "volume": range(10, 91, 5),
    "timer_hours": range(2, 8),
    "timer_minutes": (2, 3, 4, 5, 6, 7, 9, 10, 12, 15, 20, 25, 30, 35, 40, 45, 50, 55),
}

_WORD_COUNTS: Final = range(3, 17)
_COLORS: Final = ("white", "red", "orange", "yellow", "green", "blue", "purple", "pink")
_FILLED_LISTS: Final = {"area", "name", "color", "shopping_list_item", *_NUMBERS}
_ARTICLES: Final = ("the", "el", "la")


class _Piece(NamedTuple):
    """A stretch of an expanded sentence: literal text, or a slot's value as it is said."""

    text: str
    shape: str
    slot: str = ""
    value: str | int = ""


@dataclass(frozen=True, slots=True)
class _Block:
    """Templates of one intent, the domains whose names fit them, and slots that go unsaid."""

    intent: str
    templates: tuple[tree.Sentence, ...]
    domains: tuple[str, ...]
    slots: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class _Grammar:
    rules: dict[str, tree.Sentence]
    said: re.Pattern[str]
    unsaid: re.Pattern[str]
    blocks: tuple[_Block, ...]
    colors: tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class _Scene:
    """Who speaks of what: all that an expansion depends on."""

    grammar: _Grammar
    home: Home
    block: _Block
    rng: random.Random


def _share(total: int, parts: int) -> list[int]:
    return [total // parts + (part < total % parts) for part in range(parts)]


def _nth_home(number: int, seed: int) -> Home:
    lap, index = divmod(number, len(HOMES))
    mix = {intent: often[index] for intent, (_, often) in INTENTS.items() if often[index]}
    home = replace(HOMES[index], intents=mix)
    if not lap:
        return home
    known = sorted({room for h in HOMES if h.language == home.language for room in h.rooms})
    rooms = random.Random(f"{seed} rooms {number}").sample(known, len(home.rooms))
    return replace(home, name=f"{home.name}-{lap + 1}", rooms=tuple(rooms))


def _load_grammar(code: str) -> _Grammar:
    source = get_intents(code)
    if source is None:
        raise UsageError(f"home-assistant-intents has no sentences for the language {code!r}")
    language = LANGUAGES[code]
    plain = dict(pair.split(": ") for pair in language.rules.split("; "))
    texts = {**source["expansion_rules"], **plain}
    rules = {name: parse_sentence(text) for name, text in texts.items()}
    blocks = tuple(
        block
        for intent in INTENTS
        for entry in source["intents"][intent]["data"]
        if (block := _read_block(intent, entry, rules)).templates
    )
    colors = tuple(
        (next(iter(sample_expression(parse_sentence(color["in"]).expression))), color["out"])
        for color in source["lists"]["color"]["values"]
        if color["out"] in _COLORS
    )
    said, unsaid = re.compile(rf"({language.said})\b"), re.compile("|".join(language.unsaid))
    return _Grammar(rules, said, unsaid, blocks, colors)


def _read_block(
    intent: str,
    entry: Mapping[str, Any],  # Any: JSON, typed so by the package that reads it
    rules: dict[str, tree.Sentence],
) -> _Block:
    """Keep the templates whose slots can all be filled sensibly; there may be none."""
    domains = tuple(entry.get("requires_context", {}).get("domain", ()))
    slots = entry.get("slots", {})
    is_apt = slots.get("domain", "light") == "light" and (
        not domains or INTENTS[intent][0] in domains
    )
    fillable = _FILLED_LISTS if domains else _FILLED_LISTS - {"name"}
    templates = tuple(
        template
        for template in map(parse_sentence, entry["sentences"])
        if is_apt and fillable.issuperset(template.list_names(rules))
    )
    is_switched = intent in ("HassTurnOn", "HassTurnOff")
    return _Block(intent, templates, domains, slots if is_switched else {})


def _draw(
    grammar: _Grammar, home: Home, count: int, rng: random.Random, *, taken: set[str]
) -> list[Example]:
    """Draw sentences that are not taken, and take them."""
    scenes = [
        _Scene(grammar, home, block, rng)
        for block in grammar.blocks
        if block.intent in home.intents and (_names(home, block) or not block.domains)
    ]
    blocks_of = Counter(scene.block.intent for scene in scenes)
    weights = [home.intents[s.block.intent] / blocks_of[s.block.intent] for s in scenes]
    examples: list[Example] = []
    while len(examples) < count:
        if not any(weights):
            raise UsageError(
                f"the home {home.name!r} has {len(examples)} different sentences left, "
                f"{count} were asked for: ask for fewer, or for fewer devices"
            )
        (index,) = rng.choices(range(len(scenes)), weights)
        tries = (_say(scenes[index]) for _ in range(_ATTEMPTS))
        example = next((e for e in tries if e and e.prompt.casefold() not in taken), None)
        if example is None:
            weights[index] = 0
        else:
            taken.add(example.prompt.casefold())
            examples.append(example)
    return examples


def _hold_out(examples: list[Example], count: int, rng: random.Random) -> list[Example]:
    """Take `count` examples out, each intent as often as it is there; shuffle the rest."""
    rng.shuffle(examples)
    examples.sort(key=lambda example: intent_of(example.answer) or "")
    picked = [(2 * nth + 1) * len(examples) // (2 * count) for nth in range(count)]
    held_out = [examples.pop(index) for index in reversed(picked)]
    rng.shuffle(examples)
    return held_out


def _names(home: Home, block: _Block) -> list[str]:
    return [name for domain in block.domains for name in home.things.get(domain, ())]


def _say(scene: _Scene) -> Example | None:
    """Expand one template at random; None if nobody would say the result."""
    template = scene.rng.choice(scene.block.templates)
    pieces = list(_expand(template.expression, scene))
    text = " ".join("".join(piece.text for piece in pieces).lower().split())
    shape = " ".join("".join(piece.shape for piece in pieces).lower().split())
    is_said = scene.grammar.said.match(shape) and not scene.grammar.unsaid.search(shape)
    if not is_said or len(text.split()) not in _WORD_COUNTS:
        return None
    slots = {piece.slot: piece.value for piece in pieces if piece.slot}
    answer = _answer(scene.block.intent, {**scene.block.slots, **slots})
    return Example(text, answer, SYSTEM_PROMPT)


def _answer(intent: str, slots: Mapping[str, str | int]) -> str:
    ordered = {slot: slots[slot] for slot in _SLOT_ORDER if slot in slots}
    return json.dumps({"intent": intent, **ordered}, separators=(",", ":"), ensure_ascii=False)


def _expand(expression: tree.Expression, scene: _Scene) -> Iterator[_Piece]:
    match expression:
        case tree.TextChunk():
            yield _Piece(expression.original_text, expression.original_text)
        case tree.ListReference():
            yield _fill(expression, scene)
        case tree.RuleReference():
            yield from _expand(scene.grammar.rules[expression.rule_name].expression, scene)
        case tree.Alternative():
            yield from _expand(scene.rng.choice(expression.items), scene)
        case tree.Group():
            is_free = isinstance(expression, tree.Permutation)
            items = expression.items
            for item in scene.rng.sample(items, len(items)) if is_free else items:
                yield from _expand(item, scene)


def _fill(reference: tree.ListReference, scene: _Scene) -> _Piece:
    slot, choose = reference.slot_name, scene.rng.choice
    match reference.list_name:
        case "area":
            return _noun_piece(slot, choose(scene.home.rooms))
        case "name":
            return _noun_piece(slot, choose(_names(scene.home, scene.block)))
        case "shopping_list_item":
            return _noun_piece(slot, choose(scene.home.groceries))
        case "color":
            text, color = choose(scene.grammar.colors)
            return _Piece(text, f"<:{slot}>", slot, color)
        case number:
            value = choose(_NUMBERS[number])
            return _Piece(str(value), f"<:{slot}>", slot, value)


def _noun_piece(slot: str, noun: str) -> _Piece:
    article, _, bare = noun.partition(" ")
    if article not in _ARTICLES:
        article, bare = "", noun
    return _Piece(bare, f"<{article}:{slot}>", slot, bare)
