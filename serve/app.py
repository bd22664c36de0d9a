"""The routes: `uvicorn serve.app:app` serves the model that stands in Production."""

import logging
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from fastapi import APIRouter, Depends, FastAPI, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.staticfiles import StaticFiles
from fastapi_offline import FastAPIOffline
from starlette.responses import FileResponse

from housing_lib.contract import CONTRACT, FEATURES
from housing_lib.settings import get_settings
from serve import bodies, metrics, schemas
from serve.documentation import ADDRESS, BODY_OR_ADDRESS, OPEN, answers, document, takes
from serve.guard import Guard
from serve.keys import parse_keys
from serve.problems import UNEXPLAINED, explain_query, refuse
from serve.service import Service, encode

PAGE = Path(__file__).with_name("page")

router = APIRouter()


def _service(request: Request) -> Service:
    service: Service = request.app.state.service
    return service


Served = Annotated[Service, Depends(_service)]


def _within(name: str) -> Any:
    column = CONTRACT[name]
    example = schemas.EXAMPLE_DISTRICT[name]
    return Query(ge=column.low, le=column.high, allow_inf_nan=False, examples=[example])


def _json(content: object, status: int = 200) -> Response:
    return Response(encode(content), status, media_type="application/json")


@router.post(
    "/predict",
    responses=answers("Prediction", 408, 413, 422, 503, words=BODY_OR_ADDRESS),
    openapi_extra=takes("District"),
)
async def predict(
    request: Request,
    service: Served,
    explain: Annotated[bool, Query(description="Also say what led to the price.")] = False,
) -> Response:
    """The price of one district; features that are null are imputed and named."""
    body, headers = await request.body(), dict(request.scope["headers"])
    ask = service.predict_explained if explain else service.predict
    answer, request.state.model_version = await ask(body, headers)
    return Response(answer, media_type="application/json")


@router.post(
    "/predict/batch",
    responses=answers("Predictions", 408, 413, 415, 422, 503, table=True, words=BODY_OR_ADDRESS),
    openapi_extra=takes("Batch", table=True),
)
async def predict_batch(
    request: Request,
    service: Served,
    explain: Annotated[bool, Query(description="Refused: `/predict` explains one price.")] = False,
) -> Response:
    """The prices of up to 10,000 districts, in their order; tables are answered with tables.

    Columns of a table that are no features are left out.
    """
    if explain:
        raise refuse([UNEXPLAINED], what="address")
    kind = bodies.content_type(dict(request.scope["headers"]))
    answer, request.state.model_version = await service.predict_batch(await request.body(), kind)
    return Response(answer, media_type=kind)


@router.post(
    "/actuals",
    responses=answers("Recorded", 408, 409, 413, 422, 503),
    openapi_extra=takes("Actuals"),
)
async def actuals(request: Request, service: Served) -> Response:
    """Take true prices; they are on the disk when this answers, and twice is once."""
    body, headers = await request.body(), dict(request.scope["headers"])
    return _json(await service.record(body, headers))


@router.get("/model", responses=answers("ModelCard", 503))
async def model(service: Served) -> Response:
    """The model that answers, where it comes from, and the features that it takes."""
    return _json(schemas.ModelCard.of(service.following.current()))


@router.get("/health/live", responses=answers("Health", key=False, words=OPEN))
async def live() -> Response:
    """That the server runs, with or without a model."""
    return _json(schemas.Health("live"))


@router.get("/health/ready", responses=answers("Health", 503, key=False, words=OPEN))
async def ready(service: Served) -> Response:
    """That a model answers; `degraded` if it may not be the one that stands in Production."""
    number = service.following.current().release.version
    problem = service.following.problem
    if problem:
        return _json(schemas.Health("degraded", number, problem))
    return _json(schemas.Health("ready", number))


@router.get("/metrics", include_in_schema=False)
async def read_metrics(service: Served) -> Response:
    """What Prometheus reads."""
    metrics.observe(service.following, service.log, at_work=service.at_work)
    content, kind = metrics.page(os.environ.get("PROMETHEUS_MULTIPROC_DIR"))
    return Response(content, media_type=kind)


@router.get("/districts", include_in_schema=False)
async def districts(request: Request, service: Served) -> Response:
    """Latitude, longitude and price of each training district as float32, for the map."""
    champion = service.following.current()
    tag = f'"{champion.release.digest[:16]}"'
    headers = {"etag": tag, "cache-control": "private, no-cache"}
    if request.headers.get("if-none-match") == tag:
        return Response(status_code=304, headers=headers)
    model = champion.model
    points = np.column_stack([model.districts[:, 6:8], model.around.known.prices]).astype("<f4")
    return Response(points.tobytes(), media_type="application/octet-stream", headers=headers)


@router.get("/districts/nearest", responses=answers("Nearest", 422, 503, words=ADDRESS))
async def nearest(
    service: Served,
    latitude: Annotated[float, _within("Latitude")],
    longitude: Annotated[float, _within("Longitude")],
) -> Response:
    """The training district that is nearest to a place."""
    model = service.following.current().model
    row, kilometres = model.nearest(latitude, longitude)
    values = [None if np.isnan(value) else float(value) for value in model.districts[row]]
    features = dict(zip(FEATURES, values, strict=True))
    return _json(schemas.Nearest(features, float(model.around.known.prices[row]), kilometres))


@router.get("/", include_in_schema=False)
async def home() -> FileResponse:
    """The page on which a person tries the model."""
    return FileResponse(PAGE / "index.html")


async def refuse_address(request: Request, error: Exception) -> Response:
    """The refusal of parameters that a route does not take."""
    assert isinstance(error, RequestValidationError)
    return _json(explain_query(error.errors()).refusal, 422)


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    """Follow Production while the server runs; without a model it says why."""
    async with app.state.service.running():
        yield


def create_app() -> FastAPI:
    """The application, which follows the Production model while it runs.

    Raises
    ------
    ApiKeyError
        If an entry of `HOUSING_API_KEYS` is not of its form.
    """
    # Its place is taken by the access log of our own.
    logging.getLogger("uvicorn.access").handlers.clear()
    logging.getLogger("uvicorn.access").propagate = False
    app = FastAPIOffline(
        telemetry={"tracing": False, "metrics": False, "logs": False},  # `metrics` are our own
        redoc_url=None,
        static_url="/docs/static",
        title="Housing",
        summary="Median house values of Californian districts, from the model in Production.",
        version=version("housing"),
        lifespan=lifespan,
    )
    service = app.state.service = Service()
    app.include_router(router)
    app.mount("/page", StaticFiles(directory=PAGE))
    keys = parse_keys(get_settings().api_keys)
    app.openapi = lambda: document(app, with_keys=bool(keys))  # type: ignore[method-assign]
    app.add_exception_handler(RequestValidationError, refuse_address)
    app.add_middleware(Guard, service=service, keys=keys)
    return app


app = create_app()
