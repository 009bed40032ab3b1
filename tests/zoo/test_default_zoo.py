"""The default zoo: real experts with sources, and for a prompt that names a style an expert of that style."""

from __future__ import annotations

from collections import Counter
from functools import cache
from typing import TYPE_CHECKING

import pytest
from fixtures_routing import expert, router_of, think, zoo_of
from prompts_styled import CHINESE, ENGLISH, PROMPTS
from synthetic_zoo import synthetic_votes, synthetic_zoo

from diffusiongpt.backends import is_hosted
from diffusiongpt.flow import MachineSpec, Policy, Request
from diffusiongpt.ranking import PublishedPriors
from diffusiongpt.zoo import CallSettings, Zoo

if TYPE_CHECKING:
    from pathlib import Path

    from diffusiongpt.flow import Route


@cache
def zoo() -> Zoo:
    """The default zoo."""
    return Zoo.load("default")


@pytest.fixture(scope="module")
def routes(tmp_path_factory: pytest.TempPathFactory) -> list[tuple[str, Route]]:
    """The style and the route of each prompt."""
    router = router_of(zoo(), tmp_path_factory.mktemp("votes") / "v.db")
    return [(style, router.route(Request(prompt=prompt))) for prompt, style in PROMPTS]


def test_the_zoo_is_large_and_sourced() -> None:
    """At least 65 real experts on the hub, each with sources, a licence, a description and, if local, its parts."""
    assert len(zoo()) >= 65
    for one in zoo().values():
        assert one.sources, one.id
        assert one.license is not None, one.id
        assert one.architecture, one.id
        parts = one.base_expert or one
        assert is_hosted(one.backend) or parts.components, one.id
        assert one.description.endswith("."), one.id
        assert not one.is_local, one.id


def test_an_adapter_names_its_file_and_its_base() -> None:
    """Every adapter names its file and a base that is in the zoo."""
    repos = {one.repo for one in zoo().values() if one.kind == "checkpoint"}
    adapters = [one for one in zoo().values() if one.kind == "adapter"]
    assert len(adapters) >= 5
    for one in adapters:
        assert one.settings.weight_name is not None
        assert one.base in repos


@pytest.mark.parametrize(
    "name", ["../x.safetensors", "/x.safetensors", "x.bin", "a/../x.safetensors", "x.safetensors.pt"]
)
def test_an_adapter_file_is_a_plain_safetensors_name(name: str) -> None:
    """A file outside the repository, or of a format that can hold code, is refused."""
    with pytest.raises(ValueError, match="weight_name"):
        CallSettings(weight_name=name)


@pytest.mark.parametrize("name", ["ink wash (v2).safetensors", "水墨.safetensors", "add-detail[1.5]+x.safetensors"])
def test_an_adapter_file_may_have_any_name(name: str) -> None:
    """Files keep the names that people and sites give them."""
    assert CallSettings(weight_name=name).weight_name == name


def test_a_strength_may_be_negative_and_not_nothing() -> None:
    """An adapter that draws the opposite is common; one that changes nothing is a mistake."""
    assert CallSettings(adapter_scale=-1.5).adapter_scale == -1.5
    for scale in (0, -4.1, float("nan")):
        with pytest.raises(ValueError, match="adapter_scale"):
            CallSettings(adapter_scale=scale)


def test_a_checkpoint_has_no_adapter_settings() -> None:
    """`weight_name` and `adapter_scale` are refused for a checkpoint, since they would change nothing."""
    with pytest.raises(ValueError, match="adapter"):
        expert("x", settings=CallSettings(adapter_scale=0.8))


def test_sixty_prompts_name_a_style() -> None:
    """Thirty prompts in each language; the thinker finds the style that each names."""
    assert len(ENGLISH) == len(CHINESE) == 30
    for prompt, style in PROMPTS:
        assert style in {weight.node for weight in think(prompt).understanding.styles}, prompt


def test_the_style_decides_or_people_do(routes: list[tuple[str, Route]]) -> None:
    """The chosen expert has the style's tag, or outranks all that do by more than their tag, and says so."""
    priors = PublishedPriors.of(zoo().values())
    for style, route in routes:
        able = {one.id for one in zoo().values()} - {rejection.expert for rejection in route.rejected}
        carriers = [one.id for one in zoo().values() if style in one.tags.styles and one.id in able]
        points = priors.points([route.expert, *carriers], route.understanding.evidence)
        if route.expert not in carriers:
            assert (points[0] > points[1:]).all(), route.input
            assert "people prefer it" in route.explain().splitlines()[0]


def test_the_best_of_all_is_chosen(routes: list[tuple[str, Route]]) -> None:
    """The search leaves out no allowed expert that would have been better, and one model does not draw everything."""
    priors = PublishedPriors.of(zoo().values())
    for _, route in routes:
        able = [one for one in zoo() if one not in {rejection.expert for rejection in route.rejected}]
        points = priors.points(able, route.understanding.evidence)
        assert points.max() == pytest.approx(route.chosen.score), route.input
    assert len(Counter(route.expert for _, route in routes)) >= 4


@pytest.mark.parametrize(
    ("prompts", "style"),
    [
        (("ink wash painting of a crane over a river", "水墨画，江面上的一只仙鹤"), "ink_wash"),
        (("35mm film photo of a couple on a ferry", "胶片摄影，渡轮上的一对情侣"), "film_photo"),
        (("cinematic still of a lighthouse keeper", "电影剧照，灯塔看守人"), "cinematic"),
        (("sticker of an avocado", "牛油果贴纸"), "sticker"),
        (("line art of a castle", "城堡线稿"), "line_art"),
    ],
)
def test_a_style_goes_to_an_adapter_on_a_good_base(tmp_path: Path, prompts: tuple[str, str], style: str) -> None:
    """In both languages to the same one, and not to one on SDXL."""
    router = router_of(zoo(), tmp_path / "v.db")
    chosen = {router.route(Request(prompt=prompt)).expert for prompt in prompts}
    (one,) = (zoo()[expert] for expert in chosen)
    assert one.kind == "adapter"
    assert style in one.tags.styles
    assert one.base_expert is not None
    assert one.base_expert.architecture != "sdxl"


@pytest.mark.parametrize("prompt", ["an anime cat", "水墨山水", "a photo of a pier", "a red bicycle"])
def test_commercial_use_leaves_experts(tmp_path: Path, prompt: str) -> None:
    """For commercial use a freely licensed expert is chosen, and every rejection names the licence."""
    route = router_of(zoo(), tmp_path / "v.db").route(Request(prompt=prompt), Policy(commercial_use=True))
    chosen = zoo()[route.expert].license
    assert chosen is not None
    assert chosen.commercial == "yes"
    others = ("not known to read", "not known to support", "draws in black")
    for_money = {one.expert for one in route.rejected if not one.reason.startswith(others)}
    assert for_money == {
        one.id
        for one in zoo().values()
        if is_hosted(one.backend) or any(part.license is None or part.license.commercial != "yes" for part in one.parts)
    }


@pytest.mark.parametrize("votes", [0, 60])
def test_a_large_zoo_costs_no_more_time(tmp_path: Path, votes: int) -> None:
    """Of two thousand experts only a few are scored, and the pick is the same as when scoring all."""
    large = synthetic_zoo(2000)
    router = router_of(large, tmp_path / "v.db")
    for vote in synthetic_votes(large, votes):
        router.preferences.record(vote)
    order = {one: index for index, one in enumerate(large)}
    same = []
    for prompt, _ in PROMPTS:
        route = router.route(Request(prompt=prompt))
        assert len(route.candidates) <= 0.05 * len(large)
        scores = router.table().score(list(large), route.understanding.evidence, route.input)
        best = min(scores, key=lambda score: (-round(score.mean, 9), order[score.expert]))
        same.append(best.expert == route.expert)
    assert sum(same) >= 0.95 * len(same)


@pytest.mark.parametrize("prompt", ["a fox in the snow", "an anime cat", "水墨山水", "logo for a bakery"])
def test_a_small_machine_has_candidates(tmp_path: Path, prompt: str) -> None:
    """On 8 GB several experts that fit there are scored, if they read the prompt, and all of them fit."""
    here = MachineSpec(device="cuda:0", device_bytes=8e9, host_bytes=32e9)
    route = router_of(zoo(), tmp_path / "v.db", here=here).route(Request(prompt=prompt))
    able = set(zoo()) - {rejection.expert for rejection in route.rejected}
    assert {one.expert for one in route.candidates} <= able
    assert len(route.candidates) >= min(3, len(able))
    assert all(one.placement is not None for one in route.candidates)


def test_fast_sees_every_loaded_expert_of_the_branch(tmp_path: Path) -> None:
    """With `prefer="fast"` a loaded expert that is nearly as good wins, however many are slightly better."""
    many = zoo_of(*(expert(f"better-{index:02d}", "anime", subjects=["animal"]) for index in range(40)),
                  expert("warm", "anime"))  # fmt: skip
    asked = Request(prompt="an anime cat")
    router = router_of(many, tmp_path / "v.db", loaded=["warm"])
    assert router.route(asked).expert == "better-00"
    assert router.route(asked, Policy(prefer="fast")).expert == "warm"
