"""How fast weights are copied to a GPU, as a share of what its link can do.

    python benchmarks/gpu_swap.py --model both

needs a CUDA device and, to pin the largest block, 64 GB of host memory for FLUX or 16 GB for SDXL; it downloads
nothing. It prints Markdown for `RESULTS.md`: seconds, GB/s and share of the link, which is measured in the same run:

- plain: `module.to("cuda")`, a copy per tensor from memory that is not pinned;
- staged: `Weights.bring` through two pinned buffers, what is left when no more memory may be pinned;
- first: `Weights.bring` with pinning the block before;
- warm: `Weights.bring` of a block that is pinned, which is what a swap costs.

The floor for warm is 60 % of the link, the goal 85 %. That all bits on the device are those of the host is checked
tensor by tensor. `--device cpu:1 --scale 0.01` runs the same code on small modules without a GPU.
"""

from __future__ import annotations

import argparse
import platform
import shutil
import subprocess
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from time import perf_counter
from typing import Any

from gpu_modules import MODELS, Part, make

from diffusiongpt.weights import Weights, transfer

WAYS = ("plain", "staged", "first", "warm")


@dataclass(frozen=True)
class Row:
    """The measurements of one component; seconds of each way, and of leaving."""

    name: str
    nbytes: int
    seconds: dict[str, float]
    pinned: bool
    equal: bool
    leave: float
    freed: int | None


def timed(work: Callable[[], object], device: str) -> float:
    """Seconds that the work takes, until the device has nothing left to do."""
    _wait(device)
    start = perf_counter()
    work()
    _wait(device)
    return perf_counter() - start


def link(device: str, nbytes: int, repeat: int) -> float:
    """Bytes per second of one copy from pinned memory, the best of several."""
    import torch

    cuda = device.startswith("cuda")
    source = torch.empty(nbytes, dtype=torch.uint8, device="cpu", pin_memory=cuda).fill_(1)
    target = torch.empty(nbytes, dtype=torch.uint8, device=device).fill_(2)
    return nbytes / min(timed(lambda: target.copy_(source, non_blocking=True), device) for _ in range(repeat))


def measure(part: Part, device: str, scale: float, repeat: int) -> Row:
    """Copy one component to the device in every way, and free it again."""
    module = make(part, scale)
    seconds = {"plain": _plain(module, device)}
    weights = Weights.pack(module)
    share, transfer.PINNED_SHARE = transfer.PINNED_SHARE, 0.0
    try:
        seconds["staged"] = min(_swap(weights, device)[0] for _ in range(repeat + 1))
    finally:
        transfer.PINNED_SHARE = share
    seconds["first"] = _swap(weights, device)[0]
    warm = [_swap(weights, device) for _ in range(repeat)]
    seconds["warm"] = min(came for came, _ in warm)
    weights.bring(device)
    equal = _equal(weights.on("cpu"), weights.on(device))
    before = _allocated(device)
    leave = timed(lambda: weights.leave(device), device)
    freed = None if before is None else before - (_allocated(device) or 0)
    row = Row(part.name, weights.nbytes, seconds, weights.pinned, equal, leave, freed)
    weights.free()
    return row


def _swap(weights: Weights, device: str) -> tuple[float, float]:
    return timed(lambda: weights.bring(device), device), timed(lambda: weights.leave(device), device)


def _plain(module: Any, device: str) -> float:
    """Seconds of `module.to`, the better of two: in the first, the allocator requests its memory from the driver."""

    def once() -> float:
        seconds = timed(lambda: module.to(device), device)
        module.to("cpu")
        return seconds

    return min(once(), once())


def _equal(some: Any, others: Any) -> bool:
    import torch

    def bits(tensor: Any) -> Any:
        return tensor.cpu().contiguous().view(-1).view(torch.uint8)

    return all(torch.equal(bits(one), bits(other)) for one, other in zip(_tensors(some), _tensors(others), strict=True))


def _tensors(module: Any) -> Iterable[Any]:
    return [*module.parameters(), *module.buffers()]


def report(rows: list[Row], speed: float, device: str, scale: float) -> str:
    """Markdown: the machine, a row for each component, and one for all of a model together."""
    lines = [
        f"## {datetime.now(UTC):%Y-%m-%d}, {_name(device)}",
        "",
        f"{_versions()}; `python benchmarks/gpu_swap.py`{f', scale {scale:g}' if scale != 1 else ''}.",
        f"Link: {speed / 1e9:.2f} GB/s, one copy of pinned memory, best of several.",
        "",
        "| component | GB | " + " | ".join(f"{way}: s | GB/s | of link" for way in WAYS) + " | pinned | bits equal |",
        "|---|---|" + "---|" * (3 * len(WAYS) + 2),
        *(_line(row, speed) for row in rows),
        "",
        "| component | seconds to leave | GB freed |",
        "|---|---|---|",
        *(f"| {row.name} | {row.leave:.4f} | {_gigabytes(row.freed)} |" for row in rows),
    ]
    return "\n".join(lines)


def together(model: str, rows: list[Row]) -> Row:
    """All components of a model, one after another."""
    freed = [row.freed for row in rows if row.freed is not None]
    return Row(
        f"**{model}, all**",
        sum(row.nbytes for row in rows),
        {way: sum(row.seconds[way] for row in rows) for way in WAYS},
        all(row.pinned for row in rows),
        all(row.equal for row in rows),
        sum(row.leave for row in rows),
        sum(freed) if freed else None,
    )


def _line(row: Row, speed: float) -> str:
    cells = [
        f"{row.seconds[way]:.3f} | {row.nbytes / row.seconds[way] / 1e9:.2f} | "
        f"{100 * row.nbytes / row.seconds[way] / speed:.0f} %"
        for way in WAYS
    ]
    answers = ["yes" if answer else "no" for answer in (row.pinned, row.equal)]
    return f"| {row.name} | {row.nbytes / 1e9:.3f} | " + " | ".join([*cells, *answers]) + " |"


def _gigabytes(nbytes: int | None) -> str:
    return "not counted here" if nbytes is None else f"{nbytes / 1e9:.3f}"


def _wait(device: str) -> None:
    if device.startswith("cuda"):
        import torch

        torch.cuda.synchronize(device)


def _allocated(device: str) -> int | None:
    if not device.startswith("cuda"):
        return None
    import torch

    return int(torch.cuda.memory_allocated(device))


def _name(device: str) -> str:
    if not device.startswith("cuda"):
        return f"{device} of {platform.machine()}, no GPU"
    import torch

    return f"{torch.cuda.get_device_name(device)}{_driver()}"


def _driver() -> str:
    tool = shutil.which("nvidia-smi")
    if tool is None:
        return ""
    fields = "driver_version,pcie.link.gen.max,pcie.link.width.max"
    command = [tool, f"--query-gpu={fields}", "--format=csv,noheader"]
    answer = subprocess.run(command, capture_output=True, text=True, check=False).stdout.splitlines()
    if not answer or answer[0].count(",") != 2:
        return ""
    driver, generation, lanes = (field.strip() for field in answer[0].split(","))
    return f", driver {driver}, PCIe {generation} x{lanes}"


def _versions() -> str:
    import diffusers
    import torch
    import transformers

    return (
        f"torch {torch.__version__} (CUDA {torch.version.cuda}), diffusers {diffusers.__version__}, "
        f"transformers {transformers.__version__}"
    )


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", choices=[*MODELS, "both"], default="sdxl")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--scale", type=float, default=1.0, help="share of the real size, to try it out")
    parser.add_argument("--repeat", type=int, default=5, help="warm swaps of which the best counts")
    arguments = parser.parse_args()
    import torch

    device: str = arguments.device
    if device.startswith("cuda") and not torch.cuda.is_available():
        print("No CUDA device here, so there is no link to measure.")
        return
    speed = link(device, round(arguments.scale * (1 << 30)), arguments.repeat)
    rows: list[Row] = []
    with torch.no_grad():
        for model in MODELS if arguments.model == "both" else [arguments.model]:
            own = [measure(part, device, arguments.scale, arguments.repeat) for part in MODELS[model]]
            rows += [*own, together(model, own)]
    print(report(rows, speed, device, arguments.scale))
    if not all(row.equal for row in rows):
        raise SystemExit("The bits on the device are not those of the host.")


if __name__ == "__main__":
    main()
