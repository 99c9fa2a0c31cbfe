"""Read what clients send: JSON objects and forms, each field checked, and errors turned into answers."""

import contextlib
import datetime
import json
import logging
from collections.abc import AsyncGenerator, Mapping, Sequence
from typing import Any, cast

from starlette.datastructures import FormData, UploadFile
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response

from clipita.errors import CheckpointError, ClipitaError, ImageError, ImageTooLargeError, TextError
from clipita.serve.batches import BusyError

_log = logging.getLogger("clipita.serve")
_MAX_FIELD = 256 << 10  # bytes of a form's field that is no file
_BUSY = {"retry-after": "1"}


async def json_object(request: Request) -> dict[str, Any]:
    """Read a body that is a JSON object.

    Raises:
        HTTPException: It is none.
    """
    try:
        body: object = json.loads(await request.body())
    except (ValueError, RecursionError):
        raise HTTPException(400, "the body is no JSON.") from None
    if not isinstance(body, dict):
        raise HTTPException(400, "the body must be a JSON object.")
    return cast("dict[str, Any]", body)


@contextlib.asynccontextmanager
async def form_of(request: Request, *, files: int) -> AsyncGenerator[FormData]:
    """Read a multipart form of a few fields, and close its files at the end.

    Raises:
        HTTPException: It is none, or has too much in it.
    """
    if not request.headers.get("content-type", "").lower().startswith("multipart/form-data"):
        raise HTTPException(415, "send a form: multipart/form-data.")
    try:
        form = await request.form(max_files=files, max_fields=8, max_part_size=_MAX_FIELD)
    except HTTPException:
        raise
    except (ValueError, LookupError):  # of what is no form
        raise HTTPException(400, "the form cannot be read.") from None
    try:
        yield form
    finally:
        await form.close()


async def file_in(form: FormData, name: str) -> bytes | None:
    """Return the contents of a form's file, or None if it has none.

    Raises:
        HTTPException: The field is no file, or empty.
    """
    value = form.get(name)
    if value is None:
        return None
    if not isinstance(value, UploadFile):
        raise HTTPException(400, f"the field {name!r} must be a file.")
    data = await value.read()
    if not data:
        raise HTTPException(400, f"the file {name!r} is empty.")
    return data


def text_in(fields: Mapping[str, object] | FormData, name: str, default: str | None = None) -> str:
    """Return a field that is a text.

    Raises:
        HTTPException: It is missing or no text.
    """
    value: object = fields.get(name, default)
    if not isinstance(value, str):
        raise HTTPException(400, f"{name!r} must be a text.")
    return value


def number_in(fields: Mapping[str, object], name: str, default: int, most: int) -> int:
    """Return a field that is a whole number from 1 on.

    Raises:
        HTTPException: It is none, or too large.
    """
    value = fields.get(name, default)
    if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= most:
        raise HTTPException(400, f"{name!r} must be a whole number from 1 to {most}.")
    return value


def list_in(fields: Mapping[str, object], name: str, most: int) -> list[object]:
    """Return a field that is a list, empty if it is missing.

    Raises:
        HTTPException: It is none, or too long.
    """
    value = fields.get(name, [])
    if not isinstance(value, list) or len(cast("list[object]", value)) > most:
        raise HTTPException(400, f"{name!r} must be a list of at most {most}.")
    return cast("list[object]", value)


def day_in(fields: Mapping[str, object], name: str) -> datetime.date | None:
    """Return a field that is a day such as "2023-08-14"; None if it is missing or empty.

    Raises:
        HTTPException: It is no day.
    """
    value = fields.get(name)
    if value is None or value == "":
        return None
    try:
        day = datetime.date.fromisoformat(value) if isinstance(value, str) else None
    except ValueError:
        day = None
    if day is None or day.year > 9998:
        raise HTTPException(400, f"{name!r} must be a day such as 2023-08-14.")
    return day


def texts_in(values: Sequence[object], name: str) -> list[str]:
    """Return a list of texts.

    Raises:
        HTTPException: One is no text.
    """
    for number, value in enumerate(values):
        if not isinstance(value, str):
            raise HTTPException(400, f"{name}[{number}] must be a text.")
    return cast("list[str]", list(values))


def status_of(error: Exception) -> int:
    """Return the status that an error is answered with."""
    match error:
        case HTTPException():
            return error.status_code
        case BusyError():
            return 503
        case ImageTooLargeError():
            return 413
        case ImageError() | TextError():
            return 422
        case CheckpointError():
            return 500
        case ClipitaError():
            return 404
        case _:
            return 500


def message_of(error: Exception) -> str:
    """Return what a client is told of an error: nothing of what goes wrong inside."""
    if isinstance(error, HTTPException):
        return error.detail
    if status_of(error) == 500:
        return "the server failed. Its log says with what kind of error."
    return str(error)


def failed(request: Request, error: Exception) -> Response:
    """Answer an error."""
    if isinstance(error, ClientDisconnect):
        return Response(status_code=499)
    status = status_of(error)
    if status == 500:  # the kind alone: messages may quote what a user sent
        _log.error("%s while answering %s", type(error).__name__, request.url.path)
    headers = dict(error.headers or {}) if isinstance(error, HTTPException) else {}
    body: dict[str, Any] = {"detail": message_of(error)}
    if request.url.path.startswith("/v1/"):
        kind = "server_error" if status >= 500 else "invalid_request_error"
        body = {"error": {"message": message_of(error), "type": kind, "param": None, "code": None}}
    return JSONResponse(body, status, headers | (_BUSY if status == 503 else {}))
