"""Answer as Immich's machine-learning service does, so that Immich can be given this one.

Immich asks for the vector of a photograph or of a search's text, and keeps vectors in a database of fixed width.
Written from a description of the protocol.
"""

import json
from typing import Any, cast

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response

from clipita.serve.requests import file_in, form_of
from clipita.serve.service import Service
from clipita.system.arrays import FloatArray

_OTHERS = ("facial-recognition", "ocr")


class Immich:
    """The protocol over one service."""

    def __init__(self, service: Service) -> None:
        self._service = service

    async def ping(self, _: Request) -> Response:
        """Say that the service is there."""
        return PlainTextResponse("pong")

    async def predict(self, request: Request) -> Response:
        """Embed the picture or the text of a form as its `entries` say."""
        async with form_of(request, files=1) as form:
            entries, image, text = form.get("entries"), await file_in(form, "image"), form.get("text")
        kind, width = self._asked(entries)
        if kind == "visual":
            if image is None:
                raise HTTPException(400, "a picture is asked about, and the form has no file 'image'.")
            vector, facts = await self._service.embed_image(image)
            size = {"imageHeight": facts.height, "imageWidth": facts.width}
            return JSONResponse({"clip": padded(vector, width), **size})
        if not isinstance(text, str):
            raise HTTPException(400, "a text is asked about, and the form has no field 'text'.")
        (vector,) = await self._service.embed_texts([text])
        return JSONResponse({"clip": padded(vector, width)})

    def _asked(self, entries: object) -> tuple[str, int]:
        """Return "visual" or "textual", and the width of the vector."""
        try:
            tasks: object = json.loads(entries) if isinstance(entries, str) else None
        except (ValueError, RecursionError):
            tasks = None
        if not isinstance(tasks, dict) or not tasks:
            raise HTTPException(422, "the field 'entries' must hold a JSON object of tasks.")
        named = cast("dict[str, Any]", tasks)
        if any(name in named for name in _OTHERS):
            raise HTTPException(400, "this service knows no faces and reads no text in pictures: ask another for them.")
        task = named.get("clip")
        if set(named) != {"clip"} or not isinstance(task, dict) or len(cast("dict[str, Any]", task)) != 1:
            raise HTTPException(422, '\'entries\' must be {"clip": {"visual" or "textual": {"modelName": NAME}}}.')
        ((kind, settings),) = cast("dict[str, Any]", task).items()
        name: object = cast("dict[str, Any]", settings).get("modelName") if isinstance(settings, dict) else None
        if kind not in ("visual", "textual") or not isinstance(name, str):
            raise HTTPException(422, '\'entries\' must be {"clip": {"visual" or "textual": {"modelName": NAME}}}.')
        width = self._service.width_of(name)
        if width is None:
            raise HTTPException(500, "the model does not load: this service answers to its own and to --alias names.")
        return kind, width


def padded(vector: FloatArray, width: int) -> str:
    """Return a vector as a text of JSON, with zeros up to `width`: nine digits give a float32 back exactly."""
    numbers = vector.tolist() + [0.0] * (width - len(vector))
    return "[" + ", ".join(["%.9g"] * width) % tuple(numbers) + "]"
