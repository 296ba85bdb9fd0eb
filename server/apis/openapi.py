"""The OpenAPI document: the bodies are those that the endpoints parse, from the models that parse them."""

from collections.abc import Mapping, Sequence
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from fastapi.routing import APIRoute

from server.edges.json_body import body_of

REF = "#/components/schemas/{model}"
ERROR = {
    "type": "object",
    "required": ["message", "type"],
    "properties": {name: {"type": ["string", "null"]} for name in ("message", "type", "param", "code")},
}


def install(app: FastAPI) -> None:
    """`/openapi.json` is written when it is first asked for."""

    def document() -> dict[str, Any]:
        if app.openapi_schema is None:
            app.openapi_schema = openapi(app)
        return app.openapi_schema

    app.openapi = document  # type: ignore[method-assign]


def openapi(app: FastAPI) -> dict[str, Any]:
    routes = [route for route in app.routes if isinstance(route, APIRoute)]
    names = sorted(app.state.runtime.routes)
    whole: dict[str, Any] = get_openapi(title=app.title, version=app.version, routes=routes)
    schemas: dict[str, Any] = whole.setdefault("components", {}).setdefault("schemas", {})
    schemas["Error"] = {"type": "object", "required": ["error"], "properties": {"error": ERROR}}
    for route in routes:
        for method in route.methods:
            operation = whole["paths"][route.path_format][method.lower()]
            responses = operation["responses"]
            responses.pop("422", None)  # what the framework would say; here a malformed request is a 400
            responses["4XX"] = {"description": "refused", "content": _json({"$ref": REF.format(model="Error")})}
            if (model := body_of(route.endpoint)) is not None:
                schema = model.model_json_schema(ref_template=REF)
                schemas |= schema.pop("$defs", {})
                schema["properties"] |= _model(schema, names)
                schemas[model.__name__] = schema
                reference = {"$ref": REF.format(model=model.__name__)}
                operation["requestBody"] = {"required": True, "content": _json(reference)}
    for name in ("HTTPValidationError", "ValidationError"):
        schemas.pop(name, None)
    return whole


def _model(schema: Mapping[str, Any], names: Sequence[str]) -> dict[str, Any]:
    """The field that names a route, with the names that there are."""
    if "model" not in schema["properties"]:
        return {}
    optional = [] if "model" in schema.get("required", ()) else [None]
    return {"model": {"enum": [*names, *optional], "title": "Model"}}


def _json(schema: dict[str, Any]) -> dict[str, Any]:
    return {"application/json": {"schema": schema}}
