"""The addresses of `eozip serve`, and what keeps them within limits.

Layers are asked for by number, and files of the page by names that are listed here: no address is ever made a path.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from importlib import resources
from typing import Any, TypeVar

import anyio
import numpy as np
from anyio import to_thread
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.base import BaseHTTPMiddleware, RequestResponseEndpoint
from starlette.requests import Request
from starlette.responses import JSONResponse, RedirectResponse, Response
from starlette.routing import Route

from eozip.arguments import counted
from eozip.errors import EozipError, InputError
from eozip.serve.layers import Layer, Layers, StoreLayer
from eozip.serve.pictures import (
    FORMATS,
    MEDIA,
    Place,
    View,
    checked_tile,
    error_of,
    histogram_of,
    parse_view,
    picture,
    stretch_of,
    tile_values,
    whole_values,
)
from eozip.serve.series import as_csv, parse_geometry, parse_optional, point_series, polygon_series
from eozip.serve.services import cloud_cover, layer_document, tilejson, time_value, wmts_capabilities

Result = TypeVar("Result")

_PAGE: Mapping[str, str] = {
    "app.js": "text/javascript",
    "views.js": "text/javascript",
    "charts.js": "text/javascript",
    "style.css": "text/css",
    "maplibre-gl.js": "text/javascript",
    "maplibre-gl.css": "text/css",
    "MAPLIBRE-LICENSE.txt": "text/plain",
}
_PACKED = ("maplibre-gl.js", "maplibre-gl.css")  # lie there as .gz, and every browser unpacks them
_POLICY = "default-src 'self'; img-src 'self' data: blob:; worker-src 'self' blob:; style-src 'self' 'unsafe-inline'"
_THUMBNAIL = 96
_SERIES = ("json", "csv")
_ASKED = (
    *("date", "bands", "formula", "low", "high", "error", "side"),
    *("lon", "lat", "row", "column", "geometry"),
)  # parameters of layers; others are slips


@dataclass(frozen=True)
class Limits:
    """What one server does at most.

    Attributes:
        at_once: requests that compute at the same time; others wait.
        waiting: requests that wait; more are turned away with 503.
        side: longest side of a picture that is no tile.
        body: bytes of a polygon.
        query: characters of an address behind its "?".
    """

    at_once: int = 2
    waiting: int = 256
    side: int = 2048
    body: int = 1 << 20
    query: int = 1 << 14


class _Desk:
    """Lets so many requests compute at once, in threads, and turns those away that would wait for too long."""

    def __init__(self, limits: Limits) -> None:
        self._limits, self._here = limits, 0
        self._slots = anyio.CapacityLimiter(limits.at_once)

    async def run(self, work: Callable[[], Result]) -> Result:
        if self._here >= self._limits.at_once + self._limits.waiting:
            raise HTTPException(503, "too many requests at once; ask again", {"Retry-After": "2"})
        self._here += 1
        try:
            return await to_thread.run_sync(work, limiter=self._slots)
        finally:
            self._here -= 1


@dataclass(frozen=True)
class _Asked:
    """What an address asks for.

    Attributes:
        layer: the layer; `number` its number.
        number: see `layer`.
        t: date.
        view: what is drawn.
        minus: the original and its date, for an error; None: no error is asked for.
        stretch: values drawn first and last; None: found from the layer.
        text: the parameters.
    """

    layer: Layer
    number: int
    t: int
    view: View
    minus: tuple[Layer, int] | None
    stretch: tuple[float, float] | None
    text: Mapping[str, str]


class _Server:
    """Answers; one for each app."""

    def __init__(self, layers: Layers, limits: Limits, base: str | None) -> None:
        self.layers, self.limits, self._base = layers, limits, base
        self._desk = _Desk(limits)
        self._stretches: dict[tuple[Any, ...], tuple[float, float]] = {}

    def base(self, request: Request) -> str:
        """The address by which the server was reached."""
        return self._base or str(request.base_url).rstrip("/")

    # --- the page ---

    async def page(self, request: Request) -> Response:
        return Response(_file("index.html"), media_type="text/html")

    async def static(self, request: Request) -> Response:
        name = request.path_params["name"]
        if name not in _PAGE:
            raise HTTPException(404, f"no file {name!r:.80}")
        headers = {"Cache-Control": "max-age=3600"}
        if name in _PACKED:
            return Response(
                _file(f"{name}.gz"), media_type=_PAGE[name], headers={**headers, "Content-Encoding": "gzip"}
            )
        return Response(_file(name), media_type=_PAGE[name], headers={"Cache-Control": "no-cache"})

    async def health(self, request: Request) -> Response:
        return JSONResponse({"status": "ok", "layers": len(self.layers.all)})

    async def documents(self, request: Request) -> Response:
        return JSONResponse({"layers": await self._desk.run(self._documents), "originals": self._originals()})

    def _documents(self) -> list[dict[str, Any]]:
        for store in self.layers.stores:
            store.refresh()
        return [layer_document(i, layer, cloud_cover(layer)) for i, layer in enumerate(self.layers.all)]

    def _originals(self) -> dict[int, int]:
        """Number of the original of each store that has one."""
        return {store: len(self.layers.stores) + i for i, store in enumerate(self.layers.originals)}

    # --- pictures ---

    async def tile(self, request: Request) -> Response:
        ending = request.path_params["ending"]
        tile = checked_tile(*(request.path_params[name] for name in ("z", "x", "y")))
        return await self._picture(
            request, ending, lambda asked: tile_values(*_drawn(asked), tile, asked.minus)
        )

    async def image(self, request: Request) -> Response:
        ending = request.path_params["ending"]
        side = _whole(request.query_params.get("side", "1024"), "side", 1, self.limits.side)
        return await self._picture(
            request, ending, lambda asked: whole_values(*_drawn(asked), side, asked.minus)[0]
        )

    async def thumbnail(self, request: Request) -> Response:
        return await self._picture(
            request, "png", lambda asked: whole_values(*_drawn(asked), _THUMBNAIL, asked.minus)[0]
        )

    async def _picture(
        self, request: Request, ending: str, values: Callable[[_Asked], np.ndarray]
    ) -> Response:
        _one_of(ending, "picture", tuple(FORMATS))
        asked = self._asked(request)
        data = await self._desk.run(lambda: self._packed(asked, values(asked), ending))
        return Response(data, media_type=MEDIA[ending], headers={"Cache-Control": "no-cache"})

    def _packed(self, asked: _Asked, values: np.ndarray, ending: str) -> bytes:
        stretch = asked.stretch or self._stretch(asked)
        if asked.minus is None:
            return picture(values, stretch, ending)
        return picture(error_of(values), stretch, ending, "error")

    def _stretch(self, asked: _Asked) -> tuple[float, float]:
        """What is drawn first and last where the address does not say: of all dates alike, found once."""
        view, dates = asked.view, asked.layer.facts.shape[0]
        if (
            view.formula is not None
            and asked.minus is None
            and view.formula.text.lower() in ("ndvi", "ndwi", "nbr")
        ):
            return -1.0, 1.0
        key = (asked.number, dates, view.bands, view.formula and view.formula.text, asked.minus is None)
        if key not in self._stretches:
            minus = None if asked.minus is None else self._minus_by_date(asked.number)
            self._stretches[key] = stretch_of(asked.layer, view, range(dates), minus)
        return self._stretches[key]

    async def stretch(self, request: Request) -> Response:
        asked = self._asked(request)
        low, high = await self._desk.run(lambda: self._stretch(asked))
        return JSONResponse({"low": low, "high": high})

    async def histogram(self, request: Request) -> Response:
        asked = self._asked(request)

        def work() -> dict[str, Any]:
            values, step = whole_values(*_drawn(asked), 512, asked.minus)
            values = values if asked.minus is None else error_of(values)
            names = (
                [asked.layer.facts.bands[i] for i in asked.view.bands] if len(values) == 3 else [_name(asked)]
            )
            return {"names": names, "every": step, **histogram_of(values)}

        return JSONResponse(await self._desk.run(work))

    # --- numbers ---

    async def point(self, request: Request) -> Response:
        layer, _ = self._layer(request)
        _one_of(request.path_params["ending"], "series", _SERIES)
        formula = parse_optional(request.query_params.get("formula"), layer.facts.bands)
        row, column = _place(request, layer)
        found = await self._desk.run(lambda: point_series(layer, row, column, formula))
        return _series(found, request)

    async def polygon(self, request: Request) -> Response:
        layer, _ = self._layer(request)
        _one_of(request.path_params["ending"], "series", _SERIES)
        formula = parse_optional(request.query_params.get("formula"), layer.facts.bands)
        text = request.query_params.get("geometry") or (await _body(request, self.limits.body)).decode(
            "utf-8", "replace"
        )
        geometry = parse_geometry(text)
        found = await self._desk.run(lambda: polygon_series(layer, geometry, formula))
        return _series(found, request)

    async def chunk(self, request: Request) -> Response:
        layer, _ = self._layer(request)
        if not isinstance(layer, StoreLayer):
            raise InputError(f"chunk: expected a store, got {layer.facts.name}, which has no chunks")
        row, column = _place(request, layer)
        t = _date(layer, request.query_params.get("date"))
        if not (0 <= row < layer.facts.shape[2] and 0 <= column < layer.facts.shape[3]):
            return JSONResponse({"bytes": None})  # no fault: cursors leave the picture
        window, size = await self._desk.run(lambda: layer.chunk_at(t, row, column))
        samples = np.prod([stop - start for start, stop in (window.times, window.rows, window.columns)])
        return JSONResponse(
            {
                "row": row,
                "column": column,
                "dates": list(window.times),
                "rows": list(window.rows),
                "columns": list(window.columns),
                "bytes": size,
                "bits_per_pixel_and_band": round(8 * size / (int(samples) * layer.facts.shape[1]), 5),
            }
        )

    # --- other programs ---

    async def tilejson(self, request: Request) -> Response:
        asked = self._asked(request)
        return JSONResponse(tilejson(self.base(request), asked.number, asked.layer, asked.text))

    async def capabilities(self, request: Request) -> Response:
        return await self._capabilities(request)

    async def _capabilities(self, request: Request) -> Response:
        on_map = [(i, layer) for i, layer in enumerate(self.layers.all) if Place(layer.facts).crs is not None]
        return Response(wmts_capabilities(self.base(request), on_map), media_type="application/xml")

    async def wmts(self, request: Request) -> Response:
        """By keys and values, in any case."""
        keys = {key.lower(): value for key, value in request.query_params.items()}
        wanted = keys.get("request", "GetCapabilities").lower()
        if wanted == "getcapabilities":
            return await self._capabilities(request)
        if wanted != "gettile":
            raise InputError(f"wmts: expected GetCapabilities or GetTile, got {wanted!r:.40}")
        number, _, view = keys.get("layer", "").partition("-")
        place = [keys.get(name, "") for name in ("tilematrix", "tilecol", "tilerow")]
        if any(counted(part) is None for part in (number, *place)):
            raise InputError(
                "wmts: expected layer=NUMBER-VIEW, and numbers for tilematrix, tilecol and tilerow"
            )
        asked = {"date": keys.get("time", "")} | ({"formula": view} if view not in ("", "colour") else {})
        address = request.url_for("tile", number=number, z=place[0], x=place[1], y=place[2], ending="png")
        return RedirectResponse(str(address.include_query_params(**asked)), 307)

    # --- what an address asks for ---

    def _layer(self, request: Request) -> tuple[Layer, int]:
        strange = [name for name in request.query_params if name not in _ASKED]
        if strange:
            raise InputError(f"expected parameters of {' '.join(_ASKED)}, got {strange[0]!r:.40}")
        number = request.path_params["number"]
        if not 0 <= number < len(self.layers.all):
            raise HTTPException(404, f"no layer {number}; there are {len(self.layers.all)}, counted from 0")
        return self.layers.get(number), number

    def _asked(self, request: Request) -> _Asked:
        layer, number = self._layer(request)
        text = dict(request.query_params)
        t = _date(layer, text.get("date"))
        view = parse_view(layer.facts, text.get("bands"), text.get("formula"))
        minus = None
        if _one_of(text.get("error") or "0", "error", ("0", "1")) == "1":
            minus = self._minus_by_date(number).get(t)
            if minus is None:
                raise InputError(
                    f"error: expected a layer with an original of {time_value(layer, t)}, got one without"
                )
        return _Asked(layer, number, t, view, minus, _stretch(text), text)

    def _minus_by_date(self, number: int) -> dict[int, tuple[Layer, int]]:
        """The original of a store, and its date by date of the store."""
        original = self.layers.originals.get(number)
        if original is None:
            return {}
        pairs = original.pairs(self.layers.get(number).facts.dates)
        return {t: (original, at) for t, at in pairs.items()}


def _drawn(asked: _Asked) -> tuple[Layer, int, View]:
    return asked.layer, asked.t, asked.view


def _name(asked: _Asked) -> str:
    what = asked.view.formula.text if asked.view.formula else "bands"
    return what if asked.minus is None else f"error of {what}"


def _one_of(text: str, name: str, known: tuple[str, ...]) -> str:
    if text not in known:
        raise InputError(f"{name}: expected {' or '.join(known)}, got {text!r:.40}")
    return text


def _whole(text: str, name: str, low: int, high: int) -> int:
    number = counted(text)
    if number is None or not low <= number <= high:
        raise InputError(f"{name}: expected a whole number from {low} to {high}, got {text!r:.40}")
    return number


def _number(text: str | None, name: str) -> float:
    try:
        value = float(text or "")
    except ValueError:
        value = np.nan
    if not np.isfinite(value):
        raise InputError(f"{name}: expected a number, got {text!r:.40}")
    return value


def _stretch(text: Mapping[str, str]) -> tuple[float, float] | None:
    if not text.get("low") and not text.get("high"):
        return None
    low, high = (_number(text.get(name), name) for name in ("low", "high"))
    if not low < high:
        raise InputError(f"low, high: expected low below high, got {low:g} and {high:g}")
    return low, high


def _date(layer: Layer, text: str | None) -> int:
    """Position of a date: ISO as the layer has it or its beginning, or a position from 1; the first by default."""
    dates, count = layer.facts.dates, layer.facts.shape[0]
    if not text:
        return 0
    if text in dates:
        return dates.index(text)
    position = counted(text)
    if position is not None and 1 <= position <= count:
        return position - 1
    begun = [t for t, date in enumerate(dates) if date is not None and date.startswith(text)]
    if not begun:
        known = ", ".join([date for date in dates if date is not None][:12])
        named = f" or one of {known}" if known else ""
        raise InputError(f"date: expected a position from 1 to {count}{named}, got {text!r:.40}")
    return begun[0]


def _place(request: Request, layer: Layer) -> tuple[int, int]:
    """Row and column of the pixel under lon and lat, or as given."""
    asked = request.query_params
    if "row" in asked or "column" in asked:
        limits = layer.facts.shape[2:]
        return tuple(  # type: ignore[return-value]
            _whole(asked.get(name, ""), name, 0, limit - 1) for name, limit in zip(("row", "column"), limits)
        )
    longitude, latitude = _number(asked.get("lon"), "lon"), _number(asked.get("lat"), "lat")
    if abs(latitude) > 90 or abs(longitude) > 360:
        raise InputError(f"lon, lat: expected degrees, got {longitude:g} {latitude:g}")
    return Place(layer.facts).pixel_at(longitude, latitude)


def _series(found: dict[str, Any], request: Request) -> Response:
    if request.path_params["ending"] == "csv":
        name = "attachment; filename=series.csv"
        return Response(as_csv(found), media_type="text/csv", headers={"Content-Disposition": name})
    return JSONResponse(found)


async def _body(request: Request, most: int) -> bytes:
    data = b""
    async for piece in request.stream():
        data += piece
        if len(data) > most:
            raise HTTPException(413, f"expected a body of at most {most} bytes")
    return data


def _file(name: str) -> bytes:
    return resources.files("eozip.serve").joinpath("page", name).read_bytes()


async def _refused(request: Request, error: Exception) -> Response:
    """What was asked for cannot be: the message says what was expected."""
    return JSONResponse({"error": str(error)}, 400 if isinstance(error, InputError) else 500)


async def _http(request: Request, error: Exception) -> Response:
    if not isinstance(error, HTTPException):
        raise error
    return JSONResponse({"error": error.detail}, error.status_code, headers=dict(error.headers or {}))


class _Guard(BaseHTTPMiddleware):
    """Answers only those who call the server by its own name, and adds what browsers should hold to."""

    def __init__(self, app: Any, hosts: tuple[str, ...], query: int) -> None:
        super().__init__(app)
        self._hosts, self._query = hosts, query

    async def dispatch(self, request: Request, call_next: RequestResponseEndpoint) -> Response:
        host = request.url.hostname or ""
        if self._hosts and host not in self._hosts:
            return JSONResponse({"error": f"expected host {' or '.join(self._hosts)}, got {host!r:.80}"}, 421)
        if len(request.url.query) > self._query:
            return JSONResponse({"error": f"expected an address of at most {self._query} characters"}, 414)
        response = await call_next(request)
        response.headers["Content-Security-Policy"] = _POLICY
        response.headers["X-Content-Type-Options"] = "nosniff"
        response.headers["Referrer-Policy"] = "no-referrer"
        return response


def create_app(
    layers: Layers,
    *,
    limits: Limits | None = None,
    hosts: tuple[str, ...] = ("127.0.0.1", "localhost", "::1"),
    base: str | None = None,
) -> Starlette:
    """The server of some layers, for uvicorn or any other ASGI server.

    Args:
        layers: what it shows; they stay open as long as it runs.
        limits: what it does at most.
        hosts: names by which it may be called; none: any.
        base: its address from outside, where a proxy stands before it; None takes what the caller used.
    """
    limits = limits or Limits()
    server = _Server(layers, limits, base)
    layer = "/layers/{number:int}"
    routes = [
        Route("/", server.page),
        Route("/healthz", server.health),
        Route("/static/{name}", server.static),
        Route("/api/layers", server.documents),
        Route(f"{layer}/tiles/{{z:int}}/{{x:int}}/{{y:int}}.{{ending}}", server.tile, name="tile"),
        Route(f"{layer}/tilejson.json", server.tilejson),
        Route(f"{layer}/image.{{ending}}", server.image),
        Route(f"{layer}/thumbnail.png", server.thumbnail),
        Route(f"{layer}/stretch.json", server.stretch),
        Route(f"{layer}/histogram.json", server.histogram),
        Route(f"{layer}/point.{{ending}}", server.point),
        Route(f"{layer}/polygon.{{ending}}", server.polygon, methods=["GET", "POST"]),
        Route(f"{layer}/chunk.json", server.chunk),
        Route("/wmts", server.wmts),
        Route("/wmts/1.0.0/WMTSCapabilities.xml", server.capabilities),
    ]
    handlers: Mapping[Any, Callable[[Request, Exception], Awaitable[Response]]] = {
        EozipError: _refused,
        HTTPException: _http,
    }
    guard = Middleware(_Guard, hosts=hosts, query=limits.query)
    return Starlette(routes=routes, middleware=[guard], exception_handlers=handlers)
