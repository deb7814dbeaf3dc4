"""What metrics tell of a running training: a device's of itself, the coordinator's of devices."""

from typing import Final, NamedTuple


class Figure(NamedTuple):
    """One of them."""

    field: str
    """What messages call it."""
    name: str
    """What its metric is called, besides what is put before it."""
    text: str


TRAINING_FIGURES: Final = (
    Figure("tokens_per_s", "tokens_per_second", "Tokens a second, pauses left out."),
    Figure("loss", "loss", "Of the last step, nats a token."),
    Figure("held_out_nll", "held_out_nll", "The newest on held-out examples, nats a token."),
    Figure("seconds_left", "seconds_left", "Until training is done, unless it is paused, s."),
)
