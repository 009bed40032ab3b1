"""Each door writes arguments as whoever reads its messages typed them."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from fixtures_server import Running, running
from typer.testing import CliRunner

from diffusiongpt.apps.cli import app
from diffusiongpt.apps.cli.common import REQUEST_OPTIONS
from diffusiongpt.apps.cli.reporting import with_options
from diffusiongpt.flow import Policy, Request
from diffusiongpt.settings import load_settings
from diffusiongpt.studio import DiffusionGPT

OURS = {*Request.model_fields, *Policy.model_fields}
PYTHON = re.compile(rf"\b(?:{'|'.join(OURS)})=|\b(?:{'|'.join(one for one in OURS if '_' in one)}|None|str)\b")
"""An argument as only Python writes it."""

MISTAKES: tuple[tuple[list[str], str], ...] = (
    (["--width", "7"], "--width 7 is out of range"),
    (["--height", "999999"], "--height 999999 is out of range"),
    (["--steps", "0"], "--steps 0 is out of range"),
    (["--guidance", "-1"], "--guidance -1.0 is out of range"),
    (["-n", "0"], "-n 0 is out of range"),
    (["--seed", "-1"], "--seed -1 is out of range"),
    (["--strength", "2"], "--strength 2.0 is out of range"),
    (["--strength", "0.5"], "--strength is for a picture"),
    (["--mask", "m.png"], "--mask m.png does not exist"),
    (["--image", "no.png"], "--image no.png does not exist"),
    (["--control-image", "no.png"], "--control-image no.png does not exist"),
    (["--prefer", "quick"], "--prefer quick is unknown"),
    (["--safety", "lax"], "--safety lax is unknown"),
    (["--explore", "luck"], "--explore luck is unknown"),
    (["--background", "blue"], "--background blue is unknown"),
    (["--memory", "much"], "--memory much cannot be used"),
    (["--max-price", "-1"], "--max-price -1.0 is out of range"),
    (["--max-wait", "-1"], "--max-wait -1.0"),
    (["--timeout", "0"], "--timeout 0.0"),
    (["--voter", " "], "--voter ' ' is not a name"),
    (["--experts", "a,a"], "--experts a,a is not a list of different ids"),
    (["--expert", "a", "--experts", "b"], "--expert a is not one of --experts b"),
    (["--llm", "nosuch"], "--llm nosuch"),
    (["--negative", "\x01"], "--negative holds binary data"),
)
SWITCHES = {"rewrite", "prefer_mine", "commercial_use", "local_only"}
"""Options without a value cannot have a wrong one."""


pytestmark = pytest.mark.usefixtures("tiny_home")


@pytest.mark.parametrize(("typed", "said"), MISTAKES, ids=[" ".join(typed) for typed, _ in MISTAKES])
def test_the_command_line_names_options(typed: list[str], said: str) -> None:
    """Message and hint name the option that was typed, on the terminal and in JSON, and nothing of Python's."""
    result = CliRunner().invoke(app, ["route", "a fox", *typed, "--json"])
    assert result.exit_code == 2, result.output
    error = json.loads(result.stdout)["error"]
    assert error["message"].startswith(said)
    assert error["message"] in result.stderr
    assert not PYTHON.search(f"{error['message']} {error['hint']}")


def test_every_option_that_can_be_wrong_is_among_them() -> None:
    """The examples above leave out none."""
    tried = {word for typed, _ in MISTAKES for word in typed}
    options = {with_options(f"{name}=") for name in set(REQUEST_OPTIONS) - SWITCHES}
    assert options <= tried


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("allow it with max_price=0.05", "allow it with --max-price 0.05"),
        ("Drop commercial_use=True, or more.", "Drop --commercial-use, or more."),
        ("rewrite=False keeps it", "--no-rewrite keeps it"),
        ("Pass image= as well.", "Pass --image as well."),
        ("Use llm=None for the local thinker.", "Use no --llm for the local thinker."),
        ("plan with memory='24GB+64GB'.", "plan with --memory 24GB+64GB."),
        ("draw with expert='a b'", "draw with --expert 'a b'"),
        ("an image of the width of 7", "an image of the width of 7"),
        ("https://x.example/?seed=7", "https://x.example/?seed=7"),
        ("DIFFUSIONGPT_MEMORY=8GB", "DIFFUSIONGPT_MEMORY=8GB"),
    ],
)
def test_what_is_an_option_and_what_is_a_word(text: str, shown: str) -> None:
    """Only what Python writes as an argument becomes an option."""
    assert with_options(text) == shown


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Running]:
    """A server over the tiny zoo."""
    settings = load_settings(home=tmp_path / "home", hub_cache=tmp_path / "hub", device="cpu")
    with DiffusionGPT("tiny", settings=settings) as studio, running(studio) as one:
        yield one


@pytest.mark.parametrize(
    ("path", "fields", "param"),
    [
        ("/v1/images/generations", {"n": 0}, "n"),
        ("/v1/images/generations", {"n": 1000}, "n"),
        ("/v1/images/generations", {"size": "7x64"}, "size"),
        ("/v1/images/generations", {"size": "64x9000"}, "size"),
        ("/v1/images/generations", {"width": 7}, "width"),
        ("/v1/images/generations", {"prefer": "quick"}, "prefer"),
        ("/v1/images/generations", {"max_price": -1}, "max_price"),
        ("/v1/route", {"strength": 0.5}, "strength"),
        ("/v1/route", {"voter": ""}, "voter"),
        ("/sdapi/v1/txt2img", {"steps": 5000}, "steps"),
        ("/sdapi/v1/txt2img", {"cfg_scale": 101}, "cfg_scale"),
        ("/sdapi/v1/txt2img", {"batch_size": 60}, "batch_size"),
        ("/sdapi/v1/img2img", {"init_images": ["AAAA"]}, "init_images"),
        ("/sdapi/v1/img2img", {"init_images": ["?"]}, "init_images"),
        ("/sdapi/v1/img2img", {"init_images": ["AAAA"], "mask": "?"}, "mask"),
    ],
)
def test_the_server_names_fields(server: Running, path: str, fields: dict[str, Any], param: str) -> None:
    """Message and `param` name the field that the client sent, in the dialect that it speaks."""
    answer = httpx.post(f"{server.url}{path}", json={"prompt": "a fox", **fields}, timeout=30)
    assert answer.status_code == 400, answer.text
    error = answer.json()["error"]
    assert error["param"] == param
    assert error["message"].startswith(param)
    for name in OURS - {*fields, "prompt"}:
        assert not re.search(rf"\b{name}=", error["message"]), error["message"]
