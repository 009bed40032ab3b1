"""What many requests for one cold model cost, what a lease of a loaded one costs, and how often files are looked up."""

from __future__ import annotations

import gc
import json
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter
from types import FrameType
from typing import TYPE_CHECKING

import numpy as np
from cache_rows import Row, in_fresh_process

from diffusiongpt.backends.diffusers import DiffusersBackend, choose_files, quiet_construction
from diffusiongpt.cache import ModelCache
from diffusiongpt.drawing import LocalExecutor, Machine
from diffusiongpt.flow import Call
from diffusiongpt.hub import look_at, names_in
from diffusiongpt.settings import load_settings
from diffusiongpt.testing import LocalHub
from diffusiongpt.zoo import Expert, License

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from miniatures import make_miniature, miniature_settings  # the tests' own miniatures are measured here too

if TYPE_CHECKING:
    from diffusiongpt.backends import Loaded, Part

REQUESTS = 100
LEASES = 3000
FLOOR_MS = 1.0
GOAL_MS = 0.1

_USUAL = ("merges.txt", "special_tokens_map.json", "vocab.json")
"""Files of a CLIP tokenizer that the repositories of SD 1.5 and SDXL have and miniatures lack."""


class CountingBackend(DiffusersBackend):
    """The real backend, which also counts its loads."""

    def __init__(self) -> None:
        super().__init__()
        self.loads = 0

    def load(
        self, expert: Expert, folder: Path, files: Sequence[str], *, device: str, have: Mapping[str, Part]
    ) -> Loaded:
        """Count and load."""
        self.loads += 1
        return super().load(expert, folder, files, device=device, have=have)


def rows() -> Iterable[Row]:
    """Measure all three, in separate processes."""
    yield from in_fresh_process(cold_rows, REQUESTS)
    yield from in_fresh_process(warm_rows, LEASES)
    yield from in_fresh_process(listing_rows)


def cold_rows(requests: int) -> list[Row]:
    """This many threads request one model that is neither on disk nor in memory."""
    with TemporaryDirectory() as scratch, LocalHub({"t/sdxl": _repository("sdxl", scratch)}) as hub:
        settings = load_settings(home=f"{scratch}/home", hub_cache=f"{scratch}/hub", hub_endpoint=hub.url)
        cache, backend, expert = ModelCache(settings), CountingBackend(), _expert("sdxl")
        together = threading.Barrier(requests + 1)

        def ask(_: int) -> int:
            together.wait()
            with cache.lease(expert, backend, device="cpu") as loaded:
                return id(loaded.model)

        with ThreadPoolExecutor(requests) as pool:
            asked = [pool.submit(ask, at) for at in range(requests)]
            together.wait()
            start = perf_counter()
            models = {one.result() for one in asked}
            seconds = perf_counter() - start
        sent = Counter(path for method, path in hub.requests if method == "GET" and "/resolve/" in path)
        of_weights = [times for path, times in sent.items() if path.endswith(".safetensors")]
    what = f"{requests} requests for one cold model"
    return [
        Row(
            measure=f"{what}: downloads of a weight file",
            figure=max(of_weights),
            floor=1,
            note=f"{len(of_weights)} weight files, and {sum(sent.values()) - len(sent)} small file read for the plan",
        ),
        Row(measure=f"{what}: loads", figure=backend.loads, floor=1, note=f"{len(models)} model for all"),
        Row(measure=f"{what}: time to the last lease", figure=seconds, unit="s"),
    ]


def warm_rows(leases: int) -> list[Row]:
    """Enter and leave the lease of a loaded model, in one thread."""
    found: list[Row] = []
    names = ("sd15", "sdxl")
    with TemporaryDirectory() as scratch, LocalHub({f"t/{one}": _repository(one, scratch) for one in names}) as hub:
        settings = load_settings(home=f"{scratch}/home", hub_cache=f"{scratch}/hub", hub_endpoint=hub.url)
        cache, backend = ModelCache(settings), DiffusersBackend()
        for name in names:
            for device in ("cpu", "cpu:1"):
                expert = _expert(name)
                times = _time(cache, backend, expert, device, leases)
                middle, late = np.percentile(times, [50, 95])
                files = next(len(record.files) for record in cache.puller.pulled() if record.repo == expert.repo)
                note = f"95 % in {late:.3f} ms; {files} files, {leases} leases"
                found.append(
                    Row(
                        measure=f"a warm lease of {name} on {device}, median",
                        figure=round(float(middle), 4),
                        unit="ms",
                        floor=FLOOR_MS,
                        goal=GOAL_MS,
                        digits=3,
                        note=note,
                    )
                )
    return found


def listing_rows() -> list[Row]:
    """Draw one cold and two warm pictures, and count the calls that choose files and those that look at them."""
    found: list[Row] = []
    with TemporaryDirectory() as scratch, LocalHub({"t/sdxl": _repository("sdxl", scratch)}) as hub:
        settings = load_settings(home=f"{scratch}/home", hub_cache=f"{scratch}/hub", hub_endpoint=hub.url)
        cache = ModelCache(settings)
        executor = LocalExecutor(cache, Machine(cache, settings, "cpu"), settings)
        arguments = {"width": 32, "height": 32, "num_inference_steps": 1}
        call = Call(expert=_expert("sdxl"), prompt="a fox", negative_prompt="", seeds=(1,), arguments=arguments)
        for name in ("cold", "first warm", "warm"):
            calls = _calls(lambda: executor.run(call))
            chosen, looked = calls["choose_files"] + calls["names_in"], calls["look_at"]
            if name == "cold":
                found.append(Row(measure="a cold picture: times its files were listed", figure=chosen, floor=1))
            elif name == "warm":
                note = f"its files were listed {chosen} times"
                found.append(
                    Row(
                        measure="a warm picture: times its files were checked",
                        figure=looked,
                        floor=1,
                        note=note,
                    )
                )
    return found


def _calls(work: Callable[[], object]) -> Counter[str]:
    """How often, in any thread, the functions are called that list, choose or look at the files of a checkpoint."""
    watched = {function.__code__: function.__name__ for function in (choose_files, names_in, look_at)}
    calls: Counter[str] = Counter()

    def count(frame: FrameType, event: str, _: object) -> None:
        if event == "call" and frame.f_code in watched:
            calls[watched[frame.f_code]] += 1

    threading.setprofile(count)
    sys.setprofile(count)
    try:
        work()
    finally:
        sys.setprofile(None)
        threading.setprofile(None)  # type: ignore[arg-type]  # upstream types leave `None` out
    return calls


def _time(cache: ModelCache, backend: DiffusersBackend, expert: Expert, device: str, leases: int) -> list[float]:
    """Milliseconds of each."""
    times = []
    with cache.lease(expert, backend, device=device):
        pass
    gc.collect()
    for _ in range(leases):
        start = perf_counter()
        with cache.lease(expert, backend, device=device):
            pass
        times.append((perf_counter() - start) * 1e3)
    return times


def _repository(name: str, scratch: str) -> Path:
    """A miniature with as many files as the real repository has for its pipeline."""
    folder = make_miniature(name, Path(scratch, name))
    for tokenizer in folder.glob("tokenizer*"):
        for file in _USUAL:
            (tokenizer / file).write_text("{}" if file.endswith(".json") else "", encoding="utf-8")
    if name == "sd15":
        _add_checker(folder)
    return folder


def _add_checker(folder: Path) -> None:
    """Add what SD 1.5 also has: a safety checker, and the processor that prepares pictures for it."""
    from diffusers.pipelines.stable_diffusion.safety_checker import StableDiffusionSafetyChecker
    from transformers import CLIPConfig, CLIPImageProcessorPil

    small = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = CLIPConfig(text_config=small, vision_config={**small, "image_size": 32}, projection_dim=16)
    with quiet_construction():
        StableDiffusionSafetyChecker(config).save_pretrained(folder / "safety_checker")
        CLIPImageProcessorPil().save_pretrained(folder / "feature_extractor")
    index = folder / "model_index.json"
    parts = {
        "safety_checker": ["stable_diffusion", "StableDiffusionSafetyChecker"],
        "feature_extractor": ["transformers", "CLIPImageProcessor"],
    }
    index.write_text(json.dumps({**json.loads(index.read_bytes()), **parts}), encoding="utf-8")


def _expert(name: str) -> Expert:
    return Expert(id=name, repo=f"t/{name}", license=License(id="none"), settings=miniature_settings(name))
