"""Hosted experts when things go wrong: a typed error with a hint, never the key, and the next candidate draws."""

from __future__ import annotations

import json
import logging
import socket
import sys
import traceback
from typing import TYPE_CHECKING, Any

import pytest
from fixtures_hosted import KEY, TINY, draw, fail, hosted, settings_for, studio_with
from fixtures_routing import settings_in, zoo_of

from diffusiongpt.errors import (
    ContentRefusedError,
    DiffusionGPTError,
    DrawError,
    NeedsExtraError,
    NeedsKeyError,
    ServiceError,
    SettingsError,
)
from diffusiongpt.studio import DiffusionGPT
from diffusiongpt.testing import LocalImages

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from diffusiongpt.settings import Settings

PROMPT = "a pixel art fox"


@pytest.fixture
def images(monkeypatch: pytest.MonkeyPatch) -> Iterator[LocalImages]:
    """A server that draws; the client does not wait between attempts."""
    monkeypatch.setattr("openai._base_client.time.sleep", lambda _: None)
    with LocalImages() as running:
        yield running


@pytest.fixture
def there(images: LocalImages, tmp_path: Path) -> Settings:
    """Settings that point to it."""
    return settings_for(images, tmp_path)


def failure(there: Settings, **options: Any) -> DiffusionGPTError:
    """The error that a drawing ends with; it never shows the key, and its hint says what to do."""
    with pytest.raises(DiffusionGPTError) as caught:
        draw(there, **options)
    error = caught.value
    shown = "".join(traceback.format_exception(error))
    assert KEY not in shown
    assert "sk-proj" not in shown
    assert error.hint
    assert error.__context__ is None or not hasattr(error.__context__, "request")
    return error


@pytest.mark.parametrize(
    ("status", "kind", "retryable", "tries"),
    [
        (400, DrawError, False, 1),
        (401, NeedsKeyError, False, 1),
        (403, NeedsKeyError, False, 1),
        (404, DrawError, False, 1),
        (418, DrawError, False, 1),
        (307, DrawError, False, 1),
        (429, ServiceError, True, 2),
        (408, ServiceError, True, 2),
        (500, ServiceError, True, 2),
        (503, ServiceError, True, 2),
    ],
)
def test_each_status_has_its_error(
    images: LocalImages, there: Settings, status: int, kind: type[DrawError], retryable: bool, tries: int
) -> None:
    """Each status gives its own error with its number, after one more attempt where that can help."""
    images.fail("status", status=status)
    error = failure(there)
    assert type(error) is kind
    assert str(status) in str(error)
    assert error.retryable is retryable
    assert len(images.requests) == tries


@pytest.mark.parametrize(
    ("kind", "error", "words"),
    [
        ("closed", ServiceError, "closed the connection"),
        ("silent", ServiceError, "no complete answer within"),
        ("stalled", ServiceError, "no complete answer within"),
        ("trickling", ServiceError, "no complete answer within"),
        ("packed", DrawError, "not that of an images API"),
        ("refusal", ContentRefusedError, "safety_violations=[violence]"),
        ("html", DrawError, "not that of an images API"),
        ("no pictures", DrawError, "no picture"),
        ("address", DrawError, "addresses are not followed"),
        ("not base64", DrawError, "cannot be read"),
        ("not a picture", DrawError, "cannot be read"),
        ("truncated", DrawError, "cannot be read"),
        ("bomb", DrawError, "pixels"),
    ],
)
def test_each_fault_has_its_error(
    images: LocalImages, there: Settings, kind: str, error: type[DrawError], words: str
) -> None:
    """A misbehaving server gives a typed error that names it."""
    fail(images, kind)
    found = failure(there, timeout_s=0.5)
    assert type(found) is error
    assert words in str(found)


def test_an_answer_without_end_is_cut_off(images: LocalImages, there: Settings) -> None:
    """An answer is read only as far as a picture could need."""
    fail(images, "endless")
    assert "larger than any picture" in str(failure(there, answer_bytes=3_000_000))


def test_a_picture_above_the_limit_is_not_unpacked(there: Settings) -> None:
    """A picture with more pixels than the limit is refused from its header alone."""
    assert "64x64 pixels" in str(failure(there, pixels=64 * 64 - 1))


def test_a_server_that_is_not_there(tmp_path: Path, images: LocalImages) -> None:
    """A refused connection is reported as such, and a retry can help."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    error = failure(settings_for(images, tmp_path, openai_base_url=f"http://127.0.0.1:{port}/v1"))
    assert type(error) is ServiceError
    assert "cannot be reached" in str(error)


def test_a_server_that_mends_itself_costs_one_more_try(images: LocalImages, there: Settings) -> None:
    """The client retries after one failure; two are reported."""
    images.fail("status", status=503, times=1)
    assert len(draw(there).images) == 1
    images.fail("status", status=503, times=2)
    assert "503" in str(failure(there))


def test_a_redirect_is_not_followed(images: LocalImages, there: Settings) -> None:
    """A URL that a server names is never fetched, not even by a redirect."""
    images.fail("status", status=302)
    assert "302" in str(failure(there))
    assert len(images.requests) == 1


def test_what_a_provider_says_is_kept_short_and_clean(images: LocalImages, there: Settings) -> None:
    """One line of its message is passed on, printable, without the key or anything that looks like a key."""
    long = f"Bad\x1b[31m size\nfor {KEY} or sk-other-12 or Bearer abc.def: " + "x" * 500
    images.fail("status", status=400, message=long)
    text = str(failure(there))
    assert "Bad[31m size for … or … or …" in text
    assert text.endswith("…")
    assert len(text) < 300


@pytest.mark.parametrize("key", [None, "", "  "])
def test_without_a_key_nothing_is_asked(images: LocalImages, tmp_path: Path, key: str | None) -> None:
    """A missing key is reported with the variable to set, before any request is made."""
    error = failure(settings_for(images, tmp_path, openai_api_key=key))
    assert type(error) is NeedsKeyError
    assert "OPENAI_API_KEY" in error.hint
    assert images.requests == []


@pytest.mark.parametrize("key", [f"{KEY}\nX-Evil: 1", f"{KEY} {KEY}", f"“{KEY}”"])
def test_a_key_that_is_none_is_refused(images: LocalImages, tmp_path: Path, key: str) -> None:
    """A key with line breaks or quotes is reported when it is read, without showing it, and not sent."""
    with pytest.raises(SettingsError, match="openai_api_key") as caught:
        settings_for(images, tmp_path, openai_api_key=key)
    assert KEY not in str(caught.value)
    assert images.requests == []


def test_a_line_break_behind_a_key_does_no_harm(images: LocalImages, tmp_path: Path) -> None:
    """A line break at the end, as files often have it, is removed."""
    draw(settings_for(images, tmp_path, openai_api_key=f"{KEY}\n"))
    assert images.requests[0].key == KEY


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("ALL_PROXY", "socks5://127.0.0.1:9"),
        ("HTTPS_PROXY", "nosuch://127.0.0.1:9"),
        ("HTTP_PROXY", "127.0.0.1:port"),
        ("HTTP_PROXY", "http://[::1"),
        ("SSL_CERT_FILE", "/no/such/file.pem"),
        ("SSL_CERT_FILE", "/dev/null"),
    ],
)
def test_a_machine_that_cannot_connect_says_why(
    images: LocalImages, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    """A proxy or certificates that the HTTP library does not take are an error of ours that names the variables."""
    monkeypatch.setenv(name, value)
    error = failure(settings_for(images, tmp_path))
    assert type(error) is ServiceError
    assert name in error.hint


def test_offline_sends_nothing(images: LocalImages, tmp_path: Path) -> None:
    """`offline` keeps hosted experts from drawing too."""
    error = failure(settings_for(images, tmp_path, offline=True))
    assert type(error) is ServiceError
    assert "DIFFUSIONGPT_OFFLINE" in error.hint
    assert images.requests == []


def test_without_the_client_the_extra_is_named(there: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    """A missing package is reported with the command that installs it."""
    monkeypatch.setitem(sys.modules, "openai", None)
    error = failure(there)
    assert type(error) is NeedsExtraError
    assert error.hint == "pip install 'diffusiongpt[openai]'"


def test_the_key_is_in_no_log_and_no_repr(
    images: LocalImages, there: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    """The key is not in the logs, even with all of them on."""
    caplog.set_level(logging.DEBUG)
    with studio_with(there, hosted()) as studio:
        result = studio.route_and_generate(PROMPT, max_price=1)
        images.fail("status", status=401)
        fallen = studio.route_and_generate(PROMPT, max_price=1)
        shown = [caplog.text, repr(studio), repr(there), repr(result), there.model_dump_json(), repr(fallen.fallbacks)]
    assert caplog.text
    assert KEY not in "".join(shown)


@pytest.mark.parametrize("kind", ["refusal", "html", "closed"])
def test_the_next_candidate_draws(images: LocalImages, there: Settings, kind: str) -> None:
    """When a service fails, the next candidate draws, and the result records which expert failed and why."""
    images.fail(kind)
    with studio_with(there, hosted()) as studio:
        result = studio.route_and_generate(PROMPT, max_price=0.04)
    assert (result.route.expert, result.drawn_by) == ("cloud", TINY)
    assert [fallback.expert for fallback in result.fallbacks] == ["cloud"]
    assert result.fallbacks[0].hint


def test_without_a_key_the_route_shows_it_and_generating_goes_on(images: LocalImages, tmp_path: Path) -> None:
    """`route` marks an expert that needs a key; `generate` draws with the next candidate and records it."""
    with studio_with(settings_for(images, tmp_path, openai_api_key=None), hosted()) as studio:
        route = studio.route(PROMPT, max_price=0.04)
        assert (route.expert, route.chosen.readiness) == ("cloud", "needs_key")
        assert "needs_key" in route.explain()
        result = studio.route_and_generate(PROMPT, max_price=0.04)
        assert result.drawn_by == TINY
        assert "OPENAI_API_KEY" in result.fallbacks[0].hint
        with pytest.raises(NeedsKeyError):
            studio.route_and_generate(PROMPT, max_price=0.04, expert="cloud")
    assert images.requests == []


def test_a_picture_comes_also_from_a_zoo_of_services(images: LocalImages, tmp_path: Path) -> None:
    """When only hosted experts are allowed and none can draw, the tiny zoo draws: it always works without a key."""
    with DiffusionGPT(zoo_of(hosted()), settings=settings_in(tmp_path, openai_base_url=images.url)) as studio:
        result = studio.route_and_generate(PROMPT, max_price=0.04)
    assert result.drawn_by.startswith("tiny-")
    assert [fallback.expert for fallback in result.fallbacks] == ["cloud"]


REFUSALS: tuple[tuple[int, dict[str, Any]], ...] = (
    (400, {"error": {"code": "moderation_blocked", "message": "no", "type": "image_generation_user_error"}}),
    (400, {"error": {"code": None, "message": "no", "type": "content_policy_violation"}}),
    (400, {"error": {"code": "content_filter", "message": "The prompt", "innererror": {"code": "x"}}}),
    (400, {"error": {"code": "400", "innererror": {"code": "ResponsibleAIPolicyViolation"}, "message": ""}}),
    (400, {"error": {"code": "400", "message": "litellm.ContentPolicyViolationError: no", "type": None}}),
    (500, {"error": {"code": "500", "message": 'upstream said {"error": {"code": "moderation_blocked"}}'}}),
    (502, {"detail": "Your request was rejected by the safety system."}),
    (403, {"error": {"code": 403, "message": "flagged", "metadata": {"reasons": ["content_filter"]}}}),
    (422, {"error": {"message": "The prompt violates our usage policies", "code": "invalid_request"}}),
    (400, {"error": "NSFW content was detected"}),
    (400, {"errors": [{"status": "safety_error", "message": "no"}]}),
)


@pytest.mark.parametrize(("status", "body"), REFUSALS)
def test_a_refusal_is_known_by_code_type_or_message(
    images: LocalImages, there: Settings, status: int, body: dict[str, Any]
) -> None:
    """Also where a gateway has wrapped it into an error of its own; it is not asked again."""

    def answer(handler: Any) -> None:
        raw = json.dumps(body).encode()
        handler.head(status, "application/json", len(raw))
        handler.wfile.write(raw)

    images.fail("custom", answer=answer)
    assert type(failure(there)) is ContentRefusedError
    assert len(images.requests) == 1


def test_a_refusal_may_come_as_a_success(images: LocalImages, there: Settings) -> None:
    """Some gateways answer 200 with an error in it."""
    images.fail("custom", answer=lambda one: one.send_json({"error": {"code": "content_policy_violation"}}))
    assert type(failure(there)) is ContentRefusedError


@pytest.mark.parametrize(
    "error",
    [
        {"code": "invalid_value", "param": "moderation", "message": "Invalid value: 'off'. content policy is low"},
        {"code": "unknown_parameter", "param": "safety_filter", "message": "Unknown parameter: 'safety_filter'."},
        {"code": None, "message": "size must be one of 1024x1024"},
    ],
)
def test_a_bad_setting_is_not_a_refusal(images: LocalImages, there: Settings, error: dict[str, Any]) -> None:
    """An error about a parameter is one of the settings, whatever the parameter is called."""

    def answer(handler: Any) -> None:
        raw = json.dumps({"error": {"type": "invalid_request_error", **error}}).encode()
        handler.head(400, "application/json", len(raw))
        handler.wfile.write(raw)

    images.fail("custom", answer=answer)
    assert type(failure(there)) is DrawError


@pytest.mark.parametrize("kind", ["closed", "silent"])
def test_what_may_have_been_billed_is_not_repeated(images: LocalImages, there: Settings, kind: str) -> None:
    """A request that was sent and not answered is asked once."""
    images.fail(kind)
    assert failure(there, timeout_s=0.5).retryable
    assert len(images.requests) == 1


def test_an_account_without_credit_is_not_asked_twice(images: LocalImages, there: Settings) -> None:
    """A retry cannot help; a wait after 429 can, and is as long as the service says."""

    def answer(handler: Any) -> None:
        handler.refuse(429, code="insufficient_quota", why="You exceeded your current quota")

    images.fail("custom", answer=answer)
    assert "quota" in str(failure(there))
    assert len(images.requests) == 1
