"""What a board's models remember of earlier conversations: a few, the least recently used goes.

Each conversation has its own share of the caches of expert and antiexpert. Two programs that ask by
turns, a chat and a home's automation, each find their long beginning still there.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from fedpt.drivers.llama import CachedText, LlamaContext
from fedpt.token_texts import common_prefix


@dataclass(frozen=True, slots=True, eq=False)
class Conversation:
    """One conversation's texts."""

    expert: CachedText
    antiexpert: CachedText


class PromptCache:
    """The conversations in two contexts. Belongs to the adapter that the expert has."""

    def __init__(self, expert: LlamaContext, antiexpert: LlamaContext) -> None:
        """Remember nothing yet; the antiexpert's context may hold others' texts."""
        for sequence in range(antiexpert.sequences):
            antiexpert.forget(sequence)
        self._conversations = [
            Conversation(CachedText(expert, sequence), CachedText(antiexpert, sequence))
            for sequence in range(expert.sequences)
        ]
        """The least recently used first."""

    @property
    def spare(self) -> Conversation:
        """The one that was not used for longest, for who needs the models but is no conversation.

        It stays the one that goes next, so that whoever uses it again and again displaces no other.
        """
        return self._conversations[0]

    def pick(self, prompt: Sequence[int]) -> tuple[Conversation, int]:
        """The conversation to go on with, and how much of the prompt its expert holds.

        The one that shares most of the prompt, the latest of equals, if that is most of what it
        holds or of the prompt; else the one that was not used for longest, so that a mere common
        opening displaces nothing.
        """
        shared = [common_prefix(one.expert.tokens, prompt) for one in self._conversations]
        best = max(range(len(shared)), key=lambda place: (shared[place], place))
        held = len(self._conversations[best].expert.tokens)
        place = best if 2 * shared[best] >= min(held, len(prompt)) and shared[best] else 0
        conversation = self._conversations.pop(place)
        self._conversations.append(conversation)
        return conversation, shared[place]
