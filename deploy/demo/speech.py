"""How the package's sentence templates are narrowed to what people say, by language. Tables only.

The templates are made for recognition: they accept far more than anybody says. Every pattern here
answers to a kind of sentence that came out wrong.
"""

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class Language:
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


LANGUAGES: Final = {
    "en": Language(
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
    "es": Language(
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
