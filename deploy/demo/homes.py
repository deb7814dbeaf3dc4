"""The demonstration's homes: their rooms and things, and what their people ask for. Tables only.

How a home's sentences are made of them is in `smart_home`.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final


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


HOMES: Final = (
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

INTENTS: Final = {
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
"""By intent: the domain that a template with a name must serve; its weight in each of `HOMES`."""

NEIGHBOURS: Final = {
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
