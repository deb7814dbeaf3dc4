"""What someone asks, and how it may be answered; what an answer is made of."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import msgspec

from fedpt.chat import ChatMessage
from fedpt.decoding.sampling import GREEDY, Sampling
from fedpt.proxy_tuning import Coefficients

Mode = Literal["local", "steered"]

Where = Literal["logits", "tokens"]
"""What steers an answer: the board, by combining logits; or a worker, which sends tokens."""

Ended = Literal["complete", "length", "stop"]


@dataclass(frozen=True, slots=True)
class Question:
    """A question, or a text to go on with."""

    messages: tuple[ChatMessage, ...] = ()
    """A conversation, the latest last; it goes through the model's chat template."""
    text: str = ""
    """Instead: a text to continue, as it is."""
    mode: Mode = "local"
    max_tokens: int | None = None
    """None: the device's own limit."""
    sampling: Sampling = GREEDY
    stop: tuple[str, ...] = ()
    """The answer ends before any of these."""
    grammar: str = ""
    """GBNF that the answer must keep to; empty: none."""
    tools: tuple[Mapping[str, object], ...] = ()
    """Functions that the model may call, as OpenAI's API describes them."""
    top_logprobs: int | None = None
    """With every token, its log-probability and those of so many likeliest; None: none of it."""


def user_question(text: str, mode: Mode = "local", *, max_tokens: int | None = None) -> Question:
    """A single question, without anything before it."""
    return Question((ChatMessage(role="user", content=text),), mode=mode, max_tokens=max_tokens)


class TokenScore(msgspec.Struct, frozen=True):
    """A token and its log-probability, nats."""

    token: str
    logprob: float
    utf8: bytes = b""


class TokenFacts(msgspec.Struct, frozen=True):
    """A token of an answer, and what else was likely there."""

    chosen: TokenScore
    top: tuple[TokenScore, ...]


@dataclass(frozen=True, slots=True)
class Piece:
    """Some text of an answer, as soon as it can be shown; maybe empty, where only facts come."""

    text: str
    is_steered: bool = False
    facts: TokenFacts | None = None


@dataclass(frozen=True, slots=True)
class Notice:
    """Steering has ended or begun again in mid-answer."""

    is_steered: bool
    reason: str = ""


class Steps(msgspec.Struct, frozen=True, kw_only=True):
    """What steering an answer took."""

    where: Where
    round_trips: int = 0
    bytes_up: int = 0
    bytes_down: int = 0
    tokens_sent: int = 0
    """Tokens of question and answer that left the board."""
    drafts: int = 0
    """Drafts that the large model has judged."""
    drafts_right: int = 0
    certain_at_once: int = 0
    """Of these, rows whose first reply was enough to be sure."""
    largest_doubt: float = 0.0
    """Of the steered tokens: total variation from whole rows, at most."""
    is_approximate: bool = False
    """Whether the large model is a server whose rows may be off by more than they say."""
    waited_s: float = 0.0
    network_s: float = 0.0
    """A round trip without the model's work, median."""


class AnswerSummary(msgspec.Struct, frozen=True, kw_only=True):
    """What an answer was made of; comes after its last piece."""

    mode: Mode
    text: str
    tokens: int
    steered_tokens: int
    fallback: str
    """Why the large model was not asked to the end; empty if it was, or was not to be."""
    ended: Ended
    adapter: str
    """The expert's adapter; empty for the small model as it was pre-trained."""
    is_personal: bool = False
    """Whether that is this board's own adapter, which only it has."""
    coefficients: Coefficients | None
    """(alpha, beta, gamma) of a steered answer."""
    prompt_tokens: int
    cached_tokens: int
    """Of the prompt, tokens that were still in the cache."""
    first_token_s: float
    seconds: float
    steps: Steps | None = None
    """None: nothing was steered."""
