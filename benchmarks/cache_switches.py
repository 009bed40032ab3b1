"""The memory that the process holds while it switches between models that do not fit together."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from itertools import cycle
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter

import psutil
from cache_leases import CountingBackend
from cache_rows import Row, in_fresh_process

from diffusiongpt.backends.diffusers import quiet_construction
from diffusiongpt.cache import ModelCache
from diffusiongpt.flow import Call
from diffusiongpt.settings import load_settings
from diffusiongpt.zoo import CallSettings, Expert, License

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from miniatures import SIDE, make_miniature  # the tests' own miniatures are measured here too

MODELS = 4
FIRST = 20
FLOOR = 2.0
GOAL = 1.0

_ROOM = 2.5
"""Models that the budget has room for."""


def rows(switches: int) -> Iterable[Row]:
    """Measure on the host and on a device; the models are written once."""
    with TemporaryDirectory() as scratch:
        folders = in_fresh_process(_write, scratch)
        for device in ("cpu", "cpu:1"):
            yield in_fresh_process(_switch, scratch, folders, device, switches)


def _switch(scratch: str, folders: list[str], device: str, switches: int) -> Row:
    """Draw with one model after the other, and compare the resident set after the 20th switch and the last."""
    import torch

    torch.set_num_threads(1)
    experts = [_expert(folder) for folder in folders]
    size = sum(path.stat().st_size for path in Path(folders[0]).glob("*/*.safetensors"))
    backend = CountingBackend()
    cache = ModelCache(load_settings(home=f"{scratch}/home", hub_cache=scratch), budget_bytes=round(size * _ROOM))
    process, held, start = psutil.Process(), [], perf_counter()
    for _, expert in zip(range(switches), cycle(experts), strict=False):
        with cache.lease(expert, backend, device=device) as loaded:
            backend.draw(loaded, _drawing(expert))
        held.append(process.memory_info().rss)
    first, last = held[FIRST - 1], held[-1]
    seconds = perf_counter() - start
    note = (
        f"{last / first - 1:+.2%}, {first / 1e6:.0f} to {last / 1e6:.0f} MB, most {max(held[FIRST - 1 :]) / 1e6:.0f}; "
        f"{len(folders)} models of {size / 1e6:.0f} MB, room for {_ROOM}, {backend.loads} loads, {seconds:.0f} s"
    )
    measure = f"resident memory on {device}, switch {FIRST} to {switches}"
    return Row(measure=measure, figure=abs(last / first - 1) * 100, unit="%", floor=FLOOR, goal=GOAL, note=note)


def _write(scratch: str) -> list[str]:
    """Models that share nothing: SD 1.5 with a wider UNet, stored in the type that it has in memory."""
    import torch

    folders = []
    for seed in range(MODELS):
        folder = make_miniature("sd15", Path(scratch, f"model{seed}"), seed=seed)
        with quiet_construction():
            from diffusers import UNet2DConditionModel

            torch.manual_seed(seed)
            config = UNet2DConditionModel.load_config(folder / "unet")
            wide = {**config, "block_out_channels": (128, 256)}
            UNet2DConditionModel.from_config(wide).save_pretrained(folder / "unet")
        folders.append(str(folder))
    return folders


def _expert(folder: str) -> Expert:
    settings = CallSettings(width=SIDE, height=SIDE, num_inference_steps=1, dtype="float32")
    return Expert(id=Path(folder).name, repo=folder, license=License(id="none"), settings=settings)


def _drawing(expert: Expert) -> Call:
    arguments = {"width": SIDE, "height": SIDE, "num_inference_steps": 1}
    return Call(expert=expert, prompt="a fox", negative_prompt="", seeds=(3,), arguments=arguments)
