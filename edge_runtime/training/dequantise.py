"""Quantised rows of a GGUF tensor to numbers, in torch: on any device, value for value llama.cpp's.

The types that boards use are computed here; all others by `gguf.quants`, slower and on the host.
"""

from collections.abc import Callable, Mapping
from typing import Final

import torch
from gguf import GGMLQuantizationType as Kind
from gguf.quants import dequantize

from fedpt.errors import ModelFileError

_SCALE_BYTES: Final = 2
"""A block's scale is a float16."""
_NIBBLE: Final = 4
_HALF: Final = 16
"""Of a block of 32 values: the low nibbles are the first half."""


def dequantise(rows: torch.Tensor, kind: Kind) -> torch.Tensor:
    """The values of quantised rows, float32.

    Args:
        rows: `(R, bytes)`, uint8, as in the file.
        kind: How they are quantised.

    Returns:
        `(R, columns)`, on the device of `rows`.

    Raises:
        ModelFileError: Nothing here can dequantise this type.
    """
    direct = _DIRECT.get(kind)
    if direct is not None:
        return direct(rows)
    try:
        values = dequantize(rows.cpu().numpy(), kind)
    except NotImplementedError as error:
        raise ModelFileError(f"{kind.name} cannot be dequantised here") from error
    return torch.from_numpy(values).to(rows.device)


def _plain(dtype: torch.dtype) -> Callable[[torch.Tensor], torch.Tensor]:
    return lambda rows: rows.view(dtype).float()


def _q8_0(rows: torch.Tensor) -> torch.Tensor:
    blocks = rows.view(len(rows), -1, _SCALE_BYTES + 32)
    scale = _halves(blocks, 0)
    values = blocks[..., _SCALE_BYTES:].view(torch.int8).float()
    return values.mul_(scale).view(len(rows), -1)


def _q4_0(rows: torch.Tensor) -> torch.Tensor:
    blocks = rows.view(len(rows), -1, _SCALE_BYTES + _HALF)
    values = _nibbles(blocks[..., _SCALE_BYTES:]).sub_(8.0)
    return values.mul_(_halves(blocks, 0)).view(len(rows), -1)


def _q4_1(rows: torch.Tensor) -> torch.Tensor:
    blocks = rows.view(len(rows), -1, 2 * _SCALE_BYTES + _HALF)
    values = _nibbles(blocks[..., 2 * _SCALE_BYTES :])
    values.mul_(_halves(blocks, 0)).add_(_halves(blocks, _SCALE_BYTES))
    return values.view(len(rows), -1)


def _halves(blocks: torch.Tensor, at: int) -> torch.Tensor:
    """A float16 of each block as float32, `(R, blocks, 1)`."""
    return blocks[..., at : at + _SCALE_BYTES].contiguous().view(torch.float16).float()


def _nibbles(packed: torch.Tensor) -> torch.Tensor:
    """Sixteen bytes a block to 32 numbers: the low halves, then the high ones."""
    values = torch.empty(*packed.shape[:2], 2 * _HALF, device=packed.device)
    values[..., :_HALF] = packed & 0x0F
    values[..., _HALF:] = packed >> _NIBBLE
    return values


_DIRECT: Final[Mapping[Kind, Callable[[torch.Tensor], torch.Tensor]]] = {
    Kind.F32: _plain(torch.float32),
    Kind.F16: _plain(torch.float16),
    Kind.BF16: _plain(torch.bfloat16),
    Kind.Q8_0: _q8_0,
    Kind.Q4_0: _q4_0,
    Kind.Q4_1: _q4_1,
}
