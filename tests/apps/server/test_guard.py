"""Who may ask: keys in every form that programs send them, names of the host, and pages of other sites."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from typing import TYPE_CHECKING

import httpx
import openai
import pytest
from fixtures_server import Running, running

from diffusiongpt.apps.server import ServerSettings, guarded

if TYPE_CHECKING:
    from diffusiongpt.studio import DiffusionGPT

KEY = "a-key-of-ours"


@pytest.fixture(scope="module")
def locked(tiny_studio: DiffusionGPT) -> Iterator[Running]:
    """A server that asks for one of two keys."""
    with running(tiny_studio, api_keys=f"another-key-of-ours,{KEY}") as one:
        yield one


def basic(text: str) -> str:
    """A header of basic authentication."""
    return "Basic " + base64.b64encode(text.encode()).decode()


@pytest.mark.parametrize(
    ("header", "status"),
    [
        (f"Bearer {KEY}", 200),
        (f"bearer  {KEY}", 200),
        ("Bearer another-key-of-ours", 200),
        (basic(f"me:{KEY}"), 200),
        (basic(f":{KEY}"), 200),
        (basic(KEY), 200),
        (None, 401),
        ("", 401),
        ("Bearer", 401),
        (f"Bearer {KEY}x", 401),
        (f"Bearer {KEY[:-1]}", 401),
        (f"Bearer {KEY} x", 401),
        (KEY, 401),
        (basic(f"{KEY}:"), 401),
        ("Basic ?", 401),
        ("Basic " + base64.b64encode(b"\xff").decode(), 401),
    ],
)
def test_a_key_opens_every_path(locked: Running, header: str | None, status: int) -> None:
    """As a bearer token, or as the password that A1111's programs send."""
    headers = {} if header is None else {"authorization": header}
    for path in ("/v1/models", "/sdapi/v1/options", "/metrics", "/openapi.json", "/no/such"):
        answer = httpx.get(locked.url + path, headers=headers)
        assert answer.status_code == (404 if status == 200 and path == "/no/such" else status)
        if status == 401:
            assert answer.json()["error"]["code"] == "invalid_api_key"
            assert answer.headers["www-authenticate"] == "Bearer"


def test_a_browser_is_asked_for_the_key(locked: Running) -> None:
    """It asks its user, so that what the API answers can be looked at."""
    answer = httpx.get(f"{locked.url}/v1/models", headers={"accept": "text/html,*/*"})
    assert answer.headers["www-authenticate"].startswith("Basic")


def test_what_needs_no_key(locked: Running) -> None:
    """Probes, which learn only whether it is ready, and pictures whose address is known."""
    assert httpx.get(f"{locked.url}/healthz").json() == {"status": "ok"}
    assert httpx.get(f"{locked.url}/readyz").json() == {"status": "ready"}
    headers = {"authorization": f"Bearer {KEY}"}
    assert "loaded" in httpx.get(f"{locked.url}/readyz", headers=headers).json()
    body = {"prompt": "a red heart", "response_format": "url"}
    drawn = httpx.post(f"{locked.url}/v1/images/generations", json=body, headers=headers, timeout=60).json()
    assert httpx.get(drawn["data"][0]["url"]).status_code == 200


def test_the_official_client_reports_a_wrong_key(locked: Running) -> None:
    """As it does at OpenAI."""
    client = openai.OpenAI(base_url=f"{locked.url}/v1", api_key="wrong", max_retries=0)
    with pytest.raises(openai.AuthenticationError):
        client.images.generate(prompt="a red heart")


def test_votes_of_a_key_are_of_its_holder(locked: Running) -> None:
    """Under a name that does not say what the key is, and that is the same each time."""
    names = set()
    for key in (KEY, KEY, "another-key-of-ours"):
        headers = {"authorization": f"Bearer {key}"}
        body = {"prompt": "a red heart"}
        drawn = httpx.post(f"{locked.url}/v1/images/generations", json=body, headers=headers, timeout=60).json()
        vote = {"ballot": drawn["diffusiongpt"]["ballot"], "rating": 1}
        names.add(httpx.post(f"{locked.url}/v1/votes", json=vote, headers=headers).json()["voter"])
    assert len(names) == 2
    assert not any(KEY in name for name in names)


@pytest.mark.parametrize(
    ("headers", "refused"),
    [
        ({"origin": "https://evil.example", "content-type": "text/plain"}, True),
        ({"origin": "null", "content-type": "multipart/form-data; boundary=x"}, True),
        ({"origin": "https://evil.example"}, True),
        ({"origin": "https://evil.example", "content-type": "text/plain", "authorization": basic(f"me:{KEY}")}, True),
        ({"origin": "https://evil.example", "content-type": "text/plain", "authorization": f"Bearer {KEY}"}, False),
        ({"origin": "https://evil.example", "content-type": "application/json"}, False),
        ({"content-type": "text/plain"}, False),
    ],
)
def test_a_page_of_another_site_cannot_ask(server: Running, headers: dict[str, str], *, refused: bool) -> None:
    """What a browser sends for it without asking us is refused; what it has to ask about first is not allowed."""
    answer = httpx.post(f"{server.url}/sdapi/v1/interrupt", headers=headers)
    assert (answer.status_code == 403) == refused
    asked = {"origin": "https://evil.example", "access-control-request-method": "POST"}
    assert "access-control-allow-origin" not in httpx.options(f"{server.url}/v1/route", headers=asked).headers


def test_a_page_of_the_server_itself_may_ask(server: Running) -> None:
    """Its origin is the server's own."""
    headers = {"origin": server.url, "content-type": "text/plain"}
    assert httpx.post(f"{server.url}/sdapi/v1/interrupt", headers=headers).status_code == 200


def test_a_site_that_is_named_may_ask(tiny_studio: DiffusionGPT) -> None:
    """And no other: its preflight, which carries no key, is answered."""
    with running(tiny_studio, origins="https://chat.example", api_keys=KEY) as server:
        asked = {"access-control-request-method": "POST", "access-control-request-headers": "authorization"}
        good = httpx.options(f"{server.url}/v1/route", headers={**asked, "origin": "https://chat.example"})
        evil = httpx.options(f"{server.url}/v1/route", headers={**asked, "origin": "https://evil.example"})
        assert good.headers["access-control-allow-origin"] == "https://chat.example"
        assert "access-control-allow-origin" not in evil.headers


@pytest.mark.parametrize(("host", "status"), [("localhost:8000", 200), ("127.0.0.1", 200), ("evil.example", 403)])
def test_loopback_without_a_key_goes_by_its_own_names(tiny_studio: DiffusionGPT, host: str, status: int) -> None:
    """A page whose name was given our address sends that name, and is refused."""
    settings = guarded(ServerSettings())
    with running(tiny_studio, hosts=",".join(settings.hosts)) as server:
        assert httpx.get(f"{server.url}/v1/models", headers={"host": host}).status_code == status


def test_other_addresses_go_by_any_name() -> None:
    """With a key, or where it was said that none is needed."""
    assert not guarded(ServerSettings(api_keys=KEY)).hosts
    assert not guarded(ServerSettings(host="0.0.0.0", no_auth=True)).hosts  # noqa: S104
