"""The service over HTTP."""

from typing import Any

from fastapi import Depends, FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, JSONResponse
from fastapi.security import HTTPBearer
from starlette.authentication import AuthenticationError
from starlette.middleware.authentication import AuthenticationMiddleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import HTTPConnection

from stscale import __version__
from stscale.errors import InputError
from stscale.serving.bearer import Token
from stscale.serving.page import HEADERS, page
from stscale.serving.refusal import ConflictError, RefusedError
from stscale.serving.routes import jobs, problem
from stscale.serving.schemas import Health, Problem
from stscale.serving.service import Service

BODY = 16 << 20
"""Largest submission, bytes."""

LOCAL = ["127.0.0.1", "localhost", "[::1]"]
"""Names under which a service without a token answers: no page of elsewhere reaches it by a name of its own."""

ABOUT = (
    "Jobs of `stscale` on one machine: submit, follow, cancel, fetch. Whatever is refused is answered with `detail`, "
    "one line that says what was found, what was expected and what to do."
)
REFUSALS: dict[int | str, dict[str, Any]] = {
    401: problem("The token is missing or wrong."),
    413: {"description": "The body is too large.", "content": {"text/plain": {"schema": {"type": "string"}}}},
    422: problem("The request cannot be understood, or not be done here."),
}


def create_app(service: Service) -> FastAPI:
    """Return the application.

    Parameters
    ----------
    service
        What answers; it is opened and closed by the caller.
    """
    app = FastAPI(
        title="stscale",
        version=__version__,
        description=ABOUT,
        docs_url=None,  # their pages load scripts from elsewhere
        redoc_url=None,
        max_body_size=BODY,
        responses={413: REFUSALS[413]},
    )
    app.state.service = service
    app.add_middleware(AuthenticationMiddleware, backend=Token(service.settings.token), on_error=_unknown)
    if service.settings.token is None:
        app.add_middleware(TrustedHostMiddleware, allowed_hosts=LOCAL)
    app.add_exception_handler(RequestValidationError, _malformed)
    app.add_exception_handler(InputError, _refused)
    app.include_router(jobs, dependencies=[Depends(HTTPBearer(auto_error=False))], responses=REFUSALS)

    @app.get("/", response_class=HTMLResponse, summary="A page that lists jobs and opens reports", tags=["service"])
    def root() -> Response:
        return HTMLResponse(page(), headers=HEADERS)

    @app.get("/health", summary="Whether jobs are started", tags=["service"], responses={503: {"model": Problem}})
    def health() -> Health:
        if not service.dispatcher.alive():
            return JSONResponse({"detail": "no jobs are started; see the log of the service"}, 503)  # type: ignore[return-value]  # a response of its own
        return Health(token=service.settings.token is not None)

    return app


def _unknown(connection: HTTPConnection, error: AuthenticationError) -> Response:
    return JSONResponse({"detail": str(error)}, 401, {"WWW-Authenticate": "Bearer"})


def _malformed(request: Request, error: Exception) -> Response:
    """Say the first thing that is wrong with a request, in one line."""
    if not isinstance(error, RequestValidationError):
        raise error
    first = error.errors()[0]
    # the value itself is not repeated: it may be anything
    where = ".".join(str(part) for part in first["loc"] if part != "body")
    text = str(first["msg"]).removeprefix("Value error, ")
    line = " ".join(f"{where}: {text}".removeprefix(": ").split())
    return JSONResponse({"detail": line.encode("utf-8", errors="replace").decode()}, 422)


def _refused(request: Request, error: Exception) -> Response:
    if isinstance(error, RefusedError):
        return JSONResponse(error.problem(), 422)
    line = " ".join(str(error).split()).encode("utf-8", errors="replace").decode()
    return JSONResponse({"detail": line}, 409 if isinstance(error, ConflictError) else 422)
