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
from dataclasses import dataclass, field, replace
from typing import Any, Final, NamedTuple

from hassil import expression as tree
from hassil.parse_expression import parse_sentence
from hassil.sample import sample_expression
from home_assistant_intents import get_intents

from fedpt.errors import UsageError
from fedpt.examples import Example

SYSTEM_PROMPT: Final = "Answer each smart-home command with its intent as JSON."


@dataclass(frozen=True, slots=True)
class Home:
    """A device's home: what is in it, and what its people ask for.

    Rooms, things and groceries are written as they are said, with their article where the
    language needs one; the article never becomes part of an answer.
    """

    name: str
    language: str
    rooms: tuple[str, ...]
    things: Mapping[str, tuple[str, ...]]
    """Names by Home Assistant domain: light, switch, media_player, climate, cover, vacuum."""
    groceries: tuple[str, ...]
    intents: Mapping[str, int] = field(default_factory=dict)
    """How often each intent is used, relative to the others."""


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
        examples = _draw(grammar, home, examples_per_device + extra, rng, taken)
        held_out += _hold_out(examples, extra, rng)
        private[home.name] = tuple(examples)
        neighbour = replace(_NEIGHBOURS[home.language], intents=home.intents)
        prompts += [example.prompt for example in _draw(grammar, neighbour, shared, rng, taken)]
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


@dataclass(frozen=True, slots=True)
class _Language:
    """How the package's templates are narrowed to what people say.

    The patterns look at a sentence's *shape*, where a value is ``<article:slot>`` and the article
    is the noun's own: "turn on the <the:name>", "limpia la <la:area>", "set the light to <:color>".
    """

    rules: str
    """Expansion rules in place of the package's: "name: rule", with "; " between them."""
    said: str
    """How a shape begins."""
    unsaid: tuple[str, ...]
    """What a shape never contains."""


_LANGUAGES: Final = {
    "en": _Language(
        rules="all: all the; clean: (clean|vacuum); close: close; here: here; home: house; "
        "everywhere: (everywhere|in the whole house); in: in; is: are; light: lights; "
        "media: (music|movie); numeric_value_set: (set|change); open: open; set: (set|change); "
        "temp: temperature; the: the; timer_set: (set|start); track: (song|track); "
        "turn: (turn|switch); what_is: (what is|what's)",
        said="turn|switch|set|change|adjust|pause|stop|skip|add|put|clean|vacuum|start|open|close|"
        "make sure|what|how (warm|cold)",
        unsaid=(
            # A noun has one article before it, or a room as in "the kitchen radio".
            r"(?<!the )<the:area>|(?<!the )(?<!<the:area> )<the:name>|(>|%|percent) the\b|the the",
            r"(?<!the )(?<!> )(?<!:)\b(lights|brightness|temperature|volume|color|movie)",
            r"(lights|brightness|temperature|volume|music|shows?|song|track) (the|this)\b|every ",
            r"(to|on) (shopping )?list|(set|start) (timer|<)|\b(an|the|my) (timer|<:)|put .* in ",
            # A value has "to" before it and its unit behind it.
            r"(?<!to )<:(brightness|color|position|temperature|volume_level)>",
            r":(name|area)> to <:(brightness|position|volume_level)>$|(>|%|percent) brightness$",
            r"> (minute|hour|degree)\b|-(minutes|hours)|for <:\w+>-|s timer$|hour.*-| [%°]",
            # Clear only to a recognizer.
            r"^(set|change) the <the:area> to|to (on|off)$|switch .*out|house lights|\bhere",
            r"media|shows|> show|pause (in|music|show|tv|my|the <the:area>$)|position\b(?!>)",
            r"skip (in|on|for|to next|song|track|(the|this) (?!song|track))|next\b(?! song| track)",
            r" for the <the:name>|of lights|color (?!of)|<the:area> (up|down)|turn (up|down) to",
        ),
    ),
    "es": _Language(
        rules="apaga: apaga; aquí: aquí; de_aqui: aquí; añadir: (añade|apunta); cual_es: cuál es; "
        "ejecuta: pon en marcha; enciende: enciende; establece: (pon|ajusta|cambia); "
        "establece_abre_cierra: (pon|abre|baja); establece_sube_baja: (pon|ajusta); "
        "limpiar: (limpia|aspira); lista_compra: la lista de la compra; luces: las luces; "
        "nb_hours: {timer_hours:hours}; nb_minutes: {timer_minutes:minutes}; todos: todas; "
        "porciento: por ciento; temp: la temperatura; temporizador: temporizador; "
        "timer_set: (pon|crea); todas_partes: de toda la casa",
        said="enciende|apaga|pon|ajusta|cambia|abre|baja|limpia|aspira|añade|apunta|crea|cuál",
        unsaid=(
            # A noun has its own article before it, fused with "de" if masculine, and none behind.
            r"(?<!el )(?<!del )<el:|(?<!la )<la:|\bdel (el|la)\b|\bde (el|del?)\b",
            r"(luces|brillo|volumen|color|temperatura|ahora|actual|mente|mismo|momento) (el|la)\b",
            r"(>|ciento|grados|°) (el|la)\b|(?<!el )\b(brillo|volumen|color)\b(?!>)|(?<!las )luces",
            # A value has its preposition before it and its unit behind it.
            r"(?<!al )<:(brightness|position|volume_level)>|(name|area)> al <:\w+>$|(?<!a )<:temp",
            r"ajusta .*<:color|pon .*(?<!en )<:color|cambia .*(?<!a )<:color",
            r"> (hora|minuto)\b|horas <| °|^\w+ temporizador|temporizador en",
            # Clear only to a recognizer.
            r"<:(brightness|color|temperature|volume_level)>.* del?\b|^\w+ (del?|en)\b(?! marcha)",
            r"\b(luz|mi|una|posición|dentro|aquí)\b|> actual\b|compras? <",
            r"^(apaga|enciende|pon|ajusta|cambia) (el|la) <\w+:area>",
            r"(ahora|mente|mismo|momento) del?\b",
        ),
    ),
}

_HOMES: Final = (
    Home(
        name="loft",
        language="en",
        rooms=("the kitchen", "the living room", "the bedroom", "the bathroom", "the office"),
        things={
            "light": ("the desk lamp", "the floor lamp", "the neon sign", "the light strip"),
            "switch": ("the coffee machine",),
            "media_player": ("the television", "the record player", "the speaker"),
        },
        groceries=("oat milk", "coffee", "tortilla chips", "limes"),
    ),
    Home(
        name="cottage",
        language="en",
        rooms=("the kitchen", "the dining room", "the nursery", "the hallway", "the basement"),
        things={
            "light": ("the chandelier", "the night light"),
            "switch": ("the electric blanket", "the kettle"),
            "climate": ("the radiator", "the thermostat"),
            "cover": ("the blinds", "the curtains", "the shutters"),
            "vacuum": ("the vacuum cleaner",),
        },
        groceries=("milk", "eggs", "bread", "butter", "apples", "nappies", "flour", "cheese"),
    ),
    Home(
        name="piso",
        language="es",
        rooms=("la cocina", "el salón", "el dormitorio", "el baño", "la terraza"),
        things={
            "light": ("la lámpara", "el foco", "la guirnalda"),
            "switch": ("la cafetera", "el calentador"),
            "media_player": ("la radio", "la tele"),
            "climate": ("el termostato",),
            "cover": ("la persiana", "el toldo"),
            "vacuum": ("el robot",),
        },
        groceries=("leche", "pan", "huevos", "arroz", "tomates", "aceite", "queso", "jamón"),
    ),
    Home(
        name="casa",
        language="es",
        rooms=("la cocina", "el comedor", "el garaje", "el pasillo", "el despacho"),
        things={
            "light": ("la farola", "la bombilla"),
            "switch": ("el riego", "la bomba"),
            "climate": ("la caldera", "la estufa"),
            "cover": ("la cortina", "la persiana"),
            "vacuum": ("la aspiradora",),
        },
        groceries=("patatas", "cebollas", "vino", "aceitunas", "naranjas", "café"),
    ),
)

_INTENTS: Final = {
    "HassTurnOn": ("switch", (4, 1, 3, 2)),
    "HassTurnOff": ("switch", (3, 2, 4, 2)),
    "HassLightSet": ("light", (5, 0, 3, 0)),
    "HassClimateSetTemperature": ("climate", (0, 5, 3, 4)),
    "HassClimateGetTemperature": ("climate", (0, 2, 0, 2)),
    "HassSetPosition": ("cover", (0, 3, 0, 4)),
    "HassSetVolume": ("media_player", (4, 0, 2, 0)),
    "HassMediaPause": ("media_player", (2, 0, 0, 0)),
    "HassMediaNext": ("media_player", (2, 0, 0, 0)),
    "HassVacuumCleanArea": ("vacuum", (0, 1, 1, 2)),
    "HassShoppingListAddItem": ("", (1, 3, 2, 3)),
    "HassStartTimer": ("", (0, 4, 2, 1)),
}
"""By intent: the domain that a template with a name must serve; its weight in each of `_HOMES`."""

_NEIGHBOURS: Final = {
    "en": Home(
        name="public-en",
        language="en",
        rooms=("the attic", "the garage", "the library", "the guest room", "the laundry room"),
        things={
            "light": ("the lantern", "the wall light", "the mirror light"),
            "switch": ("the printer", "the toaster"),
            "media_player": ("the stereo", "the jukebox"),
            "climate": ("the heater", "the boiler"),
            "cover": ("the awning", "the shades"),
            "vacuum": ("the cleaning robot",),
        },
        groceries=("sugar", "bananas", "yoghurt", "olive oil", "carrots", "toothpaste", "soap"),
    ),
    "es": Home(
        name="public-es",
        language="es",
        rooms=("el sótano", "la biblioteca", "el vestíbulo", "la buhardilla"),
        things={
            "light": ("el farol", "el aplique"),
            "switch": ("la impresora", "la tostadora"),
            "media_player": ("el equipo de música", "el tocadiscos"),
            "climate": ("el radiador",),
            "cover": ("el estor",),
            "vacuum": ("la barredora",),
        },
        groceries=("azúcar", "plátanos", "yogures", "lentejas", "jabón", "zanahorias"),
    ),
}
"""By language: the home that public prompts are about; it belongs to no device."""


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
    lap, index = divmod(number, len(_HOMES))
    mix = {intent: often[index] for intent, (_, often) in _INTENTS.items() if often[index]}
    home = replace(_HOMES[index], intents=mix)
    if not lap:
        return home
    known = sorted({room for h in _HOMES if h.language == home.language for room in h.rooms})
    rooms = random.Random(f"{seed} rooms {number}").sample(known, len(home.rooms))
    return replace(home, name=f"{home.name}-{lap + 1}", rooms=tuple(rooms))


def _load_grammar(code: str) -> _Grammar:
    source = get_intents(code)
    if source is None:
        raise UsageError(f"home-assistant-intents has no sentences for the language {code!r}")
    language = _LANGUAGES[code]
    plain = dict(pair.split(": ") for pair in language.rules.split("; "))
    texts = {**source["expansion_rules"], **plain}
    rules = {name: parse_sentence(text) for name, text in texts.items()}
    blocks = tuple(
        block
        for intent in _INTENTS
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
        not domains or _INTENTS[intent][0] in domains
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
    grammar: _Grammar, home: Home, count: int, rng: random.Random, taken: set[str]
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
