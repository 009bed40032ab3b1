"""Pictures that `gpu.py` draws: miniatures however they are placed, with a card that is full, and the tiny zoo."""

from __future__ import annotations

import gc
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from gpu_table import Bench, Row

from diffusiongpt.cache import ModelCache
from diffusiongpt.drawing import Machine
from diffusiongpt.drawing.in_process import LocalExecutor
from diffusiongpt.errors import DiffusionGPTError
from diffusiongpt.flow import Call, MachineSpec, Placement
from diffusiongpt.settings import load_settings
from diffusiongpt.studio import DiffusionGPT
from diffusiongpt.weights import device_memory
from diffusiongpt.zoo import Expert, License

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))


def recovers_drawing(bench: Bench) -> Iterator[Row]:
    """A drawing that finds the card full of memory that is not in use frees it, and draws the same picture."""
    with _executor(bench) as (executor, call):
        plain = executor.run(call)
        executor.cache.clear()
        if not bench.is_cuda:
            yield bench.judged("out of memory while drawing", "drawn", "freed, same picture", None)
            return
        import torch

        gc.disable()
        try:
            torch.cuda.empty_cache()
            free, _ = torch.cuda.mem_get_info(bench.device)
            # the allocator requests no less than 20 MB for a tensor of more than 1 MB
            garbage: list[Any] = [torch.empty(free - (4 << 20), dtype=torch.uint8, device=bench.device)]
            garbage.append(garbage)
            del garbage
            again = executor.run(call)
        finally:
            gc.enable()
    same = again.images[0].tobytes() == plain.images[0].tobytes()
    taken = [step.step for step in again.recovered]
    found = f"{', '.join(taken) or 'nothing recovered'}; {'same picture' if same else 'another picture'}"
    yield bench.judged("out of memory while drawing", found, "freed, same picture", bool(taken) and same)


@contextmanager
def _executor(bench: Bench, name: str = "sdxl", dtype: str = "float16") -> Iterator[tuple[LocalExecutor, Call]]:
    """An executor on the device, and a call of a miniature."""
    from miniatures import make_miniature, miniature_settings

    with tempfile.TemporaryDirectory() as home:
        folder = make_miniature(name, Path(home) / name)
        own = miniature_settings(name).model_copy(update={"dtype": dtype})
        facts = {"license": License(id="Apache-2.0"), "settings": own, "architecture": name, "size_gb": 0.003}
        expert = Expert(id=name, repo=str(folder), **facts)  # type: ignore[arg-type]
        settings = load_settings(home=Path(home) / "data", hub_cache=Path(home) / "hub", offline=True)
        cache = ModelCache(settings)
        machine = Machine(cache, settings, "cpu")
        machine.__dict__["device"] = bench.device
        memory = device_memory(bench.device) if bench.is_cuda else device_memory("cpu")
        machine.__dict__["spec"] = MachineSpec(
            device=bench.device, device_bytes=memory, host_bytes=device_memory("cpu")
        )
        arguments = {"width": own.width, "height": own.height, "num_inference_steps": 2, **own.extra}
        whole = (Placement(kind="whole", device=bench.device),)
        call = Call(
            expert=expert, prompt="a red fox", negative_prompt="", seeds=(7,), arguments=arguments, placements=whole
        )
        try:
            yield LocalExecutor(cache, machine, settings), call
        finally:
            cache.close()


def miniatures(bench: Bench, dtype: str, few: int | None) -> Iterator[Row]:
    """Every architecture draws twice, offloaded and streamed, the same picture, which is not of one colour."""
    from miniatures import ARCHITECTURES

    wrong: list[str] = []
    names = ARCHITECTURES[:few]
    for name in names:
        try:
            wrong += _draws_alike(bench, name, dtype)
        except DiffusionGPTError as error:
            wrong.append(f"{name}: {str(error)[:100]}")
    found = f"{len(names) - len({one.split(':')[0] for one in wrong})} of {len(names)}" + "".join(
        f"; {one}" for one in wrong
    )
    yield bench.judged(f"miniatures in {dtype}: same picture, however placed", found, "all", not wrong)


def _draws_alike(bench: Bench, name: str, dtype: str) -> list[str]:
    drawn = {}
    with _executor(bench, name, dtype) as (executor, call):
        for kind in ("whole", "whole again", "offload", "stream"):
            placement = Placement(kind=kind.split()[0], device=bench.device)  # type: ignore[arg-type]
            drawn[kind] = executor.run(replace(call, placements=(placement,))).images[0]
            if kind != "whole":
                executor.cache.clear(bench.device)
    other = [kind for kind, image in drawn.items() if image.tobytes() != drawn["whole"].tobytes()]
    flat = drawn["whole"].getcolors(2) is not None
    return [f"{name}: {kind} differs" for kind in other] + ([f"{name}: of one colour"] if flat else [])


def tiny_zoo(bench: Bench) -> Iterator[Row]:
    """The zoo of the package draws by the front door."""
    with tempfile.TemporaryDirectory() as home:
        device = bench.device if bench.is_cuda else "cpu"
        settings = load_settings(home=Path(home), hub_cache=Path(home) / "hub", offline=True, device=device)
        with DiffusionGPT("tiny", settings=settings) as studio:
            result = studio.route_and_generate("pixel art fish", seed=1)
        placement = result.records[0].placement
    where = f"{result.drawn_by} on {placement.device if placement else 'nothing known'}"
    yield bench.judged("tiny zoo", where, "drawn", result.image.getcolors(2) is None)
