"""Whether a question may be steered: what the operator allows, against what the asker wants. Pure.

Steering sends the tokens of question and answer to the coordinator, so nobody does it unasked.
"""

from typing import Literal

from edge_runtime.question import Mode

SharePolicy = Literal["never", "ask", "always"]


def choose_mode(policy: SharePolicy, wanted: Mode | None, *, has_large: bool) -> tuple[Mode, str]:
    """How to answer a question.

    Args:
        policy: The device's `assistant.share_questions`.
        wanted: What the asker says for this question; None: nothing.
        has_large: Whether there is a large model at all.

    Returns:
        The mode, and why it is not the one that was wanted; empty if it is.
    """
    if wanted == "local" or (wanted is None and policy != "always"):
        return "local", ""
    if policy == "never":
        return "local", "questions stay on this device (share_questions = never)"
    if not has_large:
        return "local", "this assistant has no large model to ask" if wanted else ""
    return "steered", ""


def must_ask(policy: SharePolicy, wanted: Mode | None, *, has_large: bool) -> bool:
    """Whether only the asker can say: nothing is wished yet, and steering is possible."""
    return policy == "ask" and wanted is None and has_large
