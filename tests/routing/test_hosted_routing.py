"""Hosted experts are opt-in: by default no route uses them; a price and `local_only` decide whether they may draw."""

from __future__ import annotations

import json
import subprocess
import sys
from functools import cache
from math import inf
from typing import TYPE_CHECKING, Any

import pytest
from fixtures_hosted import hosted, settings_for
from fixtures_routing import expert, router_of, zoo_of
from prompts_styled import PROMPTS
from typer.testing import CliRunner

from diffusiongpt.apps.cli import app
from diffusiongpt.backends import is_hosted
from diffusiongpt.errors import NoRouteError, RequestError, SettingsError
from diffusiongpt.flow import Policy, Request
from diffusiongpt.ranking import published
from diffusiongpt.settings import load_settings
from diffusiongpt.studio import DiffusionGPT
from diffusiongpt.testing import LocalImages
from diffusiongpt.zoo import Price, Zoo

if TYPE_CHECKING:
    from pathlib import Path

    from diffusiongpt.flow import Route
    from diffusiongpt.zoo import Expert

DEAR, FREE, UNKNOWN, HERE = (
    hosted("dear", price=Price(usd=0.04)),
    hosted("free", price=Price(usd=0)),
    hosted("unknown", price=None),
    expert("here", "pixel_art"),
)


@cache
def zoo() -> Zoo:
    """The zoo that ships."""
    return Zoo.load("default")


def services() -> list[Expert]:
    """The hosted experts of the zoo that ships."""
    return [one for one in zoo().values() if is_hosted(one.backend)]


def decide(folder: Path, **policy: Any) -> Route:
    """The route among all kinds of experts."""
    router = router_of(zoo_of(DEAR, FREE, UNKNOWN, HERE), folder / "v.db")
    return router.route(Request(prompt="a pixel art fox"), Policy(**policy))


@pytest.mark.parametrize(
    ("policy", "allowed"),
    [
        ({}, {"here"}),
        ({"max_price": 0.039}, {"free", "here"}),
        ({"max_price": 0.04}, {"dear", "free", "here"}),
        ({"max_price": 1000}, {"dear", "free", "here"}),
        ({"max_price": inf}, {"dear", "free", "unknown", "here"}),
        ({"max_price": inf, "local_only": True}, {"here"}),
    ],
)
def test_the_price_decides_who_may_draw(tmp_path: Path, policy: dict[str, Any], allowed: set[str]) -> None:
    """An expert above `max_price` is rejected, one of unknown price unless any is allowed, all if `local_only`."""
    route = decide(tmp_path, **policy)
    assert {candidate.expert for candidate in route.candidates} == allowed
    assert {rejection.expert for rejection in route.rejected} == {"dear", "free", "unknown", "here"} - allowed


def test_a_rejection_says_what_would_allow_it(tmp_path: Path) -> None:
    """`why_not` states the price and the argument."""
    route = decide(tmp_path)
    assert route.why_not("dear") == ("dear was rejected: it costs about $0.04 a picture; allow it with max_price=0.04.")
    assert "max_price=inf" in route.why_not("unknown")
    local = decide(tmp_path, local_only=True)
    assert local.why_not("free") == "free was rejected: it runs at openai, and only local experts are allowed."


def test_a_price_of_zero_in_a_zoo_file_is_no_permission(tmp_path: Path) -> None:
    """The zoo may be a stranger's, and the bill is the user's: the user's own setting allows it, and nothing else."""
    assert "list it in free_experts" in decide(tmp_path).why_not("free")
    for name in ("free", "openai"):
        router = router_of(zoo_of(FREE, HERE), tmp_path / "v.db", free=frozenset({name}))
        route = router.route(Request(prompt="a pixel art fox"))
        assert {candidate.expert for candidate in route.candidates} == {"free", "here"}


def test_when_only_services_are_left_the_hint_says_so(tmp_path: Path) -> None:
    """A zoo of services, or a service requested by name, needs an allowed price too."""
    with pytest.raises(NoRouteError) as error:
        router_of(zoo_of(DEAR, UNKNOWN), tmp_path / "v.db").route(Request(prompt="a fox"))
    assert "max_price" in error.value.hint
    with pytest.raises(NoRouteError, match="dear cannot draw this: it costs about"):
        router_of(zoo_of(DEAR, HERE), tmp_path / "v.db").route(Request(prompt="a fox", expert="dear"))


@pytest.mark.parametrize("price", [None, -1, "0.04", float("nan"), True])
def test_a_price_is_a_number(price: Any) -> None:
    """`None` could mean any price or none, so it is refused like other invalid values."""
    with pytest.raises(RequestError, match="max_price"):
        Policy(max_price=price)


def test_no_limit_can_be_written_in_json() -> None:
    """Hints say `max_price=inf` and `max_wait=inf`, for which JSON has no number."""
    assert Policy(max_price="inf", max_wait="inf") == Policy(max_price=inf, max_wait=inf)  # type: ignore[arg-type]


def test_default_routes_are_as_if_there_were_no_services(tmp_path: Path) -> None:
    """With `max_price=0`, sixty prompts have the same candidates with the same scores as a zoo without services."""
    taxonomy = zoo().taxonomy
    without = zoo_of(
        *(one for one in zoo().values() if not is_hosted(one.backend)),
        nodes=[*taxonomy.nodes.values(), *taxonomy.needs.values()],
    )
    routers = [router_of(one, tmp_path / "v.db") for one in (zoo(), without)]
    for prompt, _ in PROMPTS:
        ours, theirs = (router.route(Request(prompt=prompt)) for router in routers)
        assert ours.expert == theirs.expert
        assert ours.candidates == theirs.candidates
        assert {one.expert for one in ours.rejected} - {one.expert for one in theirs.rejected} == {
            one.id for one in services()
        }


def test_a_service_is_best_where_it_is_allowed(tmp_path: Path) -> None:
    """If services are allowed, the one that people prefer most is chosen, and published votes are the reason."""
    router = router_of(zoo(), tmp_path / "v.db")
    route = router.route(Request(prompt="a photo of a pier at dawn"), Policy(max_price=0.06))
    assert route.expert == "gpt-image-2"
    assert {one.expert for one in route.rejected if one.expert.startswith("gpt")} == {
        "gpt-image-1.5", "gpt-image-2.5-sunburst", "gpt-image-2.5-flare",
    }  # fmt: skip


def test_transparency_finds_those_who_draw_it(tmp_path: Path) -> None:
    """A local model that may not be used for everything, or a service that is allowed; else it is made by matting."""
    router = router_of(zoo(), tmp_path / "v.db")
    asked = Request(prompt="a sticker of a fox on a transparent background")
    route = router.route(asked)
    assert (route.expert.startswith("qwen-image-2-1"), route.matting) == (True, False)
    assert router.route(asked, Policy(commercial_use=True)).matting
    route = router.route(asked, Policy(commercial_use=True, max_price=0.02))
    assert (route.expert, route.unmet, route.matting) == ("gpt-image-1-mini", (), False)


def test_the_services_that_ship_are_told_of() -> None:
    """Each has sources, terms, sizes that include its native one, a model name, and a price with its conditions."""
    assert len(services()) >= 4
    for one in services():
        assert one.sources, one.id
        assert one.license is not None, one.id
        assert f"{one.settings.width}x{one.settings.height}" in one.settings.sizes, one.id
        assert one.price is None or one.price.note, one.id
        assert one.size_gb is None, one.id
    assert sum(one.price is not None for one in services()) >= 3
    assert sum(published().standing(one).measured for one in services()) >= 3


def test_routing_imports_no_client() -> None:
    """Finding out that an expert is hosted needs no client library."""
    code = (
        "import json, sys, diffusiongpt\n"
        "route = diffusiongpt.DiffusionGPT('default', device='cpu').route('a fox', max_price=1)\n"
        "heavy = [name for name in ('openai', 'diffusers', 'langchain') if name in sys.modules]\n"
        "print(json.dumps([route.chosen.readiness, heavy]))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == ["needs_key", []]


def test_the_command_line_takes_a_price(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`--max-price` and `--local-only` work for route, generate and compare, from the prompt to the file."""
    (tmp_path / "zoo.yaml").write_text(
        "experts:\n- {id: cloud, backend: openai, repo: openai/cloud, price: {usd: 0.04}, tags: {styles: [pixel_art]},"
        " settings: {width: 64, height: 64}}\n"
        "- {id: mist, backend: openai, repo: openai/mist, price: {usd: 0.02}, tags: {styles: [pixel_art]},"
        " settings: {width: 64, height: 64}}\n"
    )
    with LocalImages() as images:
        settings = settings_for(images, tmp_path)
        for name, value in {
            "DIFFUSIONGPT_HOME": str(settings.home),
            "DIFFUSIONGPT_ZOO": f"tiny,{tmp_path / 'zoo.yaml'}",
            "DIFFUSIONGPT_DEVICE": "cpu",
            "OPENAI_BASE_URL": images.url,
            "OPENAI_API_KEY": "sk-any",
        }.items():
            monkeypatch.setenv(name, value)
        assert "cloud" not in candidates("route", "a pixel art fox")
        assert {"cloud", "mist"} <= candidates("route", "a pixel art fox", "--max-price", "inf")
        assert "cloud" not in candidates("route", "a pixel art fox", "--max-price", "1", "--local-only")
        out = ["--out", str(tmp_path / "out")]
        drawn = run("generate", "a pixel art fox", "--expert", "cloud", "--max-price", "0.04", *out)
        assert drawn["drawn_by"] == "cloud"
        pair = run("compare", "a pixel art fox", "--max-price", "0.04", "--seed", "3", *out)
        assert len(pair["images"]) == 2
    assert images.requests


def test_the_list_shows_what_a_service_costs() -> None:
    """In the column of gigabytes, a service has its price, or `?` if that is not known."""
    lines = CliRunner().invoke(app, ["zoo", "list", "--zoo", "default"]).stdout.splitlines()
    cells = {line.split()[0]: line.split()[1] for line in lines if line.strip().startswith("gpt-image")}
    assert (cells["gpt-image-2"], cells["gpt-image-2.5-flare"]) == ("$0.053", "?")


def run(*arguments: str) -> Any:
    """The JSON output of a command."""
    result = CliRunner().invoke(app, [*arguments, "--json"])
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def candidates(*arguments: str) -> set[str]:
    """The experts that are scored."""
    return {candidate["expert"] for candidate in run(*arguments)["candidates"]}


def test_the_address_is_a_web_address(monkeypatch: pytest.MonkeyPatch) -> None:
    """Settings read the usual variables, ours first, and refuse an invalid address."""
    monkeypatch.setenv("OPENAI_BASE_URL", "http://127.0.0.1:1/v1")
    assert load_settings().openai_base_url == "http://127.0.0.1:1/v1"
    monkeypatch.setenv("DIFFUSIONGPT_OPENAI_BASE_URL", "http://127.0.0.1:2/v1")
    assert load_settings().openai_base_url == "http://127.0.0.1:2/v1"
    with pytest.raises(SettingsError, match="openai_base_url"):
        load_settings(openai_base_url="file:///etc/passwd")


def test_an_installed_studio_shows_needs_key(tmp_path: Path) -> None:
    """The readiness of a hosted expert depends on the key and the network."""
    states = {}
    for name, values in {"key": {"openai_api_key": "sk-any"}, "none": {"openai_api_key": None},
                         "offline": {"openai_api_key": "sk-any", "offline": True}}.items():  # fmt: skip
        settings = load_settings(home=tmp_path, hub_cache=tmp_path / "hub", device="cpu", free_experts="free", **values)
        with DiffusionGPT(zoo_of(FREE, HERE), settings=settings, votes=tmp_path / "v.db") as studio:
            states[name] = studio.route("a pixel art fox", expert="free").chosen.readiness
    assert states == {"key": "loaded", "none": "needs_key", "offline": "download"}
