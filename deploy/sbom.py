"""The software bill of materials of this environment, as CycloneDX (JSON) on standard output: `make sbom`."""

import json
import sys
from importlib.metadata import Distribution, distributions
from typing import Any


def bill(installed: list[Distribution]) -> dict[str, Any]:
    """Every package once, by name."""
    known = {each.metadata["Name"].lower().replace("_", "-"): each for each in installed}
    return {
        "bomFormat": "CycloneDX",
        "specVersion": "1.5",
        "version": 1,
        "metadata": {"component": _component("reasond", known.pop("reasond"), "application")},
        "components": [_component(name, known[name], "library") for name in sorted(known)],
    }


def _component(name: str, package: Distribution, kind: str) -> dict[str, Any]:
    told = package.metadata
    licence = told.get("License-Expression") or told.get("License") or ""
    component = {"type": kind, "name": name, "version": package.version, "purl": f"pkg:pypi/{name}@{package.version}"}
    if licence and "\n" not in licence:
        return {**component, "licenses": [{"license": {"name": licence}}]}
    return component


if __name__ == "__main__":
    json.dump(bill(list(distributions())), sys.stdout, indent=1)
