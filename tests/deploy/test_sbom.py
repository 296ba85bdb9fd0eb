"""The bill of materials names every package of the environment once."""

import json
import subprocess
import sys
from importlib.metadata import version

from tests.deploy.queries import DEPLOY


def test_every_package_is_on_the_bill_with_its_version():
    ran = subprocess.run([sys.executable, DEPLOY / "sbom.py"], capture_output=True, check=True)
    bill = json.loads(ran.stdout)
    assert bill["bomFormat"] == "CycloneDX" and bill["metadata"]["component"]["name"] == "reasond"
    versions = {part["purl"]: part["version"] for part in bill["components"]}
    assert len(versions) == len(bill["components"])
    for name in ("fastapi", "prometheus-client", "tokenizers"):
        assert versions[f"pkg:pypi/{name}@{version(name)}"] == version(name)
