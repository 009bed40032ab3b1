"""Every failure as the error object of OpenAI's API, with the status that fits."""

from __future__ import annotations

import re
from collections.abc import Mapping
from textwrap import shorten
from typing import TYPE_CHECKING, Any

from fastapi.exceptions import RequestValidationError
from pydantic import ValidationError
from pydantic_core import to_json
from starlette.exceptions import HTTPException
from starlette.responses import Response

from diffusiongpt import errors
from diffusiongpt.apps.argument_names import Spelling, as_field
from diffusiongpt.flow import Policy, Request
from diffusiongpt.safe_text import safe

if TYPE_CHECKING:
    from fastapi import FastAPI
    from starlette.requests import HTTPConnection

CLIENT_GONE = 499
"""What a request is logged as whose client did not wait for the answer; nginx's number for it."""

_STATUS: tuple[tuple[type[errors.DiffusionGPTError], int], ...] = (
    (errors.UnknownExpertError, 404),
    (errors.RequestError, 400),
    (errors.PictureError, 400),
    (errors.DataError, 400),
    (errors.VotesUnreachableError, 503),
    (errors.VoteError, 400),
    (errors.ConversationError, 400),
    (errors.ContentRefusedError, 400),
    (errors.SpendLimitError, 402),
    (errors.PullTooLargeError, 403),
    (errors.NoRouteError, 422),
    (errors.StoppedError, 504),
    (errors.DiskFullError, 507),
    (errors.StorageError, 507),
    (errors.ServiceError, 502),
    (errors.HubUnreachableError, 503),
    (errors.PullError, 503),
    (errors.OutOfMemoryError, 503),
    (errors.NeedsKeyError, 503),
    (errors.NeedsExtraError, 503),
)
"""Error -> status, the first that fits; all others are 500. A client may try again what is 429 or from 500 on."""

_TYPES = {401: "authentication_error", 402: "insufficient_quota", 403: "permission_error", 429: "rate_limit_error"}
_LONGEST = 1_000
"""Characters of a message: it may repeat what a stranger sent."""


_OURS = {name: name for name in (*Request.model_fields, *Policy.model_fields)}
FIELDS = Spelling({**_OURS, "num_images_per_prompt": "n"}, as_field)
"""Arguments as fields of OpenAI's Images API, and of our own routes."""

A1111_FIELDS = Spelling(
    {
        **_OURS,
        "num_inference_steps": "steps",
        "guidance_scale": "cfg_scale",
        "num_images_per_prompt": "batch_size",
        "n": "batch_size",
        "image": "init_images",
        "mask_image": "mask",
        "strength": "denoising_strength",
    },
    as_field,
)


class RefusedError(HTTPException):
    """What the server itself refuses, before or after the studio.

    Args:
        status: HTTP status.
        message: What is wrong, and what to do.
        code: The kind of refusal in a word.
        param: The field that is wrong.
        retry_after_s: Seconds after which to try again.
        headers: Further headers of the answer.
    """

    def __init__(
        self,
        status: int,
        message: str,
        *,
        code: str,
        param: str | None = None,
        retry_after_s: float | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        later = {} if retry_after_s is None else {"retry-after": str(max(1, round(retry_after_s)))}
        super().__init__(status, message, {**(headers or {}), **later})
        self.code, self.param = code, param


def error_object(error: Exception, names: Spelling = FIELDS) -> tuple[int, dict[str, Any], dict[str, str]]:
    """Status, body and headers of the answer to a request that failed with an error.

    Args:
        error: What went wrong.
        names: What the client calls our arguments.
    """
    if isinstance(error, RefusedError):
        status, param = error.status_code, error.param
        body = _body(status, names.mistake(error.detail), error.code, names.names.get(param or "", param))
        return status, body, dict(error.headers or {})
    if isinstance(error, errors.DiffusionGPTError):
        status = next((status for kind, status in _STATUS if isinstance(error, kind)), 500)
        message, argument = names(str(error)), None
        if isinstance(error, errors.RequestError):
            message, argument = names.mistake(str(error)), names.argument(str(error))
        whole = f"{message}. {names(error.hint)}" if error.hint else message
        body = _body(status, whole, _code_of(error), names.names[argument] if argument else None)
        if rejected := getattr(error, "rejected", ()):
            body["error"]["rejected"] = [{"expert": expert, "reason": names(reason)} for expert, reason in rejected]
        retry_after = getattr(error, "retry_after", None)
        return status, body, {} if retry_after is None else {"retry-after": str(max(1, round(retry_after)))}
    if isinstance(error, RequestValidationError):
        return error_object(as_refused(error), names)
    if isinstance(error, HTTPException):
        status = error.status_code
        return status, _body(status, str(error.detail), "http_error", None), dict(error.headers or {})
    return 500, _body(500, "the server failed; its log says why", "internal_error", None), {}


def as_refused(error: RequestValidationError | ValidationError) -> RefusedError:
    """The first mistake of a body that is not of the right shape."""
    first = error.errors()[0]
    where = [part for part in first["loc"] if isinstance(part, str) and part not in ("body", "query", "path")]
    message = f"{'.'.join(where)}: {first['msg']}" if where else f"the body cannot be read: {first['msg']}"
    return RefusedError(400, message, code="invalid_request", param=where[0] if where else None)


def error_response(error: Exception, names: Spelling = FIELDS) -> Response:
    """The answer to a request that failed with an error; see `error_object`."""
    status, body, headers = error_object(error, names)
    return Response(to_json(body), status, headers=headers, media_type="application/json")


def answer_failures(app: FastAPI) -> None:
    """Have an app answer every failure that is expected with an error object; see `Guard` for the others."""

    async def answer(request: HTTPConnection, error: Exception) -> Response:
        return error_response(error, A1111_FIELDS if request.url.path.startswith("/sdapi/") else FIELDS)

    for kind in (errors.DiffusionGPTError, RequestValidationError, HTTPException):
        app.add_exception_handler(kind, answer)


def _body(status: int, message: str, code: str, param: str | None) -> dict[str, Any]:
    kind = _TYPES.get(status, "server_error" if status >= 500 else "invalid_request_error")
    return {
        "error": {
            "message": shorten(safe(message), _LONGEST, placeholder=" ..."),
            "type": kind,
            "param": None if param is None else safe(param[:_LONGEST]),
            "code": code,
        }
    }


def _code_of(error: errors.DiffusionGPTError) -> str:
    """The name of an error in snake case: `PullTooLargeError` is `pull_too_large`."""
    return re.sub(r"(?<!^)(?=[A-Z])", "_", type(error).__name__.removesuffix("Error")).lower()
