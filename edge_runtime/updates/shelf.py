"""What a device has of a kind of releases, as a value."""

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Shelf:
    """What there is of a kind."""

    current: str
    previous: str
    candidate: str
    """What must still prove itself; it is `current`, unless a switch to it was cut off."""
    tries_left: int
    highest_counter: int
    refused: Mapping[str, str]
    rolled_back: Mapping[str, object]
    round_release: str = ""
    """For adapters: the last that came with a round."""
