"""Stop strings in a text that comes in pieces. Pure."""

from collections.abc import Sequence


class StopStrings:
    """Lets text through until one of the strings comes; holds back what may be its beginning."""

    def __init__(self, strings: Sequence[str]) -> None:
        self._strings = [one for one in strings if one]
        self._held = ""
        self.is_hit = False
        """Whether a string came; it and what follows it are not let through."""

    def feed(self, piece: str) -> str:
        """What can be shown now."""
        text = self._held + piece
        places = [place for one in self._strings if (place := text.find(one)) >= 0]
        if places:
            self.is_hit, self._held = True, ""
            return text[: min(places)]
        cut = len(text) - self._maybe_begun(text)
        self._held = text[cut:]
        return text[:cut]

    def rest(self) -> str:
        """What was held back, once no more text comes."""
        text, self._held = self._held, ""
        return text

    def _maybe_begun(self, text: str) -> int:
        """Characters at the end that a stop string may begin with."""
        longest = max((len(one) for one in self._strings), default=1) - 1
        for size in range(min(longest, len(text)), 0, -1):
            if any(one.startswith(text[-size:]) for one in self._strings):
                return size
        return 0
