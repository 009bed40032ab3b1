"""Whether what the planner says of a GPU is true there, and whether everything draws on it; under nine minutes.

    python benchmarks/gpu.py

needs an NVIDIA card, 64 GB of host memory for FLUX.1 (16 GB for SDXL alone, `--model sdxl`), no network, and beside
torch with CUDA the wheels of this package: diffusers, transformers, accelerate, peft, bitsandbytes for the rows with
weights of 4 bits, and for the miniatures tokenizers and sentencepiece. It prints Markdown for `RESULTS.md`: one table
with what was found, what is asked for, and a mark. Without a card (or with `--dry-run`) the same code runs on small
modules in host memory, and rows that need a card say so.

Modules have the classes and sizes of SDXL and FLUX.1 and random weights (`gpu_modules.py`), so they take the memory and
the time of the real ones. Marks: peak bytes within 10 % of the plan, seconds within 40 %, warm swaps at 85 % of the
link or more, memory that runs out is recovered from, and pictures are the same bits however their weights are placed.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any

from gpu_beside import bits, in_turn, stalls
from gpu_modules import MODELS, make
from gpu_pictures import miniatures, recovers_drawing, tiny_zoo
from gpu_swap import link, timed
from gpu_table import Bench, Row, report

from diffusiongpt.backends.diffusers import can_quantise
from diffusiongpt.backends.diffusers.few_bits import NF4, quantise
from diffusiongpt.backends.diffusers.short_memory import offloaded
from diffusiongpt.errors import OutOfMemoryError
from diffusiongpt.flow import MachineSpec, Placement, PlacementKind
from diffusiongpt.placement import Planner, speed_of
from diffusiongpt.weights import Weights, device_facts, device_memory, finish
from diffusiongpt.zoo import CallSettings, Expert

BUDGET_S = 520.0
PEAK, SECONDS, SWAP = 0.10, 0.40, 0.85
NAMES = {
    "sdxl": ("unet", "text_encoder", "text_encoder_2", "vae"),
    "flux": ("transformer", "text_encoder_2", "text_encoder", "vae"),
}
ARCHITECTURE = {"sdxl": "sdxl", "flux": "flux1"}


def swaps(bench: Bench, speed: float, weights: Mapping[str, Weights], title: str) -> Iterator[Row]:
    """The largest part, brought when it is pinned, as a share of the link."""
    part = max(weights.values(), key=lambda one: one.nbytes)
    part.pin(bench.device)
    seconds = []
    for _ in range(4):
        seconds.append(timed(lambda: part.bring(bench.device), bench.device))
        part.leave(bench.device)
    share = part.nbytes / min(seconds[1:]) / speed
    found = f"{share:.0%} of {speed / 1e9:.1f} GB/s, {'pinned' if part.pinned else 'not pinned'}"
    yield bench.judged(f"{title}: warm swap", found, f">= {SWAP:.0%}", share >= SWAP if bench.is_cuda else None)


def placements(
    bench: Bench, model: str, weights: Mapping[str, Weights], kinds: tuple[PlacementKind, ...]
) -> Iterator[Row]:
    """Peak and seconds of each placement against its plan."""
    plans = {one.kind: one for one in _plans(bench, model, weights, kinds)}
    for kind in kinds:
        if kind not in plans:
            yield Row(f"{model} {kind}", "does not fit here", "", "not run")
            continue
        yield from _against(bench, model, weights, plans[kind])


def _plans(
    bench: Bench, model: str, weights: Mapping[str, Weights], kinds: tuple[PlacementKind, ...]
) -> tuple[Placement, ...]:
    """What the planner says of a picture; the device of a dry run has all the memory that it takes."""
    name = device_facts(bench.device)[0]
    total = device_memory(bench.device) if bench.is_cuda else 1 << 40
    flops, speed = speed_of("cuda" if bench.is_cuda else "cpu", name, total or 0)
    spec = MachineSpec(
        device=bench.device,
        device_bytes=total,
        host_bytes=device_memory("cpu"),
        flops=flops,
        link_bytes_s=speed,
    )
    sizes = {name: part.nbytes / 1e9 for name, part in weights.items()}
    guidance = 5.0 if model == "sdxl" else 3.5
    settings = CallSettings(width=bench.side, height=bench.side, guidance_scale=guidance)
    expert = Expert(
        id=model, repo=f"none/{model}", architecture=ARCHITECTURE[model], components=sizes, settings=settings
    )
    planner = Planner(spec, ways=kinds, bits=(4,), quantise=True, readiness=lambda _: "loaded")
    return planner(expert, steps=bench.steps).placements


def _against(bench: Bench, model: str, weights: Mapping[str, Weights], plan: Placement) -> Iterator[Row]:
    """Draw with no more memory than planned, then with all there is for the seconds.

    An allocator that has room keeps what is free, so what it holds then says little of what is needed.
    """
    run = partial(_draw, model, weights, bench.device, bench.side)
    planned, expected = (plan.device_bytes or 0) / 1e9, plan.seconds or 0.0
    title = f"{model} {plan.kind}"
    with _placed(weights, bench.device, plan.kind, bench.small_bytes):
        run(steps=1)
        with _limited(bench, (1 + PEAK) * planned * 1e9) as peak:
            run(steps=1)
            found = peak()
    with _placed(weights, bench.device, plan.kind, bench.small_bytes):
        run(steps=1)
        seconds = timed(lambda: run(steps=bench.steps), bench.device)
    text = f"plan {planned:.2f} GB" if found is None else f"drawn in {found / 1e9:.2f} GB, plan {planned:.2f}"
    passed = None if found is None else found >= (1 - PEAK) * planned * 1e9
    yield bench.judged(f"{title}: peak", text, f"within {PEAK:.0%}", passed)
    off = seconds / expected - 1 if expected else 0.0
    text = f"{seconds:.1f} s, plan {expected:.1f}" + (f" ({off:+.0%})" if bench.is_cuda else "")
    yield bench.judged(
        f"{title}: {bench.steps} steps", text, f"within {SECONDS:.0%}", abs(off) <= SECONDS if bench.is_cuda else None
    )


@contextmanager
def _placed(weights: Mapping[str, Weights], device: str, kind: str, small_bytes: int) -> Iterator[None]:
    """Weights as a placement has them, by the code that draws with them."""
    with ExitStack() as undo:
        if kind != "whole":
            undo.enter_context(offloaded(weights, device, small_bytes, stream=kind == "stream"))
        for part in weights.values() if kind == "whole" else ():
            part.bring(device)
            undo.callback(part.leave, device)
        undo.callback(finish, device)
        yield


@contextmanager
def _limited(bench: Bench, nbytes: float) -> Iterator[Callable[[], int | None]]:
    """No more memory on the card than this, what the context and libraries take included; yields the most so far."""
    if not bench.is_cuda:
        yield lambda: None
        return
    import torch

    torch.cuda.synchronize(bench.device)
    torch.cuda.empty_cache()
    free, total = torch.cuda.mem_get_info(bench.device)
    outside = total - free - torch.cuda.memory_reserved(bench.device)
    torch.cuda.reset_peak_memory_stats(bench.device)
    torch.cuda.set_per_process_memory_fraction(min(1.0, (nbytes - outside) / total), bench.device)
    try:
        yield lambda: int(outside + torch.cuda.max_memory_reserved(bench.device))
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0, bench.device)


def _draw(model: str, weights: Mapping[str, Weights], device: str, side: int, *, steps: int) -> None:
    """Encode, denoise and decode random numbers in the shapes of a picture."""
    import torch

    parts = {name: part.outline(device) for name, part in weights.items()}
    latent = side // 8
    rand = partial(torch.rand, device=device, dtype=torch.float16 if model == "sdxl" else torch.bfloat16)
    ids = partial(torch.zeros, device=device, dtype=torch.long)
    with torch.inference_mode():
        for name, part in parts.items():
            if name.startswith("text_encoder"):
                part(ids(1, 512 if type(part).__name__.startswith("T5") else 77))
        call = _sdxl_step if model == "sdxl" else _flux_step
        for _ in range(steps):
            call(parts, latent, rand)
        vae = parts["vae"]
        if model == "sdxl":
            vae.to(torch.float32)  # as its pipeline does
        sample = rand(1, vae.config.latent_channels, latent, latent).to(next(vae.parameters()).dtype)
        vae.decode(sample)
    if model == "sdxl":
        weights["vae"].restore(device)


def _sdxl_step(parts: Mapping[str, Any], latent: int, rand: Callable[..., Any]) -> None:
    unet = parts["unet"]
    added = {"text_embeds": rand(2, 1280), "time_ids": rand(2, 6)}
    unet(rand(2, 4, latent, latent), 500, rand(2, 77, unet.config.cross_attention_dim), added_cond_kwargs=added)


def _flux_step(parts: Mapping[str, Any], latent: int, rand: Callable[..., Any]) -> None:
    transformer = parts["transformer"]
    config, tokens = transformer.config, (latent // 2) ** 2
    transformer(
        hidden_states=rand(1, tokens, config.in_channels),
        encoder_hidden_states=rand(1, 512, config.joint_attention_dim),
        pooled_projections=rand(1, config.pooled_projection_dim),
        timestep=rand(1),
        img_ids=rand(tokens, 3),
        txt_ids=rand(512, 3),
        guidance=rand(1),
    )


def quantised(bench: Bench, model: str, weights: dict[str, Weights]) -> Iterator[Row]:
    """The same parts with weights of 4 bits; the plan is that of the parts as they were."""
    if not can_quantise(NF4):
        yield Row(f"{model} quantised", "needs the wheel bitsandbytes", "", "not run")
        return
    plans = _plans(bench, model, weights, ("quantised",))
    if not plans:
        yield Row(f"{model} quantised", "does not fit here", "", "not run")
        return
    for name, part in list(weights.items()):
        if part.nbytes > bench.small_bytes and name != "vae":
            module = part.on("cpu")
            quantise(module, NF4)
            weights[name] = Weights.pack(module)
    yield from _against(bench, model, weights, plans[0])


def recovers(bench: Bench) -> Iterator[Row]:
    """Memory that runs out while weights are placed is an error of ours, and leaves nothing behind."""
    import torch

    module = torch.nn.Sequential(*(torch.nn.Linear(4096, 4096, bias=False) for _ in range(8 if bench.is_cuda else 1)))
    weights = Weights.pack(module)
    if not bench.is_cuda:
        weights.bring(bench.device)
        yield bench.judged("out of memory while placing", "placed", "error of ours, then fits", None)
        return
    free, _ = torch.cuda.mem_get_info(bench.device)
    hold = torch.empty(free - weights.nbytes // 2, dtype=torch.uint8, device=bench.device)
    raised = ""
    try:
        weights.bring(bench.device)
    except OutOfMemoryError as error:
        raised = type(error).__name__
    left = torch.cuda.memory_allocated(bench.device) - hold.nbytes
    del hold
    torch.cuda.empty_cache()
    weights.bring(bench.device)
    same = all(
        torch.equal(a, b.cpu()) for a, b in zip(module.parameters(), weights.on(bench.device).parameters(), strict=True)
    )
    found = f"{raised or 'nothing raised'}, {left} bytes left, then {'the same bits' if same else 'other bits'}"
    passed = bool(raised) and left < 1 << 20 and same
    yield bench.judged("out of memory while placing", found, "error of ours, nothing left, then fits", passed)


def main() -> None:
    """Run all steps and print; the exit code is 1 if one failed."""
    import torch

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", choices=[*MODELS, "both"], default="both")
    parser.add_argument("--device", default="cuda:0")
    parser.add_argument("--budget", type=float, default=BUDGET_S, help="seconds after which no step begins")
    parser.add_argument(
        "--dry-run", action="store_true", help="small modules in host memory; the default without a card"
    )
    arguments = parser.parse_args()
    dry = arguments.dry_run or not torch.cuda.is_available()
    if dry:
        print("Without a card: small modules in host memory, and no marks for what needs one.", file=sys.stderr)
    bench = Bench("cpu:1" if dry else arguments.device, 0.003 if dry else 1.0, arguments.budget)
    bench.step("out of memory while placing", partial(recovers, bench))
    bench.step("out of memory while drawing", partial(recovers_drawing, bench))
    bench.step("tiny zoo", partial(tiny_zoo, bench))
    bench.step("bits", partial(bits, bench))
    bench.step("stalls", partial(stalls, bench))
    bench.step("in turn", partial(in_turn, bench))
    speed = link(bench.device, round(bench.scale * (1 << 30)), 5)
    for model in MODELS if arguments.model == "both" else [arguments.model]:
        weights: dict[str, Weights] = {}

        def build(model: str = model, weights: dict[str, Weights] = weights) -> Iterator[Row]:
            for name, part in zip(NAMES[model], MODELS[model], strict=True):
                weights[name] = Weights.pack(make(part, bench.scale))
            yield Row(f"{model}: weights", f"{sum(part.nbytes for part in weights.values()) / 1e9:.2f} GB")

        bench.step(f"{model} built", build)
        bench.step(f"{model} swaps", partial(swaps, bench, speed, weights, model))
        bench.step(f"{model} placements", partial(placements, bench, model, weights, ("whole", "offload", "stream")))
        bench.step(f"{model} quantised", partial(quantised, bench, model, weights))
        weights.clear()
    for dtype in ("bfloat16", "float16"):
        bench.step(f"miniatures in {dtype}", partial(miniatures, bench, dtype, 3 if dry else None))
    print(report(bench))
    if any(row.mark == "FAIL" for row in bench.rows):
        raise SystemExit(1)


if __name__ == "__main__":
    main()
