"""The OpenAPI description says what the server takes, and the server takes what it says."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from schemathesis.checks import not_a_server_error

from diffusiongpt.apps.server import ServerSettings, create_app
from diffusiongpt.apps.server.bodies import OPTIONS
from diffusiongpt.settings import load_settings
from diffusiongpt.studio import DiffusionGPT

if TYPE_CHECKING:
    from fastapi import FastAPI

SNAPSHOT = Path(__file__).with_name("openapi.json")
NEVER_DRAWN = ("experts", "expert", "model")
"""Fields that would name an expert of another zoo, so that hardly anything would be drawn."""


@pytest.fixture(scope="module")
def app(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FastAPI]:
    """A server whose experts draw in no time."""
    home = tmp_path_factory.mktemp("schema")
    zoo = home / "zoo.yaml"
    experts = "".join(f"  - {{id: {name}, backend: fake, repo: me/{name}}}\n" for name in ("flat", "plain"))
    zoo.write_text(f"schema_version: 1\nexperts:\n{experts}", encoding="utf-8")
    own = load_settings(home=home / "home", hub_cache=home / "hub")
    with DiffusionGPT(zoo, device="cpu", settings=own) as studio:
        yield create_app(studio, ServerSettings(log="off", max_megapixels=0.1))


def outline(schema: dict[str, Any]) -> dict[str, Any]:
    """Paths with the names of what they take; without our arguments, which follow the models of a request."""

    def fields(content: dict[str, Any]) -> list[str]:
        body = content["schema"]
        if "$ref" in body:
            body = schema["components"]["schemas"][body["$ref"].rpartition("/")[2]]
        return sorted(set(body["properties"]) - set(OPTIONS))

    return {
        f"{method.upper()} {path}": {
            "parameters": [one["name"] for one in operation.get("parameters", ())],
            **{kind: fields(body) for kind, body in operation.get("requestBody", {}).get("content", {}).items()},
        }
        for path, methods in sorted(schema["paths"].items())
        for method, operation in sorted(methods.items())
    }


def test_the_description_changes_only_on_purpose(app: FastAPI) -> None:
    """Programs rely on it. Write it again with UPDATE_SNAPSHOTS=1 in the environment where a change is meant."""
    found = outline(app.openapi())
    if os.environ.get("UPDATE_SNAPSHOTS"):
        SNAPSHOT.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
    assert found == json.loads(SNAPSHOT.read_text(encoding="utf-8"))


def test_our_arguments_are_described_where_pictures_are_asked_for(app: FastAPI) -> None:
    """As the models describe them; a function is not among them, since none can be sent."""
    body = app.openapi()["components"]["schemas"]["DrawBody"]["properties"]
    assert set(OPTIONS) <= set(body)
    assert "callback_on_step_end" not in body
    assert body["prefer"]["enum"] == ["quality", "fast", "cheap"]


@settings(
    max_examples=120,
    deadline=None,
    derandomize=True,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=list(HealthCheck),
)
@given(data=st.data())
def test_what_fits_the_description_never_fails_the_server(app: FastAPI, data: st.DataObject) -> None:
    """Requests made from it by a tool, over all of our paths: each has an answer, and none is a failure of ours."""
    schema = schemathesis.openapi.from_asgi("/openapi.json", app)
    operations = [one.ok() for one in schema.get_all_operations()]
    operation = data.draw(st.sampled_from(sorted(operations, key=lambda one: one.label)))
    case = data.draw(operation.as_strategy())
    if isinstance(case.body, dict):
        for name in NEVER_DRAWN:
            case.body.pop(name, None)
    answer = case.call()
    case.validate_response(answer, checks=[not_a_server_error])
    if answer.status_code >= 400:
        assert {"message", "type", "param", "code"} <= set(answer.json()["error"])
