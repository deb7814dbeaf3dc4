"""How a training computes: what is kept, what is computed again, how much at once. Pure data."""

from typing import Literal, TypeAlias

import msgspec

Mode: TypeAlias = Literal["plain", "expanded", "mapped", "quanto"]
"""`plain`: transformers and PEFT as they are, the reference. `expanded`: the base's matrices are
kept expanded. `mapped`: they stay in the GGUF file, quantised, and are expanded layer by layer.
`quanto`: they are rounded once more, to int8 in memory, by optimum.quanto."""

Precision: TypeAlias = Literal["float32", "bfloat16"]


class How(msgspec.Struct, frozen=True, kw_only=True):
    """One way to train; all give the same losses, up to rounding, that of `quanto` to int8."""

    mode: Mode = "mapped"
    precision: Precision = "float32"
    """Of weights and activations; what is trained is always float32."""
    recompute: bool = True
    """Compute a layer's activations again in the backward pass, instead of keeping them."""
    thrifty: bool = False
    """Give memory back to the system as soon as it is free: nearly twice as slow, and smaller."""
    pass_tokens: int = 1024
    """Tokens that go through the model at once, padding included; a longer example goes alone."""
    context_tokens: int = 1024
    """Longer examples are cut."""

    @property
    def shown(self) -> str:
        """In a report, such as `mapped float32, activations again, 256 tokens at once`."""
        again = ", activations again" if self.recompute else ""
        thrifty = ", thrifty" if self.thrifty else ""
        return f"{self.mode} {self.precision}{again}{thrifty}, {self.pass_tokens} tokens at once"
