"""The server keeps to its own OpenAPI document, whatever it is sent (schemathesis)."""

from __future__ import annotations

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from schemathesis import GenerationMode

from lapha.sandbox import MontySandbox, create_app

from .conftest import LIMITS

TOKEN = "a token that nobody guesses"
HEADERS = {"Authorization": f"Bearer {TOKEN}"}


@pytest.fixture(scope="module")
def schema():
    from lapha.sandbox.server import ServerConfig

    with MontySandbox(LIMITS, concurrency=1) as sandbox:
        app = create_app(sandbox, ServerConfig(token=TOKEN, states=50))
        yield schemathesis.openapi.from_asgi("/openapi.json", app, headers=HEADERS)


OPERATIONS = [("/runs", "POST"), ("/states/{name}", "DELETE"), ("/health", "GET"), ("/metrics", "GET")]


@pytest.mark.parametrize("mode", [GenerationMode.POSITIVE, GenerationMode.NEGATIVE])
@pytest.mark.parametrize(("path", "method"), OPERATIONS)
def test_every_answer_is_in_the_document(schema, path, method, mode):
    operation = schema[path][method]
    if mode is GenerationMode.NEGATIVE and path in ("/health", "/metrics"):
        mode = GenerationMode.POSITIVE  # there is nothing to get wrong

    @given(case=operation.as_strategy(generation_mode=mode))
    @settings(max_examples=40, derandomize=True, deadline=None, database=None, suppress_health_check=list(HealthCheck))
    def check(case):
        case.call_and_validate(headers=HEADERS)

    check()


def test_the_document_names_all_routes(schema):
    assert set(schema.raw_schema["paths"]) == {path for path, _ in OPERATIONS}
