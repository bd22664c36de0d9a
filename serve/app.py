"""The routes: `uvicorn serve.app:app` serves the model that stands in Production."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib.metadata import version
from typing import Annotated, Any

from fastapi import APIRouter, Depends, FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, RedirectResponse
from pydantic import BaseModel

from serve import schemas
from serve.champion import Champion, NoChampionError, load_champion, log

REFUSED: dict[int | str, dict[str, Any]] = {
    413: {"description": f"The body is larger than {schemas.LARGEST_BODY:,} bytes."},
    422: {"model": schemas.Refusal, "description": "The body is not a district."},
}
UNAVAILABLE: dict[int | str, dict[str, Any]] = {
    503: {"model": schemas.Unavailable, "description": "No model is loaded."}
}

router = APIRouter()


def current_champion(request: Request) -> Champion:
    """The model that answers now."""
    champion: Champion | None = request.app.state.champion
    if champion is None:
        raise NoChampionError(request.app.state.vacancy)
    return champion


CurrentChampion = Annotated[Champion, Depends(current_champion)]


@router.post("/predict", responses=REFUSED | UNAVAILABLE)
def predict(district: schemas.District, champion: CurrentChampion) -> schemas.Prediction:
    """The price of one district; features that are null are imputed and named."""
    return schemas.Prediction.of(district, champion)


@router.get("/model", responses=UNAVAILABLE)
def model(champion: CurrentChampion) -> schemas.ModelCard:
    """The model that answers, where it comes from, and the features that it takes."""
    return schemas.ModelCard.of(champion)


@router.get("/health/live", response_model_exclude_none=True)
def live() -> schemas.Health:
    """That the server runs, with or without a model."""
    return schemas.Health(status="live")


@router.get("/health/ready", responses=UNAVAILABLE)
def ready(champion: CurrentChampion) -> schemas.Health:
    """That a model is loaded and answers."""
    return schemas.Health(status="ready", model_version=champion.registered.version)


@router.get("/", include_in_schema=False)
def home() -> RedirectResponse:
    """The way to the documentation."""
    return RedirectResponse("/docs")


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    """Load the Production model; without one the server starts all the same, and says why."""
    app.state.champion, app.state.vacancy = None, ""
    try:
        app.state.champion = load_champion()
        registered = app.state.champion.registered
        log.info(
            "Serving %s version %d (%s)", registered.name, registered.version, registered.family
        )
    except NoChampionError as error:
        app.state.vacancy = str(error)
        log.warning("No model is loaded: %s %s", error, schemas.WAY_OUT)
    yield


def create_app() -> FastAPI:
    """The application, whose model is loaded when it starts."""
    app = FastAPI(
        title="Housing",
        summary="Median house values of Californian districts, from the model in Production.",
        version=version("housing"),
        lifespan=lifespan,
        max_body_size=schemas.LARGEST_BODY,
    )
    app.include_router(router)
    app.exception_handler(RequestValidationError)(_refuse_district)
    # FastAPI itself raises 400 only for a body that cannot be decoded.
    app.exception_handler(400)(_refuse_body)
    app.exception_handler(NoChampionError)(_say_unavailable)
    app.exception_handler(Exception)(_say_failed)
    return app


def _answer(status: int, content: BaseModel) -> JSONResponse:
    return JSONResponse(content.model_dump(), status)


async def _refuse_district(request: Request, error: RequestValidationError) -> JSONResponse:
    return _answer(422, schemas.explain(error.errors()))


async def _refuse_body(request: Request, error: Exception) -> JSONResponse:
    return _answer(422, schemas.refusal([schemas.UNREADABLE]))


async def _say_unavailable(request: Request, error: NoChampionError) -> JSONResponse:
    return _answer(503, schemas.Unavailable(detail=str(error)))


async def _say_failed(request: Request, error: Exception) -> JSONResponse:
    return JSONResponse({"detail": "the server failed; its log says why."}, 500)


app = create_app()
