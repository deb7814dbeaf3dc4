"""What answers were made of, for tests that only read it."""

from edge_runtime.question import AnswerSummary, Steps

SUMMARY = AnswerSummary(
    mode="local",
    text="",
    tokens=2,
    steered_tokens=0,
    fallback="",
    ended="complete",
    adapter="a" * 64,
    coefficients=None,
    prompt_tokens=5,
    cached_tokens=3,
    first_token_s=0.5,
    seconds=1.0,
)
STEPS = Steps(
    where="logits", round_trips=2, bytes_up=700, bytes_down=1500, tokens_sent=31, drafts=4,
    drafts_right=3, certain_at_once=4, waited_s=0.25, network_s=0.1,
)  # fmt: skip
