"""Request bodies, up to a size."""

import asyncio
from typing import Final

from starlette.requests import ClientDisconnect, Request

from edge_runtime.api.api_errors import HUNG_UP, ApiError

_PATIENCE_S: Final = 30.0
_DRAINED: Final = 16
"""A client reads the refusal only when it has sent all; so much of it, in limits, is dropped."""


async def read_body(request: Request, limit: int) -> bytes:
    """All of a request's body.

    Raises:
        ApiError: It is longer than `limit` bytes, or comes too slowly.
    """
    body, size = bytearray(), 0
    try:
        async with asyncio.timeout(_PATIENCE_S):
            async for chunk in request.stream():
                size += len(chunk)
                if size <= limit:
                    body += chunk
                elif size > _DRAINED * limit:
                    break
    except TimeoutError:
        raise ApiError(f"no whole request in {_PATIENCE_S:g} s", status=408) from None
    except ClientDisconnect:
        raise ApiError("the client has hung up", status=HUNG_UP) from None
    if size > limit:
        raise ApiError(f"the request is larger than {limit} bytes", status=413)
    return bytes(body)
