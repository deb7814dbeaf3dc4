"""What a request is refused with, in the form that OpenAI's clients read."""

from collections.abc import Mapping
from typing import Final

import msgspec

from fedpt.errors import BusyError, FedptError, LongQuestionError, ModelFileError, UsageError

HUNG_UP: Final = 499
"""Nobody reads this status: the client is gone."""


class ApiError(Exception):
    """A request that is not answered; becomes a reply in `server`, and goes no further."""

    def __init__(
        self,
        message: str,
        *,
        status: int = 400,
        param: str | None = None,
        code: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.param = param
        self.code = code
        self.headers = dict(headers or {})


class ErrorDetail(msgspec.Struct, frozen=True):
    """OpenAI's error object."""

    message: str
    type: str
    param: str | None
    code: str | None


class ErrorBody(msgspec.Struct, frozen=True):
    """The whole body of a refusal."""

    error: ErrorDetail


_KINDS: Final = {401: "authentication_error", 403: "permission_error", 429: "rate_limit_error"}
_FIRST_SERVER_FAULT: Final = 500


def error_body(error: ApiError) -> ErrorBody:
    """What the client reads."""
    usual = "server_error" if error.status >= _FIRST_SERVER_FAULT else "invalid_request_error"
    kind = _KINDS.get(error.status, usual)
    return ErrorBody(ErrorDetail(str(error), kind, error.param, error.code))


def as_api_error(error: Exception) -> ApiError:
    """Anything that went wrong with an answer; only a question's own faults are the client's."""
    match error:
        case ApiError():
            return error
        case BusyError():
            return ApiError(str(error), status=503, code=error.code)
        case LongQuestionError():
            return ApiError(str(error), param="messages", code="context_length_exceeded")
        case UsageError() | ModelFileError():  # the latter: the chat template refuses the roles
            return ApiError(str(error), code=error.code)
        case FedptError():
            return ApiError(str(error), status=500, code=error.code)
        case _:
            return ApiError("the answer failed; the device's log says why", status=500)
