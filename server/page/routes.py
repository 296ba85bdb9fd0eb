"""The page's files under `/`, `/status` and `/page/`. Anyone may read them: they hold nothing, and what they ask for
is guarded as any request is. A browser that reads them may load nothing from elsewhere, and run no script but theirs.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from server.apis.entrance import index
from server.edges.endpoints import Routes

FOLDER = Path(__file__).parent / "static"
DOCUMENTS = {"/": "/page/chat.html", "/status": "/page/status.html"}
MEDIA = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
    ".woff2": "font/woff2",
    ".md": "text/plain; charset=utf-8",
}
HEADERS = {
    "content-security-policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; font-src 'self';"
        " connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none';"
        " require-trusted-types-for 'script'; trusted-types dompurify"
    ),
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cache-control": "no-cache",
}


@dataclass(frozen=True, slots=True)
class StaticFile:
    """A file as it is sent; `etag` lets a browser keep it."""

    content: bytes
    media: str
    etag: str


def _read(path: Path) -> StaticFile:
    content = path.read_bytes()
    return StaticFile(content, MEDIA[path.suffix], f'"{sha256(content).hexdigest()[:16]}"')


FILES: Mapping[str, StaticFile] = {
    f"/page/{path.relative_to(FOLDER).as_posix()}": _read(path) for path in FOLDER.rglob("*") if path.is_file()
}
PATHS = frozenset({*DOCUMENTS, *FILES})
"""What is open without a key."""


routes = Routes(include_in_schema=False)


async def document(request: Request) -> Response:
    """A page. What is not a browser gets at `/` what it would get without one."""
    if request.scope["path"] == "/" and "text/html" not in request.headers.get("accept", ""):
        return await index(request)
    return _file(request, DOCUMENTS[request.scope["path"]])


for path in DOCUMENTS:
    routes.get(path)(document)


@routes.get("/page/{name:path}")
async def static(request: Request) -> Response:
    return _file(request, request.scope["path"])


def _file(request: Request, path: str) -> Response:
    found = FILES.get(path)
    if found is None:
        raise HTTPException(404)
    headers = {**HEADERS, "etag": found.etag}
    if request.headers.get("if-none-match") == found.etag:
        return Response(status_code=304, headers=headers)
    return Response(found.content, headers=headers, media_type=found.media)
