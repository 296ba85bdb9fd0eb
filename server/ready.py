"""What `reasond serve` says when it is ready: its routes, where it is, and a first request."""

import json
import os
import shlex
from collections.abc import Iterator

from controllers.generation.route import Route
from controllers.policy.fold import modes
from server import __version__
from server.assemble import Runtime
from server.edges.auth import load_keys

QUESTION = "A crate holds 36 apples and 5 are bad. How many good ones are in 12 crates?"
EVERYWHERE = {"0.0.0.0": "127.0.0.1", "::": "::1"}


def ready_lines(runtime: Runtime, host: str, port: int) -> Iterator[str]:
    """Where requests need a key, the reader's stands in REASOND_API_KEY."""
    host = EVERYWHERE.get(host, host)
    base = f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
    others = "Anthropic, a browser" if runtime.config.server.page else "Anthropic"
    yield f"reasond {__version__} serves {base}/v1 (OpenAI) and {base} ({others})"
    for name, route in runtime.routes.items():
        also = "".join(f", {other}" for other in runtime.config.routes[name].names)
        yield f"  {name}{also}: family {route.family.name}; modes {modes_of(route)}"
    question = [{"role": "user", "content": QUESTION}]
    chatting = next((name for name in runtime.routes if name not in runtime.judges), next(iter(runtime.routes)))
    body = shlex.quote(json.dumps({"model": chatting, "messages": question}, ensure_ascii=False))
    key = (
        ' -H "authorization: Bearer $REASOND_API_KEY"' if load_keys(runtime.config.server.keys_file, os.environ) else ""
    )
    yield f"curl {base}/v1/chat/completions -H 'content-type: application/json'{key} -d {body}"


def modes_of(route: Route) -> str:
    """The modes that a request may ask for, and the one that it has otherwise."""
    return f"{', '.join(modes(route.family, route.defaults.decider))} (default {route.defaults.mode})"
