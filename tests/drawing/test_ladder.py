"""What is tried while memory runs out, what the next picture learns from it, and what a picture drawn again keeps."""

from __future__ import annotations

import sys
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from fixtures_routing import settings_in, zoo_of
from miniature import expert
from miniatures import make_miniature, miniature_settings

from diffusiongpt import DiffusionGPT
from diffusiongpt.backends.diffusers import DiffusersBackend
from diffusiongpt.cache import ModelCache
from diffusiongpt.drawing import Machine
from diffusiongpt.drawing.in_process import LocalExecutor
from diffusiongpt.drawing.ladder import Ladders
from diffusiongpt.errors import NeedsExtraError, OutOfMemoryError
from diffusiongpt.flow import Call, MachineSpec, Placement
from diffusiongpt.zoo import Zoo

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from diffusiongpt.zoo import Expert

DEVICE = "cpu:1"
"""To torch it is host memory like any other, so it serves as a second device."""

WHOLE, OFFLOAD, STREAM, QUANTISED = (
    Placement(kind=kind, device=DEVICE) for kind in ("whole", "offload", "stream", "quantised")
)
CPU = Placement(kind="cpu", device="cpu")
EIGHT, FOUR = (Placement(kind="quantised", device=DEVICE, bits=bits) for bits in (8, 4))


def call(who: Expert, **changes: Any) -> Call:
    """Two steps."""
    settings = who.settings
    arguments = {"width": settings.width, "height": settings.height, "num_inference_steps": 2, **settings.extra}
    return replace(Call(expert=who, prompt="a fox", negative_prompt="", seeds=(5,), arguments=arguments), **changes)


def steps(ladders: Ladders, asked: Call, *placements: Placement) -> list[tuple[str | None, str, bool]]:
    """The attempts in a few words."""
    return [(rung.step, rung.placement.kind, rung.placement.tiled) for rung in ladders.of(asked, placements)]


def test_each_attempt_takes_less_memory() -> None:
    """The same with memory freed, by tiles, and then every other placement, by tiles too."""
    found = steps(Ladders(), call(expert("t/sd")), WHOLE, OFFLOAD, STREAM, QUANTISED, CPU)
    assert found == [
        (None, "whole", False),
        ("freed", "whole", False),
        ("tiled", "whole", True),
        ("offloaded", "offload", True),
        ("streamed", "stream", True),
        ("quantised", "quantised", True),
        ("cpu", "cpu", False),
    ]
    assert steps(Ladders(), call(expert("t/sd")), CPU) == [(None, "cpu", False), ("freed", "cpu", False)]


def test_the_next_picture_begins_where_this_one_was_drawn() -> None:
    """Of the same expert at the same size; what merely needed freed memory begins at the beginning."""
    ladders, asked = Ladders(), call(expert("t/sd"))
    rungs = ladders.of(asked, (WHOLE, OFFLOAD, CPU))
    ladders.remember(asked, rungs[1])
    assert ladders.of(asked, (WHOLE, OFFLOAD, CPU)) == rungs
    ladders.remember(asked, rungs[3])
    assert steps(ladders, asked, WHOLE, OFFLOAD, CPU) == [
        (None, "offload", True),
        ("freed", "offload", True),
        ("cpu", "cpu", False),
    ]
    larger = replace(asked, arguments={**asked.arguments, "width": 2048})
    assert ladders.of(larger, (WHOLE, OFFLOAD, CPU)) == rungs
    assert ladders.of(replace(asked, expert=expert("t/other", "other")), (WHOLE, OFFLOAD, CPU)) == rungs


@pytest.mark.parametrize("tiled", [False, True])
def test_a_picture_that_is_drawn_again_keeps_its_tiles_and_its_type(*, tiled: bool) -> None:
    """Both change pixels: it is drawn as it was or not at all."""
    asked = call(expert("t/sd"), as_drawn=OFFLOAD.model_copy(update={"tiled": tiled}))
    found = steps(Ladders(), asked, WHOLE, OFFLOAD, QUANTISED)
    assert found == [(None, "whole", tiled), ("freed", "whole", tiled), ("offloaded", "offload", tiled)]
    small = call(expert("t/sd"), as_drawn=QUANTISED)
    assert steps(Ladders(), small, WHOLE, QUANTISED) == [(None, "quantised", False), ("freed", "quantised", False)]


def test_fewer_bits_come_after_more_and_a_picture_keeps_its_own() -> None:
    """From 8 bits to 4 is a step of its own; a record that names no bits is of 4."""
    asked, ladders = call(expert("t/sd")), Ladders()
    rungs = ladders.of(asked, (EIGHT, FOUR))
    assert [(rung.step, rung.placement.bits) for rung in rungs[-2:]] == [("tiled", 8), ("quantised", 4)]
    ladders.remember(asked, rungs[-1])
    assert {rung.placement.bits for rung in ladders.of(asked, (EIGHT, FOUR))} == {4}
    for as_drawn, bits in ((EIGHT, 8), (FOUR, 4), (QUANTISED, 4)):
        again = Ladders().of(call(expert("t/sd"), as_drawn=as_drawn), (EIGHT, FOUR))
        assert {rung.placement.bits for rung in again} == {bits}


@pytest.fixture(scope="module")
def flux(tmp_path_factory: pytest.TempPathFactory) -> Expert:
    """A DiT with two text encoders."""
    folder = make_miniature("flux1", tmp_path_factory.mktemp("flux"))
    settings = miniature_settings("flux1").model_copy(update={"dtype": "float32"})
    facts = {"settings": settings, "architecture": "flux1", "components": {}, "size_gb": 0.003}
    return expert(folder, "flux").model_copy(update=facts)


class Watched(DiffusersBackend):
    """Runs out of memory a number of times, and notes how it draws."""

    def __init__(self, failures: int = 0) -> None:
        super().__init__(small_bytes=20_000)
        self.failures = failures
        self.draws: list[dict[str, bool]] = []

    def draw(self, *args: Any, **ways: Any) -> Any:
        """Note, fail first."""
        self.draws.append({name: value for name, value in ways.items() if name != "on_step"})
        if len(self.draws) <= self.failures:
            raise OutOfMemoryError("no room for the picture", hint="none")
        return super().draw(*args, **ways)


@pytest.fixture
def backend(monkeypatch: pytest.MonkeyPatch) -> Watched:
    """The backend of everything."""
    watched = Watched()
    for place in ("in_process", "machine"):
        monkeypatch.setattr(f"diffusiongpt.drawing.{place}.get_backend", lambda _: watched)
    return watched


@pytest.fixture
def executor(tmp_path: Path, backend: Watched) -> Iterator[LocalExecutor]:
    """Draws on a second device."""
    del backend
    settings = settings_in(tmp_path)
    cache = ModelCache(settings)
    machine = Machine(cache, settings, "cpu")
    machine.__dict__["device"] = DEVICE
    machine.__dict__["spec"] = MachineSpec(device=DEVICE, device_bytes=8e9, host_bytes=8e9, flops=1e12)
    yield LocalExecutor(cache, machine, settings)
    cache.close()


def test_what_the_route_says_is_done(executor: LocalExecutor, backend: Watched, flux: Expert) -> None:
    """Whole, offloaded and streamed draw the same picture, weights of fewer bits others; all leave the device."""
    drawn = {}
    for placement in (WHOLE, OFFLOAD, STREAM, EIGHT, FOUR):
        drawing = executor.run(call(flux, placements=(placement,)))
        assert drawing.placement == placement
        drawn[placement.bits or placement.kind] = drawing.images[0].tobytes()
        if placement.kind != "whole":
            assert executor.cache.explain().on(DEVICE) == ()
        executor.cache.clear(DEVICE)
    assert drawn["whole"] == drawn["offload"] == drawn["stream"]
    assert len({drawn["whole"], drawn[8], drawn[4]}) == 3
    assert backend.draws == [
        {"offload": False, "tile": False},
        {"offload": True, "tile": False},
        {"offload": True, "stream": True, "tile": False},
        {"offload": True, "tile": False},
        {"offload": True, "tile": False},
    ]


def test_a_route_for_a_smaller_machine_is_not_drawn_with_more_bits(tmp_path: Path) -> None:
    """What was planned with 4 bits begins there, although 8 would fit here; with 8, both are tried."""
    cache = ModelCache(settings_in(tmp_path, quantise=True))
    machine = Machine(cache, settings_in(tmp_path, quantise=True), "cpu")
    machine.__dict__["device"] = DEVICE
    machine.__dict__["spec"] = MachineSpec(device=DEVICE, device_bytes=48e9, host_bytes=256e9, flops=1e14)
    large = Zoo.load("default")["qwen-image"]
    found = [[one.bits for one in machine.placements(large, begin=begin)] for begin in (EIGHT, FOUR)]
    assert found == [[8, 4], [4]]
    cache.close()


def test_a_second_picture_does_not_fail_where_the_first_did(
    executor: LocalExecutor, backend: Watched, flux: Expert
) -> None:
    """The components on the host stay there for it, so nothing is read from the disk again."""
    backend.failures = 3
    loads: list[str] = []
    executor.cache.events.add(lambda event: loads.append(event.what) if event.kind == "loaded" else None)
    asked = call(flux, placements=(WHOLE, OFFLOAD))
    first = executor.run(asked)
    assert [one.step for one in first.recovered] == ["freed", "tiled", "offloaded"]
    assert len(loads) == len(set(loads))
    second = executor.run(asked)
    assert second.recovered == ()
    assert second.placement == first.placement == OFFLOAD.model_copy(update={"tiled": True})
    assert len(backend.draws) == 5
    assert second.images[0].tobytes() == first.images[0].tobytes()


def test_a_library_that_does_not_work_is_a_step_down(
    executor: LocalExecutor, flux: Expert, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The next placement of the same expert draws, and the record says why; without one it is the error."""
    monkeypatch.setitem(sys.modules, "bitsandbytes", None)
    monkeypatch.setitem(sys.modules, "bitsandbytes.functional", None)
    drawing = executor.run(call(flux, placements=(QUANTISED, CPU)))
    assert [one.step for one in drawing.recovered][-1] == "cpu"
    assert "bitsandbytes" in drawing.recovered[-1].error
    assert drawing.placement == CPU
    with pytest.raises(NeedsExtraError, match="bitsandbytes"):
        executor.run(call(flux, placements=(QUANTISED,)))


def test_a_picture_by_tiles_is_drawn_again_by_tiles(tmp_path: Path, backend: Watched, flux: Expert) -> None:
    """`again` draws the same pixels, although there is room to decode at once by then."""
    backend.failures = 2
    with DiffusionGPT(zoo_of(flux), settings=settings_in(tmp_path)) as studio:
        studio._machine.__dict__["device"] = DEVICE
        studio._machine.__dict__["spec"] = MachineSpec(device=DEVICE, device_bytes=8e9, host_bytes=8e9)
        first = studio.route_and_generate("a fox", seed=3)
        assert first.records[0].placement.tiled
    assert [one["tile"] for one in backend.draws] == [False, False, True]
    with DiffusionGPT(zoo_of(flux), settings=settings_in(tmp_path)) as studio:
        studio._machine.__dict__["device"] = DEVICE
        studio._machine.__dict__["spec"] = MachineSpec(device=DEVICE, device_bytes=8e9, host_bytes=8e9)
        again = studio._painter.redraw(first)
    assert backend.draws[3]["tile"]
    assert again.image == first.image
