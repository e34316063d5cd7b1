"""Whatever a client sends, it is answered, and never by a 5xx: schemathesis makes the requests from /openapi.json."""

from contextlib import suppress

import httpx
import pytest
from studio_help import as_bytes, photo

schemathesis = pytest.importorskip("schemathesis", reason="needs schemathesis: `make test-page` installs it")

from hypothesis import HealthCheck, given, settings  # noqa: E402  (comes with schemathesis)
from hypothesis.errors import Unsatisfiable  # noqa: E402
from schemathesis import GenerationMode  # noqa: E402
from schemathesis.checks import not_a_server_error  # noqa: E402

pytestmark = pytest.mark.page

EXAMPLES = 12  # of every address, in each mode
STREAM = "/api/events"  # never ends


@pytest.mark.parametrize("mode", GenerationMode, ids=lambda mode: mode.name.lower())
def test_no_request_is_a_bug(address, mode):
    image = httpx.post(f"{address}/api/images", files={"file": ("photo.png", as_bytes(photo()))}, timeout=60).json()
    schema = schemathesis.openapi.from_url(f"{address}/openapi.json").exclude(path=STREAM)
    asked = 0
    for found in schema.get_all_operations():

        @settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)
        @given(case=found.ok().as_strategy(generation_mode=mode))
        def ask(case):
            nonlocal asked
            asked += 1
            lead_on(case, image["id"])
            case.call_and_validate(checks=[not_a_server_error])

        # Where any text will do, nothing can be wrong.
        with suppress(Unsatisfiable):
            ask()
    assert asked > 50


def lead_on(case, image):
    """Let every other request name an image and an application that are there: random names get no further than 404."""
    if len(str(case.path_parameters.get("key", ""))) % 2 and case.method != "DELETE":
        case.path_parameters["key"] = image
    if isinstance(case.body, dict) and len(str(case.body)) % 2:
        if "application" in case.body:
            case.body |= {"application": "upscale", "inputs": {"image": image}}
        if "images" in case.body:
            case.body["images"] = [image]
