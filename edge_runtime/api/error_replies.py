"""A refusal as an HTTP reply."""

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from edge_runtime.api.api_errors import ApiError, error_body


def error_reply(error: ApiError) -> Response:
    """What goes over the line."""
    content = msgspec.json.encode(error_body(error))
    return Response(content, error.status, error.headers, media_type="application/json")


async def reply_to_api_error(_: Request, error: Exception) -> Response:
    """For Starlette: what handlers raise."""
    assert isinstance(error, ApiError)  # registered for these only
    return error_reply(error)


async def reply_to_http_error(request: Request, error: Exception) -> Response:
    """For Starlette: paths and methods that there are not."""
    status = getattr(error, "status_code", 500)
    text = f"{request.method} {request.url.path[:80]}: {getattr(error, 'detail', error)}"
    return error_reply(ApiError(text, status=status))
