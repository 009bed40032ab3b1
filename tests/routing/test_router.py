"""The router plans: experts are filtered with reasons, and the one with the highest sum of parts wins."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from fixtures_routing import expert, route, router_of, tiny_zoo, vote, writer, zoo_of
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from diffusiongpt.errors import NoRouteError, RequestError, UnknownExpertError
from diffusiongpt.flow import MAX_PROMPT_CHARS, MAX_SEED, Policy, Request, Route, Understanding, read_options
from diffusiongpt.routing import filter_experts
from diffusiongpt.zoo import ROOT, Expert, License, Node

if TYPE_CHECKING:
    from pathlib import Path

STYLED = [
    ("an 8-bit red heart", "tiny-pixel"),
    ("像素风的鱼", "tiny-pixel"),
    ("crayon and graphite house", "tiny-sketch"),
    ("铅笔画的房子", "tiny-sketch"),
    ("oil on canvas, a tree", "tiny-oil"),
    ("油画，一棵树", "tiny-oil"),
    ("flat design star", "tiny-vector"),
    ("扁平矢量风格的星星", "tiny-vector"),
    ("a yellow circle", "tiny-generalist"),
    ("一个黄色的圆", "tiny-generalist"),
]


@pytest.mark.parametrize(("prompt", "chosen"), STYLED)
def test_the_expert_of_the_style_is_chosen(tmp_path: Path, prompt: str, chosen: str) -> None:
    """The expert that declares the style is chosen, under any name of it; without a style, the generalist."""
    assert route(prompt, tiny_zoo(), tmp_path / "votes.db").expert == chosen


def test_the_parts_sum_to_the_score(tmp_path: Path) -> None:
    """Candidates come best first, and the parts of each score sum to it."""
    votes = tmp_path / "votes.db"
    router = router_of(tiny_zoo(), votes)
    router.preferences.record(vote("a pixel fox", "tiny-oil", "tiny-pixel", pixel_art=0.95, animal=0.8))
    decision = router.route(Request(prompt="a pixel art fox"))
    assert {candidate.expert for candidate in decision.candidates} == set(tiny_zoo())
    scores = [candidate.score for candidate in decision.candidates]
    assert scores == sorted(scores, reverse=True)
    for candidate in decision.candidates:
        assert sum(candidate.parts.values()) == pytest.approx(candidate.score)
        assert candidate.std > 0


def test_the_route_says_what_it_rests_on(tmp_path: Path) -> None:
    """A route records prompt, path, thinker, embedder, ranking version, and the duration of each step."""
    decision = route("  a pixel art fox --ar 1:1", tiny_zoo(), tmp_path / "votes.db", seed=5)
    assert decision.input == "  a pixel art fox --ar 1:1"
    assert decision.prompt == "a pixel art fox"
    assert decision.path == (ROOT, "animal", "pixel_art")
    assert (decision.thinker, decision.embedder, decision.llm_calls) == ("local", "lexical", 0)
    assert (decision.ranking_version, decision.seed) == ("r0", 5)
    assert {"understand", "search", "rank", "total"} == set(decision.timings_ms)
    assert not (tmp_path / "votes.db").exists()


def test_same_question_same_route(tmp_path: Path) -> None:
    """The same zoo, ranking, prompt and policy give the same route, except for its timings."""
    first, second = (route("an oil painting of a fox", tiny_zoo(), tmp_path / "votes.db") for _ in range(2))
    assert first.model_dump(exclude={"timings_ms"}) == second.model_dump(exclude={"timings_ms"})


def test_a_route_survives_json(tmp_path: Path) -> None:
    """A route written as JSON is read back as the same route, except for its trace."""
    decision = route('a sign "你好 \\n 🦊" in oil', tiny_zoo(), tmp_path / "votes.db")
    assert Route.model_validate_json(decision.model_dump_json()) == decision.model_copy(update={"trace": None})


def test_votes_change_the_next_route(tmp_path: Path) -> None:
    """After enough votes against it, the declared expert is no longer chosen for prompts like these."""
    router = router_of(tiny_zoo(), tmp_path / "votes.db")
    for _ in range(30):
        router.preferences.record(vote("a pixel fox", "tiny-oil", "tiny-pixel", pixel_art=0.95, root=0.05))
        router.preferences.record(vote("a pixel fox", "tiny-oil", "tiny-generalist", pixel_art=0.95, root=0.05))
    decision = router.route(Request(prompt="a pixel art fox"))
    assert decision.expert == "tiny-oil"
    assert decision.ranking_version != "r0"
    assert "people preferred it on pixel art prompts" in decision.explain()
    other = router.route(Request(prompt="an oil painting of a ship"))
    assert other.chosen.parts["global"] > other.chosen.parts["nodes"] + other.chosen.parts["residual"]
    assert "people preferred it in general" in other.explain()


def test_a_tie_is_broken_by_the_zoo(tmp_path: Path) -> None:
    """Experts of equal score come in the order of the zoo file."""
    zoo = zoo_of(expert("second", "anime"), expert("first", "anime"))
    decision = route("an anime fox", zoo, tmp_path / "votes.db")
    assert decision.order == ("second", "first")
    assert "a tie" in decision.why_not("first")


def test_what_happens_to_be_loaded_changes_nothing_unless_asked(tmp_path: Path) -> None:
    """`prefer="quality"` ignores what is loaded; `"fast"` takes a loaded expert that is nearly as good."""
    zoo = zoo_of(expert("best", "anime"), expert("near", "anime"), expert("far", "photo"))
    router = router_of(zoo, tmp_path / "votes.db", loaded=["near", "far"])
    request = Request(prompt="an anime fox")
    assert router.route(request).expert == "best"
    assert router.route(request, Policy(prefer="fast")).expert == "near"
    assert router_of(zoo, tmp_path / "votes.db", loaded=["far"]).route(request, Policy(prefer="fast")).expert == "best"


def test_a_named_expert_is_the_only_candidate(tmp_path: Path) -> None:
    """`expert=` asks for one expert, whatever the prompt says; an unknown one is an error."""
    decision = route("a pixel art fox", tiny_zoo(), tmp_path / "votes.db", expert="tiny-oil")
    assert decision.order == ("tiny-oil",)
    assert "only one that may draw this" in decision.explain()
    with pytest.raises(UnknownExpertError, match="tiny-oli"):
        route("a fox", tiny_zoo(), tmp_path / "votes.db", expert="tiny-oli")


def test_commercial_use_needs_a_licence_that_allows_it(tmp_path: Path) -> None:
    """With `commercial_use` an expert is rejected unless its licence certainly allows it, each with the reason."""
    zoo = zoo_of(
        expert("yes"),
        expert("no", license=License(id="CC-BY-NC", commercial="no")),
        expert("maybe", license=License(id="custom", commercial="conditional")),
        expert("unknown", license=License(id="lost")),
        expert("none", license=None),
    )
    router = router_of(zoo, tmp_path / "votes.db")
    decision = router.route(Request(prompt="a fox"), Policy(commercial_use=True))
    assert decision.order == ("yes",)
    assert {rejection.expert: rejection.reason for rejection in decision.rejected} == {
        "no": "commercial use is not allowed (CC-BY-NC)",
        "maybe": "commercial use is allowed only under conditions (custom)",
        "unknown": "commercial use is not known to be allowed (lost)",
        "none": "commercial use is not known to be allowed (no licence stated)",
    }
    assert len(router.route(Request(prompt="a fox")).candidates) == 5


def test_nobody_left_lists_every_reason(tmp_path: Path) -> None:
    """When every expert is rejected, the error lists each reason and says what to change."""
    router = router_of(zoo_of(expert("no", license=License(id="NC", commercial="no"))), tmp_path / "votes.db")
    with pytest.raises(NoRouteError) as caught:
        router.route(Request(prompt="a fox"), Policy(commercial_use=True))
    assert caught.value.rejected == (("no", "commercial use is not allowed (NC)"),)
    assert "commercial_use" in caught.value.hint


def test_an_empty_zoo_has_no_route(tmp_path: Path) -> None:
    """A zoo without experts is a `NoRouteError` that says how to add some."""
    with pytest.raises(NoRouteError) as caught:
        route("a fox", zoo_of(), tmp_path / "votes.db")
    assert "zoo" in caught.value.hint


def test_text_is_left_to_those_who_can_write(tmp_path: Path) -> None:
    """A prompt with quoted text rejects experts not known to write that script, if any can."""
    zoo = zoo_of(
        writer("latin", text_rendering_en="good", text_rendering_zh="none"),
        writer("both", text_rendering_en="fair", text_rendering_zh="strong"),
        writer("poor", text_rendering_en="poor", text_rendering_zh="poor"),
        expert("unknown"),
    )
    votes = tmp_path / "votes.db"
    assert set(route('a sign "OPEN"', zoo, votes).order) == {"latin", "both"}
    chinese = route("写着“你好”的牌子", zoo, votes)
    assert chinese.order == ("both",)
    assert "Chinese text" in chinese.why_not("latin")
    assert len(route("a sign", zoo, votes).order) == 4


def test_a_need_nobody_meets_rejects_nobody(tmp_path: Path) -> None:
    """What no expert can do is reported as unmet, and the others still draw."""
    decision = route('a sign "OPEN" on a transparent background', tiny_zoo(), tmp_path / "votes.db")
    assert decision.unmet == ("text in the picture",)
    assert len(decision.candidates) == 5
    assert "no expert here supports text in the picture" in decision.explain()


def test_transparency_is_left_to_those_who_can() -> None:
    """An expert whose capability is not known does not count as capable."""
    able, unknown = writer("able", transparent_background=True), expert("unknown")
    understood = Understanding(prompt="x", transparent_background=True)
    found = filter_experts([able, unknown], understood, Policy())
    assert found.eligible == ("able",)
    assert found.rejected[0].reason == "not known to support a transparent background"


def test_the_only_eligible_expert_is_found_in_a_large_zoo(tmp_path: Path) -> None:
    """However improbable its branch, the only expert that may draw is the route."""
    nodes = [Node(id="thing", kind="subject"), *(Node(id=f"s{i}", kind="style") for i in range(100))]
    forbidden = License(id="NC", commercial="no")
    experts = [expert(f"e{i}", f"s{i}", license=forbidden) for i in range(99)]
    zoo = zoo_of(*experts, expert("last", "s99"), nodes=nodes)
    router = router_of(zoo, tmp_path / "votes.db")
    assert router.route(Request(prompt="a fox"), Policy(commercial_use=True)).expert == "last"


def test_experts_are_never_compared_with_each_other(monkeypatch: pytest.MonkeyPatch) -> None:
    """The time of a route grows with the zoo, not with its square."""
    experts = [*(expert(f"e{number}") for number in range(20)), writer("able", text_rendering_en="good")]
    understood = Understanding(prompt="x", text_to_render=("OPEN",), text_scripts=("Latn",))
    monkeypatch.setattr(Expert, "__eq__", lambda *_: pytest.fail("two experts were compared"))
    assert filter_experts(experts, understood, Policy()).eligible == ("able",)


@pytest.mark.parametrize(
    ("prompt", "message"),
    [
        ("", "empty"),
        (" \n\t\u3000", "empty"),
        ("x" * 100_000, "100,000 characters"),
        ("\x00\x01", "binary"),
        ("fox \ufffd", "binary"),
        (b"fox", "must be text, not bytes"),
        (None, "must be text, not NoneType"),
    ],
)
def test_a_prompt_nobody_could_mean_is_refused(prompt: object, message: str) -> None:
    """An empty, huge or binary prompt is a `RequestError` with a hint."""
    with pytest.raises(RequestError, match=message) as caught:
        Request(prompt=prompt)
    assert caught.value.hint


def test_the_longest_prompt_is_routed(tmp_path: Path) -> None:
    """A prompt of the maximum length has a route, in any mix of scripts."""
    text = ("a watercolor 狐狸 лиса 🦊 شعر " * 2000)[:MAX_PROMPT_CHARS]
    assert route(text, tiny_zoo(), tmp_path / "votes.db").input == text


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.one_of(st.text(max_size=400), st.text(alphabet=" \n\"'“”「」#x:0159-,.nowithut不要画一只", max_size=80)))
def test_any_text_at_all_is_routed_or_refused(tmp_path: Path, prompt: str) -> None:
    """Any text gives a complete route or a `RequestError`."""
    try:
        decision = route(prompt, tiny_zoo(), tmp_path / "votes.db")
    except RequestError:
        return
    assert decision.expert in tiny_zoo()
    assert decision.prompt.strip()
    assert sum(path.p for path in decision.trace.paths) == pytest.approx(1)
    assert decision.expert in decision.explain()
    assert Route.model_validate_json(decision.model_dump_json()).input == prompt


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("width", 0), ("width", 33.5), ("height", 10**9), ("num_inference_steps", 0), ("num_inference_steps", 2.5),
        ("guidance_scale", -1), ("guidance_scale", float("nan")), ("num_images_per_prompt", 0),
        ("num_images_per_prompt", 1.5), ("num_images_per_prompt", 65), ("seed", -1), ("seed", 1.5), ("seed", "7"),
        ("seed", True), ("seed", MAX_SEED + 1), ("prefer", "costly"), ("max_price", -1), ("max_wait", 0),
        ("negative_prompt", "\0"),
        ("negative_prompt", 3), ("generator", "seven"),
    ],
)  # fmt: skip
def test_an_argument_out_of_range_is_refused(name: str, value: object) -> None:
    """An argument that is out of range is a `RequestError` that names it."""
    with pytest.raises(RequestError, match=name) as caught:
        read_options({"prompt": "a fox", name: value})
    assert caught.value.hint


def test_the_last_seed_of_a_batch_must_exist() -> None:
    """Picture `i` uses `seed + i`, so the last of these must be a valid seed too."""
    read_options({"prompt": "a fox", "seed": MAX_SEED})
    with pytest.raises(RequestError, match="seed"):
        read_options({"prompt": "a fox", "seed": MAX_SEED, "num_images_per_prompt": 2})


def test_an_unknown_argument_names_the_nearest() -> None:
    """A mistyped argument is an error whose hint names the nearest known one."""
    with pytest.raises(RequestError) as caught:
        read_options({"prompt": "a fox", "guidence_scale": 7})
    assert caught.value.hint == "Did you mean 'guidance_scale'?"
    with pytest.raises(RequestError, match="zzzz"):
        read_options({"prompt": "a fox", "zzzz": 7})


def test_numbers_of_numpy_and_generators_of_torch_are_taken() -> None:
    """A NumPy number is accepted as a number, and a generator's seed is the seed."""
    import numpy as np
    import torch

    request, _ = read_options({"prompt": "a fox", "seed": np.int64(4), "guidance_scale": np.float32(2.5)})
    assert (request.seed, request.guidance_scale) == (4, 2.5)
    assert (type(request.seed), type(request.guidance_scale)) == (int, float)
    request, _ = read_options({"prompt": "a fox", "generator": torch.Generator().manual_seed(11)})
    assert request.seed == 11


def test_a_lora_that_the_prompt_names_draws(tmp_path: Path) -> None:
    """`<lora:NAME:W>` asks for the adapter of that name where the zoo has it, and for nothing where it has not."""
    adapter = expert("pixel-art-xl", "pixel_art", kind="adapter", base="somebody/xl", size_gb=0.1)
    aqua = expert("aqua", "watercolor", kind="adapter", base="somebody/xl", size_gb=0.1)
    zoo = zoo_of(aqua, adapter)
    prompt = "watercolor of a sword <lora:{}:0.8>"
    assert route(prompt.format("pixel_art_xl"), zoo, tmp_path / "a.db").expert == "pixel-art-xl"
    assert route(prompt.format("unknown"), zoo, tmp_path / "b.db").expert == "aqua"
