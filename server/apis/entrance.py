"""Where nothing is asked for yet: what runs here, and which path was meant."""

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.types import Receive, Scope, Send

from server import __version__
from server.edges.endpoints import Routes
from server.edges.errors import PATH_CHARACTERS, ApiError, shortened

routes = Routes(include_in_schema=False)
WITHOUT_V1 = "the base URL of OpenAI's clients ends in /v1"
WITH_V1_TWICE = "the base URL of Anthropic's clients has no /v1"


@routes.get("/")
async def index(request: Request) -> Response:
    """For whoever is no browser. It tells nothing of the configuration, since it asks for no key."""
    base = str(request.base_url).rstrip("/")
    clients = {"openai": {"base_url": f"{base}/v1"}, "anthropic": {"base_url": base}}
    paths = {"models": "/v1/models", "schema": "/openapi.json", "health": "/health", "ready": "/ready"}
    return JSONResponse({"server": "reasond", "version": __version__, "clients": clients, "paths": paths})


async def nowhere(scope: Scope, receive: Receive, send: Send) -> None:
    """The answer at a path that is not there. Raises the API's 404."""
    path = scope["path"]
    told = f"there is nothing at {shortened(path, PATH_CHARACTERS)}"
    for meant, why in ((f"/v1{path}", WITHOUT_V1), (path.removeprefix("/v1"), WITH_V1_TWICE)):
        if any(route.path_regex.match(meant) for route in scope["app"].routes if route.include_in_schema):
            raise ApiError(404, f"{told}; {meant} was meant: {why}", code="not_found")
    raise ApiError(404, f"{told}; /openapi.json has all paths", code="not_found")
