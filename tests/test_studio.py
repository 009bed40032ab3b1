"""The studio draws what was routed, tries the next candidate if it must, and reports this."""

from __future__ import annotations

import asyncio
import logging
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from fixtures_routing import expert, local, pixel_folder, settings_in, tiny_studio, tiny_zoo, zoo_of

import diffusiongpt
from diffusiongpt.errors import (
    HubUnreachableError,
    LoadError,
    NoRouteError,
    PictureError,
    PullError,
    PullTooLargeError,
    RepoMissingError,
    RequestError,
    UnknownExpertError,
    VoteError,
)
from diffusiongpt.flow import win_probability
from diffusiongpt.pictures import Generation
from diffusiongpt.studio import DiffusionGPT, as_zoo
from diffusiongpt.testing import TINY_FOLDER, hub_zoo, serve_tiny_zoo
from diffusiongpt.zoo import Zoo

if TYPE_CHECKING:
    from collections.abc import Iterator

PROMPT = "a pixel art fish on a blue background"


@pytest.fixture(scope="module")
def studio(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DiffusionGPT]:
    """One studio with the tiny zoo for the tests that only draw."""
    with tiny_studio(tmp_path_factory.mktemp("studio")) as studio:
        yield studio


def test_same_seed_same_picture(studio: DiffusionGPT) -> None:
    """With a seed the pixels repeat, with another they differ; a batch consists of its single pictures."""
    first = studio.route_and_generate(PROMPT, seed=7, num_images_per_prompt=2)
    again = studio.route_and_generate(PROMPT, seed=8)
    assert first.seeds == (7, 8)
    assert first.images[1].tobytes() == again.image.tobytes()
    assert first.images[0].tobytes() != first.images[1].tobytes()


def test_a_result_tells_how_it_came_about(studio: DiffusionGPT) -> None:
    """A generation has the route, the seed, the arguments that were used, and the seconds of each step."""
    result = studio.route_and_generate(PROMPT, num_inference_steps=2, guidance_scale=0.0, negative_prompt="text")
    native = tiny_zoo()["tiny-pixel"].settings
    assert result.drawn_by == result.route.expert == "tiny-pixel"
    assert result.image.size == (native.width, native.height)
    assert result.params["num_inference_steps"] == 2
    assert result.params["guidance_scale"] == 0
    assert result.params["prompt"] == PROMPT
    assert 0 <= result.seeds[0] < 2**32
    assert result.fallbacks == ()
    assert {"route", "download", "queue", "load", "draw"} == set(result.timings)


def test_a_seed_drawn_afresh_is_recorded(studio: DiffusionGPT) -> None:
    """Without a seed each picture has its own, and that seed draws it again."""
    result = studio.route_and_generate(PROMPT)
    assert result.route.seed is None
    repeat = studio.route_and_generate(PROMPT, seed=result.seeds[0])
    assert repeat.image.tobytes() == result.image.tobytes()


def test_a_saved_picture_draws_itself_again(studio: DiffusionGPT, tmp_path: Path) -> None:
    """`from_file(...)` then `redraw` gives the same pixels for any arguments; so does `again` on the result."""
    result = studio.route_and_generate("a crayon heart, 48x32", seed=2, guidance_scale=2.5, num_inference_steps=3)
    (path,) = result.save(tmp_path / "heart.png")
    back = Generation.from_file(path)
    assert back.image.tobytes() == result.image.tobytes()
    assert studio.redraw(back).image.tobytes() == result.image.tobytes()
    assert result.again().image.tobytes() == result.image.tobytes()


def test_a_picture_of_another_zoo_is_not_faked(studio: DiffusionGPT, tmp_path: Path) -> None:
    """Redrawing needs the same checkpoint under the same id; otherwise a typed error says what differs."""
    result = studio.route_and_generate(PROMPT, seed=1, num_inference_steps=1)
    stranger = zoo_of(local("tiny-pixel", TINY_FOLDER / "oil"))
    with (
        DiffusionGPT(stranger, settings=settings_in(tmp_path)) as other,
        pytest.raises(LoadError, match="not the checkpoint"),
    ):
        other.redraw(result)
    lost = Generation(images=result.images, records=(result.records[0].model_copy(update={"drawn_by": "gone"}),))
    with pytest.raises(UnknownExpertError, match="gone"):
        studio.redraw(lost)


def test_routing_leaves_nothing_behind(tmp_path: Path) -> None:
    """`route` writes no file and creates no folder, and needs none to exist."""
    with DiffusionGPT("tiny", settings=settings_in(tmp_path)) as studio:
        assert studio.route(PROMPT).expert == "tiny-pixel"
        assert {candidate.readiness for candidate in studio.route(PROMPT).candidates} == {"on_disk"}
    assert list(tmp_path.iterdir()) == []


def test_a_first_vote_makes_the_folder(tmp_path: Path) -> None:
    """On a new machine, the first vote creates its folder."""
    with DiffusionGPT("tiny", settings=settings_in(tmp_path)) as studio:
        studio.compare(PROMPT, num_inference_steps=1).vote(0)
        assert studio.preferences.store.count() == 1
    assert (tmp_path / "home" / "votes.db").is_file()


def test_a_loaded_expert_is_ready(studio: DiffusionGPT) -> None:
    """After drawing, the route knows that the expert is loaded."""
    studio.route_and_generate(PROMPT, num_inference_steps=1)
    assert studio.route(PROMPT).chosen.readiness == "loaded"


def test_a_broken_expert_is_replaced_and_named(tmp_path: Path) -> None:
    """When the chosen expert cannot be loaded, the next candidate draws, and the result names the failure."""
    zoo = zoo_of(local("broken", tmp_path / "nowhere", "pixel_art"), local("whole", pixel_folder()))
    with DiffusionGPT(zoo, settings=settings_in(tmp_path)) as studio:
        result = studio.route_and_generate(PROMPT, seed=1, num_inference_steps=1)
        assert (result.route.expert, result.drawn_by) == ("broken", "whole")
        (fallback,) = result.fallbacks
        assert fallback.expert == "broken"
        assert "nowhere" in fallback.error
        (path,) = result.save(tmp_path / "out.png")
        (kept,) = Generation.from_file(path).fallbacks
        assert (kept.expert, kept.hint) == (fallback.expert, fallback.hint)


def test_an_expert_asked_for_by_name_has_no_stand_in(tmp_path: Path) -> None:
    """`expert=` fails with that expert's own error rather than drawing with another."""
    zoo = zoo_of(local("broken", tmp_path / "nowhere", "pixel_art"), local("whole", pixel_folder()))
    with DiffusionGPT(zoo, settings=settings_in(tmp_path)) as studio:
        with pytest.raises((PullError, LoadError)):
            studio.route_and_generate(PROMPT, expert="broken")
        with pytest.raises(UnknownExpertError):
            studio.route_and_generate(PROMPT, expert="brokn")


def test_when_nobody_can_draw_the_tiny_zoo_does(tmp_path: Path) -> None:
    """If no candidate can draw without a network, the zoo in the package draws, and every failure is recorded."""
    zoo = zoo_of(expert("one", "pixel_art"), local("two", tmp_path / "b"))
    with DiffusionGPT(zoo, settings=settings_in(tmp_path)) as studio:
        result = studio.route_and_generate(PROMPT, seed=1, num_inference_steps=1)
        assert result.drawn_by == "tiny-pixel"
        assert [fallback.expert for fallback in result.fallbacks] == ["one", "two"]
        assert result.records[0].zoo == ("tiny",)
        assert studio.redraw(result).image.tobytes() == result.image.tobytes()


def test_a_broken_tiny_zoo_has_no_route(tmp_path: Path) -> None:
    """If the tiny zoo itself cannot draw, nothing is left: `NoRouteError` lists every failure."""
    experts = {one.id: local(one.id, tmp_path / one.id, *one.tags.styles) for one in tiny_zoo().values()}
    zoo = Zoo(experts, tiny_zoo().taxonomy.nodes, ("tiny",))
    with DiffusionGPT(zoo, settings=settings_in(tmp_path)) as studio, pytest.raises(NoRouteError) as caught:
        studio.route_and_generate(PROMPT)
    assert {name for name, _ in caught.value.rejected} == set(tiny_zoo())
    assert caught.value.hint


def test_a_folder_that_is_no_pipeline_is_a_fallback(tmp_path: Path) -> None:
    """Damaged weights are a recorded failure, not a crash."""
    folder = tmp_path / "damaged"
    shutil.copytree(pixel_folder(), folder)
    for weights in folder.rglob("*.safetensors"):
        weights.write_bytes(b"not tensors")
    zoo = zoo_of(local("damaged", folder, "pixel_art"), local("whole", pixel_folder()))
    with DiffusionGPT(zoo, settings=settings_in(tmp_path)) as studio:
        result = studio.route_and_generate(PROMPT, num_inference_steps=1)
    assert (result.drawn_by, result.fallbacks[0].expert) == ("whole", "damaged")


def test_the_hub_pulls_only_the_chosen_expert(tmp_path: Path) -> None:
    """Through the real hub client, only the chosen expert is pulled; then the hub is not needed again."""
    with serve_tiny_zoo() as hub:
        settings = settings_in(tmp_path, hub_endpoint=hub.url)
        plans: list[str] = []
        with DiffusionGPT(hub_zoo(), settings=settings, on_pull=lambda plan: plans.append(str(plan))) as studio:
            assert studio.route(PROMPT).chosen.readiness == "download"
            assert hub.requests == []
            first = studio.route_and_generate(PROMPT, seed=3, num_inference_steps=1)
            assert set(hub.downloads) == {"tiny-zoo/pixel"}
            assert len(plans) == 1
            assert first.records[0].revision == hub.commit("tiny-zoo/pixel")
    with DiffusionGPT(hub_zoo(), settings=settings) as studio:
        assert studio.route(PROMPT).chosen.readiness == "on_disk"
        again = studio.route_and_generate(PROMPT, seed=3, num_inference_steps=1)
    assert again.image.tobytes() == first.image.tobytes()
    assert again.fallbacks == ()


def test_a_missing_repository_is_a_fallback(tmp_path: Path) -> None:
    """A repository that the hub does not have is recorded, and the next candidate draws."""
    with serve_tiny_zoo() as hub:
        hub.remove("tiny-zoo/pixel")
        settings = settings_in(tmp_path, hub_endpoint=hub.url)
        with DiffusionGPT(hub_zoo(), settings=settings, on_pull=lambda _: None) as studio:
            result = studio.route_and_generate(PROMPT, num_inference_steps=1)
            with pytest.raises(RepoMissingError):
                studio.route_and_generate(PROMPT, expert="tiny-pixel")
    assert result.drawn_by == "tiny-generalist"
    assert "tiny-zoo/pixel" in result.fallbacks[0].error


def test_a_hub_that_is_down_is_asked_once(tmp_path: Path) -> None:
    """If the hub is down, experts on disk draw; the others are left out without further waiting."""
    with serve_tiny_zoo() as hub:
        url = hub.url
    gone = [expert(name, "pixel_art", repo=f"tiny-zoo/{name}") for name in ("one", "two")]
    zoo = zoo_of(*gone, local("here", pixel_folder()))
    with DiffusionGPT(zoo, settings=settings_in(tmp_path, hub_endpoint=url)) as studio:
        result = studio.route_and_generate(PROMPT, num_inference_steps=1)
        assert result.drawn_by == "here"
        assert [fallback.expert for fallback in result.fallbacks] == ["one", "two"]
        assert "the hub cannot be reached" in result.fallbacks[1].error
        with pytest.raises(HubUnreachableError) as caught:
            studio.route_and_generate(PROMPT, expert="one")
    assert caught.value.retryable


def test_without_a_network_what_is_on_disk_draws_wherever_it_hangs(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """An expert on disk that the route did not score draws once no candidate can be pulled, and the record says so."""
    with serve_tiny_zoo() as hub:
        url = hub.url
    styles = ("pixel_art", "oil_painting")
    gone = [expert(f"gone-{n}", *styles, repo=f"tiny-zoo/gone-{n}", size_gb=0.5) for n in range(40)]
    zoo = zoo_of(*gone, *(local(name, pixel_folder(), "sketch") for name in ("here", "there")))
    with DiffusionGPT(zoo, settings=settings_in(tmp_path, hub_endpoint=url)) as studio:
        planned = studio.route(PROMPT)
        assert "here" not in {one.expert for one in planned.candidates}
        result = studio.route_and_generate(PROMPT, num_inference_steps=1)
        with pytest.raises(NoRouteError):
            studio.route_and_generate(PROMPT, experts=["gone-1", "gone-2"])
    assert result.drawn_by == "here"
    assert {one.expert for one in result.fallbacks} == {one.expert for one in planned.candidates}
    record = Generation.from_file(result.save(tmp_path / "fox.png")[0]).records[0]
    assert [one.expert for one in record.route.candidates if one.added] == ["here", "there"]
    assert record.route.expert == planned.expert
    assert "here draws, which is on disk" in caplog.text


def test_a_large_pull_is_left_out_and_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Without a yes, the best expert within `max_download_gb` draws, and the result says what more would buy."""
    with serve_tiny_zoo() as hub:
        settings = settings_in(tmp_path, hub_endpoint=hub.url, max_download_gb=0.0001)
        small = local("here", pixel_folder(), "oil_painting")
        with DiffusionGPT(zoo_of(*hub_zoo().values(), small), settings=settings) as studio:
            result = studio.route_and_generate(PROMPT, num_inference_steps=1)
            with pytest.raises(PullTooLargeError):
                studio.route_and_generate(PROMPT, expert="tiny-pixel")
        assert not (tmp_path / "hub").exists()
    assert (result.route.expert, result.drawn_by) == ("tiny-pixel", "here")
    chosen = next(one for one in result.route.candidates if one.expert == "here")
    share = 100 * win_probability(result.route.chosen, chosen)
    assert "DIFFUSIONGPT_MAX_DOWNLOAD_GB=1," in result.fallbacks[0].hint
    assert f"{share:.0f} of 100 people would prefer tiny-pixel to here." in result.fallbacks[0].hint
    assert "here draws instead: pulling tiny-zoo/pixel takes" in caplog.text


def test_if_all_pulls_are_too_large_that_is_the_error(tmp_path: Path) -> None:
    """Where no candidate draws without a yes, the error is about the pull, and neither the demonstration zoo draws."""
    with serve_tiny_zoo() as hub:
        settings = settings_in(tmp_path, hub_endpoint=hub.url, max_download_gb=0.0001)
        with DiffusionGPT(hub_zoo(), settings=settings) as studio, pytest.raises(PullTooLargeError, match="pixel"):
            studio.route_and_generate(PROMPT)
        with DiffusionGPT(hub_zoo(), settings=settings, agree=lambda _: True) as studio:
            assert studio.route_and_generate(PROMPT, num_inference_steps=1).drawn_by == "tiny-pixel"


def test_what_cannot_fit_is_not_pulled(tmp_path: Path) -> None:
    """An expert larger than the machine is rejected with the number that would change it, and another draws."""
    huge = local("huge", pixel_folder(), "pixel_art", components={"unet": 1e6})
    zoo = zoo_of(huge, local("small", pixel_folder()))
    with DiffusionGPT(zoo, settings=settings_in(tmp_path)) as studio:
        assert "of host memory; this machine has" in studio.route(PROMPT).why_not("huge")
        assert studio.route_and_generate(PROMPT, num_inference_steps=1).drawn_by == "small"
        with pytest.raises(NoRouteError, match="huge cannot draw this: needs"):
            studio.route_and_generate(PROMPT, expert="huge")
        assert studio.route(PROMPT, memory="any").expert == "huge"
        assert studio.route_and_generate(PROMPT, memory="any", num_inference_steps=1).drawn_by == "small"


def test_a_cache_folder_that_cannot_be_written_is_a_fallback(tmp_path: Path) -> None:
    """A file in the place of the hub's folder is a recorded failure that names it; local experts still draw."""
    (tmp_path / "hub").write_text("in the way")
    zoo = zoo_of(expert("remote", "pixel_art", repo="tiny-zoo/pixel"), local("here", pixel_folder()))
    with serve_tiny_zoo() as hub:
        settings = settings_in(tmp_path, hub_endpoint=hub.url)
        with DiffusionGPT(zoo, settings=settings, on_pull=lambda _: None) as studio:
            result = studio.route_and_generate(PROMPT, num_inference_steps=1)
    assert result.drawn_by == "here"
    assert str(tmp_path / "hub") in result.fallbacks[0].error + result.fallbacks[0].hint


def test_votes_that_cannot_be_kept_are_an_error(tmp_path: Path, studio: DiffusionGPT) -> None:
    """With a file in the place of our folder, routes still work, and the vote is a `VoteError` with a hint."""
    (tmp_path / "home").write_text("in the way")
    one = studio.route_and_generate(PROMPT, expert="tiny-pixel", seed=1, num_inference_steps=1)
    two = studio.route_and_generate(PROMPT, expert="tiny-oil", seed=1, num_inference_steps=1)
    with DiffusionGPT("tiny", settings=settings_in(tmp_path)) as blocked:
        assert blocked.route(PROMPT).expert == "tiny-pixel"
        with pytest.raises(VoteError) as caught:
            blocked.vote(one, two)
    assert caught.value.hint


def test_saving_where_nothing_can_be_written_is_an_error(tmp_path: Path, studio: DiffusionGPT) -> None:
    """A file in the place of the folder is a `PictureError`, and the picture in memory is not lost."""
    (tmp_path / "file").write_text("in the way")
    result = studio.route_and_generate(PROMPT, num_inference_steps=1)
    with pytest.raises(PictureError, match="cannot write"):
        result.save(tmp_path / "file" / "deeper")
    assert result.save(tmp_path / "better")[0].is_file()


def test_the_callback_sees_every_step(studio: DiffusionGPT) -> None:
    """`callback_on_step_end` is called as by diffusers, and is not recorded."""
    steps: list[int] = []

    def watch(_: object, step: int, __: object, tensors: dict[str, Any]) -> dict[str, Any]:
        steps.append(step)
        return tensors

    result = studio.route_and_generate(PROMPT, num_inference_steps=3, callback_on_step_end=watch)
    assert steps == [0, 1, 2]
    assert "callback_on_step_end" not in result.params


def test_an_error_of_the_callers_own_is_theirs(studio: DiffusionGPT) -> None:
    """An error from the caller's callback is raised unchanged: no other expert is tried."""

    def fail(*_: object) -> dict[str, Any]:
        raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        studio.route_and_generate(PROMPT, num_inference_steps=1, callback_on_step_end=fail)


def test_progress_is_told(tmp_path: Path) -> None:
    """`on_progress` is called for each drawing step."""
    heard: list[tuple[str, int, int | None]] = []
    settings = settings_in(tmp_path)
    with DiffusionGPT("tiny", settings=settings, on_progress=lambda *now: heard.append(now)) as studio:
        studio.route_and_generate(PROMPT, num_inference_steps=2)
    drawing = [(done, total) for phase, done, total in heard if phase == "draw"]
    assert drawing[-1] == (2, 2)


def test_bad_requests_draw_nothing(studio: DiffusionGPT) -> None:
    """A prompt or argument without sense is refused before anything is loaded."""
    for prompt, options in (("", {}), ("x" * 100_000, {}), ("\0", {}), ("fox", {"seed": -1}), ("fox", {"sed": 1})):
        with pytest.raises(RequestError):
            studio.route_and_generate(prompt, **options)  # type: ignore[arg-type]


def test_zoos_are_named_in_many_ways(tmp_path: Path) -> None:
    """A zoo is given as an object, a name, a file, or several of these."""
    file = tmp_path / "mine.yaml"
    file.write_text("experts: [{id: mine, repo: me/mine}]")
    assert as_zoo(tiny_zoo()) is tiny_zoo()
    assert set(as_zoo("tiny")) == set(tiny_zoo())
    assert set(as_zoo(file)) == {"mine"}
    assert set(as_zoo(["tiny", file])) == {*tiny_zoo(), "mine"}


def test_the_functions_share_one_studio(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """`route`, `route_and_generate`, `compare` and the async function use the same studio: nothing is loaded twice."""
    monkeypatch.setenv("DIFFUSIONGPT_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("DIFFUSIONGPT_ZOO", "tiny")
    monkeypatch.setenv("DIFFUSIONGPT_DEVICE", "cpu")
    diffusiongpt._made_studio.cache_clear()
    try:
        first = diffusiongpt.route_and_generate(PROMPT, seed=1, num_inference_steps=1)
        second = asyncio.run(diffusiongpt.aroute_and_generate(PROMPT, seed=1, num_inference_steps=1))
        assert first.image.tobytes() == second.image.tobytes()
        assert first.redraws is second.redraws
        assert diffusiongpt.route(PROMPT).chosen.readiness == "loaded"
        assert len(diffusiongpt.compare(PROMPT, num_inference_steps=1).images) == 2
        assert second.again().image.tobytes() == first.image.tobytes()
    finally:
        diffusiongpt._default_studio().close()
        diffusiongpt._made_studio.cache_clear()


def test_a_request_is_one_line_in_the_log(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """At INFO a route, a drawing and a failure are one line each, with expert, prompt and seconds, on our loggers."""
    with tiny_studio(tmp_path) as studio, caplog.at_level(logging.INFO, logger="diffusiongpt"):
        studio.route(PROMPT)
        studio.route_and_generate(PROMPT, seed=5, num_inference_steps=1)
        studio.route_and_generate(PROMPT, seed=6, num_images_per_prompt=2, num_inference_steps=1)
        [*studio.generate_many([PROMPT], seed=7, num_inference_steps=1)]
        with pytest.raises(UnknownExpertError):
            studio.route_and_generate(PROMPT, expert="nosuch")
    ours = [record for record in caplog.records if record.name.startswith("diffusiongpt")]
    lines = [record.getMessage() for record in ours if record.levelno >= logging.INFO]
    assert len(lines) == 5
    assert lines[0].startswith(f"tiny-pixel is to draw {PROMPT!r}, decided in ")
    assert lines[1].startswith(f"tiny-pixel drew {PROMPT!r}, seed 5, in ")
    assert "seed 6 and 1 more, in " in lines[2]
    assert "seed 7, in " in lines[3]
    assert lines[4].startswith("a request failed: UnknownExpertError: ")
    assert {record.name for record in ours} == {"diffusiongpt"}


def test_own_experts_are_preferred_if_asked(tmp_path: Path) -> None:
    """`prefer_mine` adds a part `mine` to experts of the user's own files, which win where they are nearly as good."""
    mine = tmp_path / "mine.yaml"
    mine.write_text(f"experts: [{{id: own-any, repo: {pixel_folder()}, size_gb: 0.003}}]")
    with DiffusionGPT(("tiny", mine), settings=settings_in(tmp_path)) as studio:
        assert studio.zoo.own == {"own-any"}
        usual = studio.route("a star")
        preferred = studio.route("a star", prefer_mine=True)
        assert (usual.expert, preferred.expert) == ("tiny-generalist", "own-any")
        assert "because you prefer your own experts" in preferred.explain()
        assert "mine" not in usual.chosen.parts
        assert preferred.chosen.parts["mine"] > 0
        for candidate in preferred.candidates:
            assert sum(candidate.parts.values()) == pytest.approx(candidate.score)
            assert ("mine" in candidate.parts) == (candidate.expert == "own-any")
        assert studio.route("a star", prefer_mine=True, explore="thompson", seed=1).propensities["own-any"] > 0.4
