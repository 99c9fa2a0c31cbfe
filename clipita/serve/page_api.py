"""Answer what the page asks: what is here, searches, photographs, labels of a picture, and where it shows something."""

import io
import json
from pathlib import Path
from typing import Any, cast

import numpy as np
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response

from clipita.images.pixels import load_picture
from clipita.serve.archives import Wish
from clipita.serve.gate import COOKIE, is_token
from clipita.serve.requests import day_in, file_in, form_of, json_object, list_in, number_in, text_in, texts_in
from clipita.serve.service import Service
from clipita.zero_shot import probabilities, rank

_SIDES = (320, 1600)  # pixels of a thumbnail and of a photograph that is looked at
_MOST_LABELS = 200
_MOST_TEXTS = 20
# Below this cosine a photograph shows none of the labels; MODEL_CARD.md says what it refuses, and what it costs.
_NONE_BELOW = {"clipita-mini": 0.29}
_SIGMOID_NONE_BELOW = 0.01  # of a model whose scores are probabilities by themselves


class PageApi:
    """The page's questions over one service."""

    def __init__(self, service: Service, version: str) -> None:
        self._service, self._version = service, version

    async def health(self, _: Request) -> Response:
        """Say that the service answers."""
        return JSONResponse({"status": "ok", "model": self._service.model.name, "version": self._version})

    async def metrics(self, _: Request) -> Response:
        """Give figures to Prometheus."""
        text = self._service.metrics.text(self._service.gauges())
        return PlainTextResponse(text, media_type="text/plain; version=0.0.4")

    async def status(self, _: Request) -> Response:
        """Say what is here, and how far the archives are."""
        archives = await self._service.in_thread(self._service.archives.status)
        model = self._service.model
        return JSONResponse({
            "model": model.name, "license": model.license, "version": self._version, "archives": archives,
            "max_upload": self._service.settings.max_upload,
        })  # fmt: skip

    async def login(self, request: Request) -> Response:
        """Take a token, and keep it in a cookie that scripts cannot read and other pages cannot use."""
        body = await json_object(request)
        token = self._service.settings.token
        if token is not None and not is_token(token, text_in(body, "token")):
            raise HTTPException(401, "this is not the token.")
        answer = JSONResponse({"ok": True})
        if token is not None:
            answer.set_cookie(COOKIE, token, httponly=True, samesite="strict", secure=request.url.scheme == "https")
        return answer

    async def search(self, request: Request) -> Response:
        """Search the archives by a sentence or a photograph, with more of this and less of that."""
        body = await json_object(request)
        archive: object = body.get("archive")
        if archive is not None and (not isinstance(archive, int) or isinstance(archive, bool)):
            raise HTTPException(400, "'archive' must be a number.")
        wanted = _wish({"photo": body["photo"]} if "photo" in body else {"text": body.get("text")}, "the search")
        found = await self._service.in_thread(
            self._service.archives.search,
            wanted,
            more=[_wish(item, f"more[{number}]") for number, item in enumerate(list_in(body, "more", 16))],
            less=[_wish(item, f"less[{number}]") for number, item in enumerate(list_in(body, "less", 16))],
            count=number_in(body, "count", 60, 500),
            archive=archive,
            since=day_in(body, "since"),
            until=day_in(body, "until"),
            show_all=body.get("show_all") is True,
        )
        photos = [
            {
                "id": shown.number,
                "archive": shown.archive,
                "name": shown.match.path.encode("utf-8", "replace").decode(),
                "score": round(shown.match.score, 4),
                "copies": len(shown.match.copies),
                "taken": None if shown.match.taken is None else shown.match.taken.isoformat(),
                "width": shown.match.width,
                "height": shown.match.height,
            }
            for shown in found.photos
        ]
        return JSONResponse({"found": found.found, "photos": photos})

    async def photo(self, request: Request) -> Response:
        """Give a photograph that was shown, as a JPEG without what its file says of place and camera."""
        size = request.query_params.get("size", "0")
        if size not in ("0", "1"):
            raise HTTPException(400, "'size' must be 0 or 1.")
        path = self._service.archives.path_of(request.path_params["number"])
        data = await self._service.in_thread(_small_jpeg, path, _SIDES[int(size)])
        return Response(data, media_type="image/jpeg", headers={"cache-control": "private, max-age=600"})

    async def label(self, request: Request) -> Response:
        """Give the labels of a picture their probabilities, and say whether none of them fits."""
        data, fields = await self._picture(request)
        labels = texts_in(list_in({"labels": _json(fields, "labels")}, "labels", _MOST_LABELS), "labels")
        model = self._service.model
        bank = await self._service.in_thread(model.label_bank, labels)
        embedding, _ = await self._service.embed_image(data)
        cosines = (bank.embeddings @ embedding)[None]
        scores = rank(bank.labels, probabilities(cosines, model.logit_scale, model.logit_bias)[0], None)
        none: bool | None = None
        if model.name in _NONE_BELOW:
            none = bool(cosines.max() < _NONE_BELOW[model.name])
        elif model.logit_bias is not None:
            none = scores[0].score < _SIGMOID_NONE_BELOW
        listed = [{"label": label, "score": round(score, 6)} for label, score in scores]
        return JSONResponse({"scores": listed, "none": none})

    async def where(self, request: Request) -> Response:
        """Say where a picture shows what texts say, as maps over the picture."""
        data, fields = await self._picture(request)
        texts = texts_in(list_in({"texts": _json(fields, "texts")}, "texts", _MOST_TEXTS), "texts")
        if not texts:
            raise HTTPException(400, "'texts' must hold at least one text.")
        await self._service.checked_image(data)
        places = await self._service.in_thread(self._service.model.locate, data, texts)
        answers = [
            {
                "text": place.text,
                "cosine": round(place.cosine, 4),
                "method": place.method,
                "peak": [round(part, 4) for part in place.peak],
                "rows": place.map.shape[0],
                "columns": place.map.shape[1],
                # Of 0 to 255, and null where the model does not look.
                "heat": np.where(np.isnan(place.map), -1, np.rint(255 * place.heat())).astype(int).ravel().tolist(),
            }
            for place in places
        ]
        return JSONResponse({"places": answers})

    async def _picture(self, request: Request) -> tuple[bytes, dict[str, str]]:
        async with form_of(request, files=1) as form:
            data = await file_in(form, "image")
            fields = {name: value for name, value in form.items() if isinstance(value, str)}
        if data is None:
            raise HTTPException(400, "the form has no file 'image'.")
        return data, fields


def _json(fields: dict[str, str], name: str) -> object:
    try:
        return cast(object, json.loads(fields.get(name, "null")))
    except (ValueError, RecursionError):
        raise HTTPException(400, f"the field {name!r} is no JSON.") from None


def _wish(item: object, name: str) -> Wish:
    if isinstance(item, dict) and len(cast("dict[str, Any]", item)) == 1:
        ((kind, value),) = cast("dict[str, Any]", item).items()
        if kind in ("text", "photo") and isinstance(value, str) and len(value) <= 2000:
            return kind, value
    raise HTTPException(400, f'{name} must be {{"text": ...}} or {{"photo": its id}}, of at most 2,000 characters.')


def _small_jpeg(path: Path, side: int) -> bytes:
    picture, _ = load_picture(path, max_side=side, name="the photograph")
    file = io.BytesIO()
    picture.convert("RGB").save(file, "JPEG", quality=82)
    return file.getvalue()
