"""Spend limits hold whatever happens: for a picture, a request and a day, in threads, processes and after a crash."""

from __future__ import annotations

import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from math import inf, nan
from typing import TYPE_CHECKING, Any

import pytest
from fixtures_hosted import TINY, ask, hosted, settings_for, studio_with
from fixtures_routing import settings_in
from PIL import Image

from diffusiongpt.backends.hosted import Limits, OpenAIBackend
from diffusiongpt.drawing import Spending
from diffusiongpt.errors import (
    ContentRefusedError,
    DiffusionGPTError,
    NoRouteError,
    ServiceError,
    SettingsError,
    SpendLimitError,
)
from diffusiongpt.settings import load_settings
from diffusiongpt.testing import LocalImages
from diffusiongpt.zoo import Price

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

PROMPT = "a pixel art fox"
PRICE = 0.04


@pytest.fixture
def images() -> Iterator[LocalImages]:
    """A server that draws."""
    with LocalImages() as running:
        yield running


def asked(images: LocalImages) -> int:
    """How many pictures a server was asked for."""
    return sum(request.body["n"] for request in images.requests)


@pytest.mark.parametrize(("limit", "pictures"), [({"spend_per_run": 0.5}, 12), ({"spend_per_day": 0.2}, 5), ({}, 25)])
def test_many_pictures_stop_at_the_limit(
    images: LocalImages, tmp_path: Path, limit: dict[str, Any], pictures: int
) -> None:
    """Thirty-two pictures of four cents are drawn as far as the money goes, which the result reports."""
    settings = settings_for(images, tmp_path, **limit)
    with studio_with(settings, hosted()) as studio:
        result = studio.route_and_generate(PROMPT, max_price=PRICE, num_images_per_prompt=32)
    assert len(result.images) == asked(images) == pictures
    assert "spend limit" in next(one.reason for one in result.dropped if one.name == "num_images_per_prompt")
    assert Spending(settings).today() == pytest.approx(pictures * PRICE)


def test_sixteen_threads_do_not_cross_the_limit_of_a_day(images: LocalImages, tmp_path: Path) -> None:
    """Of sixteen requests at a time, as many draw as may; the next candidate draws for the others."""
    settings = settings_for(images, tmp_path, spend_per_day=0.2)
    with studio_with(settings, hosted()) as studio, ThreadPoolExecutor(16) as pool:
        results = list(pool.map(lambda seed: studio.route_and_generate(PROMPT, max_price=PRICE, seed=seed), range(16)))
    drawn = [result.drawn_by for result in results]
    assert (drawn.count("cloud"), drawn.count(TINY), asked(images)) == (5, 11, 5)
    assert any("spend limit of a day" in one.error for result in results for one in result.fallbacks)


CHILD = """
import os, sys, time
from diffusiongpt.backends.hosted import Limits, OpenAIBackend
from diffusiongpt.drawing import Spending
from diffusiongpt.errors import SpendLimitError
from diffusiongpt.settings import load_settings
from diffusiongpt.zoo import Expert, Price
spending = Spending(load_settings(home=sys.argv[1], device="cpu", spend_per_day=0.5))
expert = Expert(id="cloud", backend="openai", repo="openai/cloud", price=Price(usd=0.04))
for _ in range(int(sys.argv[2])):
    try:
        with spending.run().meter(expert).paying(1):
            print("paid", flush=True)
            time.sleep(float(sys.argv[3]))
    except SpendLimitError:
        print("refused", flush=True)
"""


def child(folder: Path, times: int, seconds: float) -> subprocess.Popen[str]:
    """A process that spends."""
    command = [sys.executable, "-c", CHILD, str(folder), str(times), str(seconds)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def test_processes_share_the_limit(tmp_path: Path) -> None:
    """Three processes with ten pictures each have the twelve that half a dollar buys."""
    running = [child(tmp_path, 10, 0) for _ in range(3)]
    said = "".join(one.communicate(timeout=60)[0] for one in running)
    assert (said.count("paid"), said.count("refused")) == (12, 18)


def test_what_a_killed_process_set_aside_stays_counted(tmp_path: Path) -> None:
    """Its picture may have been billed."""
    with child(tmp_path, 1, 60) as running:
        assert running.stdout is not None
        assert running.stdout.readline() == "paid\n"
        running.send_signal(signal.SIGKILL)
    assert Spending(load_settings(home=tmp_path, device="cpu")).today() == PRICE


@pytest.mark.parametrize(
    ("kind", "details", "counted"),
    [
        ("refusal", {}, 0),
        ("status", {"status": 500}, 0),
        ("status", {"status": 429}, 0),
        ("closed", {}, 1),
        ("html", {}, 1),
        ("silent", {}, 1),
    ],
)
def test_only_what_may_be_billed_counts(
    images: LocalImages,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    kind: str,
    details: dict[str, Any],
    counted: int,
) -> None:
    """A status is free; an answer that did not come, or cannot be read, may be on the bill."""
    monkeypatch.setattr("time.sleep", lambda _: None)
    images.fail(kind, **details)
    settings = settings_for(images, tmp_path)
    meter = Spending(settings).run().meter(hosted())
    with pytest.raises(DiffusionGPTError):
        OpenAIBackend(Limits(timeout_s=0.5)).draw(replace(ask(), meter=meter), settings)
    assert Spending(settings).today() == pytest.approx(counted * PRICE)


def test_candidates_that_fail_after_drawing_share_the_limit_of_the_request(tmp_path: Path) -> None:
    """Six services whose pictures are none are not all paid: the request stops asking at its limit."""
    with LocalImages(draw=lambda _: Image.new("RGB", (64, 64))) as images:
        settings = settings_for(images, tmp_path, spend_per_run=0.1)
        experts = [hosted(f"cloud{index}") for index in range(6)]
        with studio_with(settings, *experts) as studio:
            result = studio.route_and_generate(PROMPT, max_price=PRICE)
        assert asked(images) == 2
    assert result.drawn_by == TINY
    assert sum("spend limit of a request" in one.error for one in result.fallbacks) >= 1


def test_a_picture_may_not_cost_more_than_its_limit(images: LocalImages, tmp_path: Path) -> None:
    """Whatever `max_price` a request has."""
    settings = settings_for(images, tmp_path, spend_per_picture=0.03)
    with studio_with(settings, hosted()) as studio, pytest.raises(SpendLimitError, match="limit of a picture"):
        studio.route_and_generate(PROMPT, max_price=inf, expert="cloud")
    assert images.requests == []


def test_a_price_of_zero_counts_as_what_was_allowed(images: LocalImages, tmp_path: Path) -> None:
    """A stranger's zoo says that it is free; each picture counts as the most that it may cost."""
    settings = settings_for(images, tmp_path, spend_per_run=0.1)
    free = hosted("free", price=Price(usd=0))
    with studio_with(settings, free) as studio:
        assert studio.route_and_generate(PROMPT).drawn_by == TINY
        with pytest.raises(NoRouteError):
            studio.route_and_generate(PROMPT, expert="free")
        assert images.requests == []
        result = studio.route_and_generate(PROMPT, max_price=0.05, expert="free", num_images_per_prompt=8)
        assert len(result.images) == 2
    own = settings_for(images, tmp_path, spend_per_day=0, free_experts="free")
    with studio_with(own, free) as studio:
        assert len(studio.route_and_generate(PROMPT, expert="free", num_images_per_prompt=8).images) == 8


def test_an_unknown_price_needs_a_limit_of_none(images: LocalImages, tmp_path: Path) -> None:
    """No limit can be kept for it, so it is asked only where all are lifted."""
    unknown = hosted("unknown", price=None)
    with (
        studio_with(settings_for(images, tmp_path), unknown) as studio,
        pytest.raises(SpendLimitError, match="costs is not known"),
    ):
        studio.route_and_generate(PROMPT, max_price=inf, expert="unknown")
    lifted = settings_for(images, tmp_path, spend_per_run=inf, spend_per_day=inf)
    with studio_with(lifted, unknown) as studio:
        assert studio.route_and_generate(PROMPT, max_price=inf, expert="unknown").drawn_by == "unknown"


def test_a_clock_that_goes_back_frees_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was spent on a later day counts too; on the next day the money is there again."""
    spending = Spending(settings_in(tmp_path, spend_per_day=PRICE))
    days = ["2026-05-02", "2026-05-01", "2026-05-03"]
    monkeypatch.setattr("diffusiongpt.drawing.spending._today", lambda: days[0])
    with spending.run().meter(hosted()).paying(1):
        days.pop(0)
    with pytest.raises(SpendLimitError), spending.run().meter(hosted()).paying(1):
        pass
    days.pop(0)
    with spending.run().meter(hosted()).paying(1):
        pass


@pytest.mark.parametrize("spoil", ["damaged", "folder"])
def test_without_its_record_nothing_is_spent(images: LocalImages, tmp_path: Path, spoil: str) -> None:
    """What was spent is not forgotten because its record cannot be read."""
    settings = settings_for(images, tmp_path)
    settings.home.mkdir(parents=True)
    place = settings.home / "spending.db"
    place.write_bytes(b"not a database" * 1000) if spoil == "damaged" else place.mkdir()
    with studio_with(settings, hosted()) as studio, pytest.raises(SpendLimitError, match=r"spending\.db"):
        studio.route_and_generate(PROMPT, max_price=PRICE, expert="cloud")
    assert images.requests == []


@pytest.mark.parametrize("value", [-1, nan, "a lot"])
def test_a_limit_is_an_amount(value: Any) -> None:
    """What is not one would never be crossed."""
    with pytest.raises(SettingsError, match="spend_per_day"):
        load_settings(spend_per_day=value)


@pytest.mark.parametrize("error", [ContentRefusedError("no"), ServiceError("down")])
def test_an_error_counts_unless_it_is_known_to_be_free(tmp_path: Path, error: Any) -> None:
    """Whether a plugin's failure was billed is not known, unless it says so."""
    spending = Spending(settings_in(tmp_path))
    for unbilled in (False, True):
        error.unbilled = unbilled
        with pytest.raises(type(error)), spending.run().meter(hosted()).paying(2):
            raise error
        assert spending.today() == pytest.approx(2 * PRICE)
