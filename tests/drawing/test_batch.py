"""Many prompts at once, the lease of a pipeline, and what the studio does when memory runs out."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import pytest
from fixtures_routing import local, pixel_folder, settings_in, tiny_studio, zoo_of

from diffusiongpt.backends.diffusers import DiffusersBackend
from diffusiongpt.errors import DrawError, LoadError, OutOfMemoryError, RequestError
from diffusiongpt.flow import MachineSpec
from diffusiongpt.pictures import Generation
from diffusiongpt.studio import DiffusionGPT
from diffusiongpt.testing import hub_zoo, serve_tiny_zoo

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from diffusiongpt.cache import CacheEvent
    from diffusiongpt.testing import LocalHub

STYLES = ("pixel art", "flat vector", "pencil sketch", "oil painting")


@pytest.fixture
def studio(tmp_path: Path) -> Iterator[DiffusionGPT]:
    """A separate studio with the tiny zoo."""
    with tiny_studio(tmp_path) as studio:
        yield studio


def hub_studio(folder: Path, hub: LocalHub, **values: Any) -> DiffusionGPT:
    """A studio whose tiny zoo is on a hub."""
    return DiffusionGPT(hub_zoo(), settings=settings_in(folder, hub_endpoint=hub.url, **values))


def prompts(count: int) -> list[str]:
    """Prompts that are routed to four experts in turn."""
    return [f"{STYLES[at % 4]} of a red heart on a yellow background" for at in range(count)]


def pixels(results: list[Any]) -> list[bytes]:
    """What was drawn."""
    return [result.image.tobytes() for result in results]


def test_results_come_in_the_order_of_the_prompts(studio: DiffusionGPT) -> None:
    """The results come in the order of the prompts, with the same pictures as one by one."""
    asked = prompts(10)
    many = list(studio.generate_many(asked, seed=3, num_inference_steps=1))
    one_by_one = [studio.route_and_generate(prompt, seed=3, num_inference_steps=1) for prompt in asked]
    assert pixels(many) == pixels(one_by_one)
    assert [result.route.input for result in many if isinstance(result, Generation)] == asked


def test_prompts_of_one_expert_are_drawn_together(studio: DiffusionGPT) -> None:
    """Eight prompts that alternate between four experts are drawn with fewer changes of expert than in their order."""
    drawn: list[str] = []
    whole = studio._painter.draw_with

    def watched(*args: Any, **kwargs: Any) -> Any:
        drawn.append(args[0].id)
        return whole(*args, **kwargs)

    studio._painter.draw_with = watched  # type: ignore[method-assign]
    list(studio.generate_many(prompts(8), num_inference_steps=1))
    assert len(drawn) == 8
    assert sum(one != two for one, two in pairwise(drawn)) < 7


def test_prompts_are_read_as_needed(studio: DiffusionGPT) -> None:
    """An endless source is read a few prompts ahead, and closing the results empties the queue."""
    read = 0

    def endless() -> Iterator[str]:
        nonlocal read
        while True:
            read += 1
            yield prompts(read)[-1]

    results = studio.generate_many(endless(), num_inference_steps=1)
    first = [next(results) for _ in range(3)]
    assert len(pixels(first)) == 3
    assert read < 30
    results.close()  # type: ignore[attr-defined]  # it is a generator
    assert studio._local.queue.upcoming("cpu") == ()


def test_a_prompt_that_fails_is_told_at_its_place(studio: DiffusionGPT) -> None:
    """A failing prompt is an error in the list, or raised; the pictures before it are available either way."""
    asked = ["pixel art fish", "", "oil painting of a tree"]
    first, second, third = studio.generate_many(asked, return_exceptions=True, num_inference_steps=1)
    assert isinstance(first, Generation)
    assert isinstance(second, RequestError)
    assert isinstance(third, Generation)
    results = studio.generate_many(asked, num_inference_steps=1)
    assert isinstance(next(results), Generation)
    with pytest.raises(RequestError, match="empty"):
        next(results)


def test_the_next_experts_come_while_one_draws(tmp_path: Path) -> None:
    """If all prompts are known, the later experts are pulled and loaded in advance."""
    with (
        serve_tiny_zoo() as hub,
        DiffusionGPT(hub_zoo(), settings=settings_in(tmp_path, hub_endpoint=hub.url)) as studio,
    ):
        events: list[tuple[str, str]] = []

        def note(event: CacheEvent) -> None:
            events.append((event.kind, threading.current_thread().name))

        studio.cache.events.add(note)
        results = studio.generate_many(prompts(4), num_inference_steps=4)
        assert len(pixels(list(results))) == 4
    ahead = [kind for kind, thread in events if thread.startswith("diffusiongpt-ahead")]
    assert "loaded" in ahead
    assert len(hub.downloads) == 4


def test_without_looking_ahead_nothing_comes_unasked(tmp_path: Path) -> None:
    """`prefetch="off"` loads only what draws now."""
    with tiny_studio(tmp_path, prefetch="off") as studio:
        names: list[str] = []
        studio.cache.events.add(lambda _: names.append(threading.current_thread().name))
        list(studio.generate_many(prompts(4), num_inference_steps=1))
    assert names
    assert not any(name.startswith("diffusiongpt-ahead") for name in names)


def test_who_could_stand_in_is_pulled_only_where_allowed(tmp_path: Path) -> None:
    """`prefetch="download"` pulls the runner-up of a prompt, and the default does not."""
    pulled = {}
    for prefetch in ("stage", "download"):
        with (
            serve_tiny_zoo() as hub,
            hub_studio(tmp_path / prefetch, hub, prefetch=prefetch) as studio,
        ):
            result = next(studio.generate_many(prompts(1), num_inference_steps=30))
            assert isinstance(result, Generation)
            waiting = threading.Event()
            for _ in range(100 if prefetch == "download" else 2):
                if len(studio.cache.puller.pulled()) > 1:
                    break
                waiting.wait(0.1)
            pulled[prefetch] = {record.repo for record in studio.cache.puller.pulled()}
    runner_up = result.route.order[1].removeprefix("tiny-")
    assert len(pulled["stage"]) == 1
    assert len(pulled["download"]) == 2
    assert any(runner_up in repo for repo in pulled["download"])


def test_a_leased_pipeline_can_be_called(studio: DiffusionGPT) -> None:
    """The leased pipeline draws what the studio draws, has its own scheduler, and leaves no trace."""
    import torch

    drawn = studio.route_and_generate("a heart", expert="tiny-oil", seed=5, num_inference_steps=3)
    for _ in range(2):
        with studio.lease("tiny-oil") as pipeline:
            call = {**drawn.params, "generator": torch.Generator("cpu").manual_seed(5)}
            picture = pipeline(**{name: value for name, value in call.items() if name != "sampler"}).images[0]
            pipeline.scheduler.config["num_train_timesteps"] = 7
            pipeline.unet.to(torch.float16)
        assert picture.tobytes() == drawn.image.tobytes()
    assert studio.route_and_generate("a heart", expert="tiny-oil", seed=5, num_inference_steps=3).image == drawn.image


def test_nobody_else_draws_beside_a_lease(studio: DiffusionGPT) -> None:
    """The device belongs to the holder: others wait for the block to end, and the holder draws nothing else in it."""
    with ThreadPoolExecutor(1) as pool:
        with studio.lease("tiny-oil"):
            other = pool.submit(studio.route_and_generate, "pixel art fish", num_inference_steps=1)
            with pytest.raises(RequestError, match="already drawing on cpu"):
                studio.route_and_generate("pixel art fish", num_inference_steps=1)
            assert not other.done()
        assert other.result(60).drawn_by == "tiny-pixel"


def test_a_closed_studio_draws_no_more(tmp_path: Path) -> None:
    """Using a closed studio raises an error that names the reason, by any method."""
    studio = tiny_studio(tmp_path)
    studio.close()
    for ask in (studio.lease("tiny-oil").__enter__, lambda: studio.route_and_generate("a fox", expert="tiny-oil")):
        with pytest.raises(LoadError, match="closed"):
            ask()


class Tight(DiffusersBackend):
    """Runs out of memory a number of times, and records what was in memory then."""

    def __init__(self, times: int) -> None:
        super().__init__()
        self.times = times
        self.calls: list[bool] = []

    def draw(self, *args: Any, offload: bool = False, **kwargs: Any) -> Any:
        """Fail first."""
        self.calls.append(offload)
        if len(self.calls) <= self.times:
            raise OutOfMemoryError("no room for the picture", hint="none")
        return super().draw(*args, offload=offload, **kwargs)


@pytest.fixture
def tight(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Makes the studio's backend run out of memory."""

    def make(times: int) -> Tight:
        backend = Tight(times)
        for place in ("in_process", "machine"):
            monkeypatch.setattr(f"diffusiongpt.drawing.{place}.get_backend", lambda _: backend)
        return backend

    return make


def test_memory_that_runs_out_while_drawing_is_freed_once(studio: DiffusionGPT, tight: Any) -> None:
    """Idle models are evicted, the picture is drawn after all, and its record notes this."""
    plain = studio.route_and_generate("pixel art fish", seed=1, num_inference_steps=1)
    studio.route_and_generate("an oil painting of a fish", num_inference_steps=1)
    tight(1)
    result = studio.route_and_generate("pixel art fish", seed=1, num_inference_steps=1)
    assert (result.drawn_by, result.fallbacks) == ("tiny-pixel", ())
    assert [(step.step, step.error) for step in result.recovered] == [("freed", "no room for the picture")]
    assert result.image == plain.image
    assert not studio.cache.is_loaded(studio.zoo["tiny-oil"], device="cpu")
    assert plain.recovered == ()


def test_memory_that_stays_short_goes_to_the_next_candidate(studio: DiffusionGPT, tight: Any) -> None:
    """On the host there is nowhere to offload to: two attempts, then the next expert, and the record lists them."""
    backend = tight(2)
    result = studio.route_and_generate("pixel art fish", num_inference_steps=1)
    assert backend.calls == [False, False, False]
    assert result.drawn_by != "tiny-pixel"
    assert [one.expert for one in result.fallbacks] == ["tiny-pixel"]
    assert "no room for the picture" in result.fallbacks[0].error
    assert result.recovered == ()


def test_on_a_device_the_last_try_is_part_by_part(studio: DiffusionGPT, tight: Any) -> None:
    """Freed, tiled, then offloaded; the picture is the same, and afterwards nothing of it is left on the device."""
    plain = studio.route_and_generate("pixel art fish", seed=1, num_inference_steps=2)
    backend = tight(3)
    studio._machine.__dict__["device"] = "cpu:1"
    studio._machine.__dict__["spec"] = MachineSpec(device="cpu:1", device_bytes=8e9, host_bytes=8e9)
    result = studio.route_and_generate("pixel art fish", seed=1, num_inference_steps=2)
    assert backend.calls == [False, False, False, True]
    assert [step.step for step in result.recovered] == ["freed", "tiled", "offloaded"]
    assert result.image == plain.image
    assert studio.cache.explain().on("cpu:1") == ()


def test_what_does_not_fit_is_not_pulled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Sizes are known exactly before the download, whatever the zoo states."""
    claims = hub_zoo()["tiny-pixel"].model_copy(update={"components": {}, "size_gb": 1e-6})
    with (
        serve_tiny_zoo() as hub,
        DiffusionGPT(zoo_of(claims), settings=settings_in(tmp_path, hub_endpoint=hub.url)) as studio,
    ):
        spec = MachineSpec(device="cpu", device_bytes=55e6, host_bytes=55e6)
        monkeypatch.setitem(studio._machine.__dict__, "spec", spec)
        with pytest.raises(OutOfMemoryError, match="tiny-pixel needs"):
            studio.route_and_generate("pixel art fish", expert="tiny-pixel")
    assert not any("diffusion_pytorch_model" in files for files in hub.downloads.values())


def test_a_draw_error_is_not_taken_for_lack_of_memory(tmp_path: Path) -> None:
    """It is tried once, and then the next candidate draws."""
    zoo = zoo_of(local("one", pixel_folder(), "pixel_art"), local("two", pixel_folder()))
    with DiffusionGPT(zoo, settings=settings_in(tmp_path)) as studio:
        calls = 0

        def fail(*_: Any) -> None:
            nonlocal calls
            calls += 1
            if calls == 1:
                raise ValueError("no")

        with pytest.raises((ValueError, DrawError)):
            studio.route_and_generate("pixel art fish", num_inference_steps=1, callback_on_step_end=fail)
        assert calls == 1
