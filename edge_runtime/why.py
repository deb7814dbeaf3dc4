"""What an answer came from, in words: for `--why` and `/why`. Pure."""

from typing import Final

from edge_runtime.question import AnswerSummary, Ended, Steps

_SHOWN_OF_A_HASH: Final = 12

_ENDS: Final[dict[Ended, str]] = {
    "complete": "by itself",
    "length": "cut off: the longest answer, or the context, was reached",
    "stop": "before a stop string",
}

_PLACES: Final = {
    "logits": "here, from the large model's logits",
    "tokens": "by a logit worker, which sent tokens",
}


def why_rows(summary: AnswerSummary) -> list[tuple[str, str]]:
    """Names and facts, the most important first."""
    rows = [
        ("answered", _answered(summary)),
        ("tokens", _tokens(summary)),
        ("speed", _speed(summary)),
        ("prompt", f"{summary.prompt_tokens} tokens, {summary.cached_tokens} of them cached"),
        ("ended", _ENDS[summary.ended]),
        ("adapter", _adapter(summary)),
    ]
    if summary.coefficients is not None and summary.steered_tokens:
        alpha, beta, gamma = summary.coefficients
        weights = f"{alpha:g} · expert + {beta:g} · large - {gamma:g} · antiexpert"
        rows.append(("coefficients", weights))
    if summary.steps is not None and summary.steered_tokens:
        rows.append(("steered", _PLACES[summary.steps.where]))
    if summary.fallback:
        rows.append(("fallback", summary.fallback))
    rows += _step_rows(summary.steps) if summary.steps else []
    return [*rows, ("left the board", _left(summary.steps))]


def why_text(summary: AnswerSummary) -> str:
    """The rows as lines, for where there is no screen."""
    rows = why_rows(summary)
    width = max(len(name) for name, _ in rows)
    return "\n".join(f"{name:{width}}  {fact}" for name, fact in rows)


def fallback_note(summary: AnswerSummary) -> str:
    """One line where an answer was to be steered and was not, or not all of it; else nothing."""
    if not summary.fallback:
        return ""
    if summary.mode == "local":
        return f"[answered by the board alone: {summary.fallback}]"
    alone = summary.tokens - summary.steered_tokens
    return f"[{alone} of {summary.tokens} tokens without the large model: {summary.fallback}]"


def _answered(summary: AnswerSummary) -> str:
    if not summary.steered_tokens:
        return "by the board alone"
    if summary.steered_tokens < summary.tokens:
        return "steered by the large model, in part"
    return "steered by the large model"


def _adapter(summary: AnswerSummary) -> str:
    if not summary.adapter:
        return "none: the small model as it is"
    name = summary.adapter[:_SHOWN_OF_A_HASH]
    return f"{name}, personal: trained here, and nowhere else" if summary.is_personal else name


def _tokens(summary: AnswerSummary) -> str:
    if summary.mode == "local" or not summary.tokens:
        return str(summary.tokens)
    return f"{summary.tokens}, {summary.steered_tokens} of them steered"


def _speed(summary: AnswerSummary) -> str:
    first = f"the first after {summary.first_token_s:.2f} s"
    rest_s = summary.seconds - summary.first_token_s
    if summary.tokens > 1 and rest_s > 0:
        return f"{(summary.tokens - 1) / rest_s:.1f} tokens/s, {first}"
    return first


def _step_rows(steps: Steps) -> list[tuple[str, str]]:
    rows = [("round trips", _round_trips(steps))]
    if steps.bytes_up or steps.bytes_down:
        rows.append(("bytes", f"{steps.bytes_up:,} up, {steps.bytes_down:,} down"))
    if steps.drafts:
        share = 1 - steps.drafts_right / steps.drafts
        changed = steps.drafts - steps.drafts_right
        rows += [
            ("large model's share", f"{share:.0%}: it changed {changed} of {steps.drafts} drafts"),
            ("certain at once", f"{steps.certain_at_once} of {steps.drafts} drafts"),
        ]
    if steps.largest_doubt:
        rows.append(("largest doubt", f"{steps.largest_doubt:.2%} of a token's probability"))
    if steps.is_approximate:
        rows.append(("exactness", "approximate: the large model's server tells few tokens"))
    return rows


def _round_trips(steps: Steps) -> str:
    network = f", {steps.network_s * 1000:.0f} ms each on the network" if steps.network_s else ""
    return f"{steps.round_trips}{network}, {steps.waited_s:.2f} s waited"


def _left(steps: Steps | None) -> str:
    if steps is None or not steps.tokens_sent:
        return "nothing"
    return f"{steps.tokens_sent} tokens of question and answer"
