"""Answer /v1/embeddings and /v1/models in the shape that clients of OpenAI's API know, for texts and for pictures.

A picture comes inside the request, as a data URL: this server opens no connection.
"""

import asyncio
import base64
import binascii
import re
from typing import Any, cast

import numpy as np
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from clipita.serve.requests import json_object, text_in
from clipita.serve.service import Service
from clipita.system.arrays import FloatArray

_MOST = 512  # inputs in one request
_DATA_URL = re.compile(r"data:image/[a-z0-9.+-]{1,40};base64,", re.IGNORECASE)


class OpenAI:
    """The API over one service."""

    def __init__(self, service: Service) -> None:
        self._service = service

    async def models(self, _: Request) -> Response:
        """List the names that this service answers to."""
        names = [self._service.model.name, *self._service.settings.aliases]
        listed = [{"id": name, "object": "model", "created": 0, "owned_by": "clipita"} for name in dict.fromkeys(names)]
        return JSONResponse({"object": "list", "data": listed})

    async def embeddings(self, request: Request) -> Response:
        """Embed one input or many, each a text or a picture."""
        body = await json_object(request)
        name, encoding = text_in(body, "model"), text_in(body, "encoding_format", "float")
        width = self._service.width_of(name)
        if width is None:
            raise HTTPException(404, "there is no model of that name here: GET /v1/models lists them.")
        if encoding not in ("float", "base64"):
            raise HTTPException(400, '\'encoding_format\' must be "float" or "base64".')
        if body.get("dimensions", width) != width:
            raise HTTPException(400, f"'dimensions' must be {width}: vectors of this model are not cut.")
        given = body.get("input")
        inputs = cast("list[object]", given) if isinstance(given, list) else [given]
        if not 1 <= len(inputs) <= _MOST:
            raise HTTPException(400, f"'input' must hold 1 to {_MOST} texts or pictures.")
        vectors = await self._embedded([_text_or_picture(item, number) for number, item in enumerate(inputs)])
        data = [
            {"object": "embedding", "index": number, "embedding": _written(vector, width, encoding)}
            for number, vector in enumerate(vectors)
        ]
        words = sum(len(item.split()) for item in inputs if isinstance(item, str) and not item.startswith("data:"))
        return JSONResponse({
            "object": "list", "data": data, "model": name,
            "usage": {"prompt_tokens": words, "total_tokens": words},
        })  # fmt: skip

    async def _embedded(self, items: list[str | bytes]) -> list[FloatArray]:
        async def picture(data: bytes) -> FloatArray:
            return (await self._service.embed_image(data))[0]

        async def text(item: str) -> FloatArray:
            return (await self._service.embed_texts([item]))[0]

        tasks = [picture(item) if isinstance(item, bytes) else text(item) for item in items]
        results = await asyncio.gather(*tasks, return_exceptions=True)
        for result in results:
            if isinstance(result, BaseException):
                raise result
        return cast("list[FloatArray]", results)


def _text_or_picture(item: object, number: int) -> str | bytes:
    if isinstance(item, dict):
        fields = cast("dict[str, Any]", item)
        url: object = fields.get("image", fields.get("image_url"))
        if isinstance(url, dict):
            url = cast("dict[str, Any]", url).get("url")
        if not isinstance(url, str) or not _DATA_URL.match(url):
            raise HTTPException(
                400, f'input[{number}] must have its picture as "data:image/...;base64,...": no address is opened.'
            )
        item = url
    if not isinstance(item, str):
        raise HTTPException(400, f"input[{number}] must be a text or a picture; tokens are not taken.")
    found = _DATA_URL.match(item)
    if not found:
        return item
    try:
        return base64.b64decode(item[found.end() :], validate=True)
    except (binascii.Error, ValueError):
        raise HTTPException(400, f"input[{number}] is no base64.") from None


def _written(vector: FloatArray, width: int, encoding: str) -> list[float] | str:
    padded = np.pad(vector, (0, width - len(vector)))
    return padded.tolist() if encoding == "float" else base64.b64encode(padded.astype("<f4").tobytes()).decode()
