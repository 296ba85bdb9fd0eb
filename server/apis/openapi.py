"""The OpenAPI document: the bodies are those that the endpoints parse, from the models that parse them."""

import inspect
import re
from collections.abc import Mapping, Sequence
from typing import Any

from server import __version__
from server.edges.endpoints import Endpoint, body_of

REF = "#/components/schemas/{model}"
ERROR = {
    "type": "object",
    "required": ["message", "type"],
    "properties": {name: {"type": ["string", "null"]} for name in ("message", "type", "param", "code")},
}
PARAMETER = re.compile(r"{(\w+)(:\w+)?}")


def document(endpoints: Sequence[Endpoint], names: Sequence[str]) -> dict[str, Any]:
    """`names` are those of the routes, which requests may name as their model."""
    schemas: dict[str, Any] = {"Error": {"type": "object", "required": ["error"], "properties": {"error": ERROR}}}
    paths: dict[str, Any] = {}
    for endpoint in endpoints:
        path = PARAMETER.sub(r"{\1}", endpoint.path)
        for method in sorted((endpoint.methods or set()) - {"HEAD"}):
            operation = _operation(endpoint, path, method.lower())
            paths.setdefault(path, {})[method.lower()] = operation
            if (model := body_of(endpoint.endpoint)) is not None:
                schema = model.model_json_schema(ref_template=REF)
                schemas |= schema.pop("$defs", {})
                schema["properties"] |= _model(schema, names)
                schemas[model.__name__] = schema
                reference = {"$ref": REF.format(model=model.__name__)}
                operation["requestBody"] = {"required": True, "content": _json(reference)}
    info = {"title": "reasond", "version": __version__}
    return {"openapi": "3.1.0", "info": info, "paths": paths, "components": {"schemas": schemas}}


def _operation(endpoint: Endpoint, path: str, method: str) -> dict[str, Any]:
    name, told = endpoint.name, inspect.getdoc(endpoint.endpoint)
    operation: dict[str, Any] = {"summary": name.replace("_", " ").title()}
    if told:
        operation["description"] = told
    operation["operationId"] = re.sub(r"\W", "_", f"{name}{path}") + f"_{method}"
    if parameters := [_parameter(found[0]) for found in PARAMETER.findall(endpoint.path)]:
        operation["parameters"] = parameters
    operation["responses"] = {
        "200": {"description": "Successful Response", "content": _json({})},
        "4XX": {"description": "refused", "content": _json({"$ref": REF.format(model="Error")})},
    }
    return operation


def _parameter(name: str) -> dict[str, Any]:
    title = name.replace("_", " ").title()
    return {"name": name, "in": "path", "required": True, "schema": {"type": "string", "title": title}}


def _model(schema: Mapping[str, Any], names: Sequence[str]) -> dict[str, Any]:
    """The field that names a route, with the names that there are."""
    if "model" not in schema["properties"]:
        return {}
    optional = [] if "model" in schema.get("required", ()) else [None]
    return {"model": {"enum": [*names, *optional], "title": "Model"}}


def _json(schema: dict[str, Any]) -> dict[str, Any]:
    return {"application/json": {"schema": schema}}
