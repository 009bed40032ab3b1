"""What `gpu.py` asks of weights that come and go: every bit, beside a drawing, and on a card that is nearly full."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from statistics import median
from time import perf_counter
from typing import Any

from gpu_swap import timed
from gpu_table import Bench, Row

from diffusiongpt.weights import Weights, transfer

STALL, LONGEST = 1.05, 2.0
"""A computation may take this much longer beside weights that move: at the median, and at most."""

EVEN, OVER = 2.0, 0.05
"""The longest swap as a multiple of the median, and the share of memory that the allocator may lose."""


def bits(bench: Bench) -> Iterator[Row]:
    """Weights come pinned and through buffers while another thread computes and allocates; all bits are compared."""
    weights = Weights.pack(_layers(bench, 40, 4096))
    wrong: dict[str, int] = {}
    with _computing(bench) as steps:
        share = transfer.PINNED_SHARE
        for way, pinned in (("through buffers", 0.0), ("pinned", share)):
            transfer.PINNED_SHARE = pinned
            try:
                wrong[way] = sum(_wrong(weights, bench.device) for _ in range(3))
            finally:
                transfer.PINNED_SHARE = share
    weights.free()
    found = ", ".join(f"{count} of 3 {way}" for way, count in wrong.items())
    yield bench.judged(
        "wrong bits, beside a computation", f"{found}; {len(steps)} passes", "0", not any(wrong.values())
    )


def stalls(bench: Bench) -> Iterator[Row]:
    """How long a computation's passes take while weights come and go, against those alone."""
    weights = Weights.pack(_layers(bench, 240, 4096))
    spans: dict[str, tuple[float, float]] = {}
    with _computing(bench) as steps:
        weights.bring(bench.device)  # pins, which happens once
        weights.leave(bench.device)

        def during(name: str, work: Callable[[], object]) -> None:
            start = perf_counter()
            work()
            spans[name] = (start, perf_counter())

        during("alone", lambda: threading.Event().wait(1.0))
        during("weights that come", lambda: weights.bring(bench.device))
        during("weights that leave", lambda: weights.leave(bench.device))
    nbytes = weights.nbytes
    weights.free()
    alone = median(_within(steps, spans["alone"]))
    for name in ("weights that come", "weights that leave"):
        taken = _within(steps, spans[name])
        if not taken:
            yield Row(f"a pass beside {name}", "none ended meanwhile")
            continue
        found = f"{median(taken) / alone:.2f} of alone, at most {max(taken) / alone:.2f} ({nbytes / 1e9:.1f} GB)"
        passed = median(taken) <= STALL * alone and max(taken) <= LONGEST * alone
        yield bench.judged(
            f"a pass beside {name}", found, f"<= {STALL}, at most {LONGEST}", passed if bench.is_cuda else None
        )


def in_turn(bench: Bench) -> Iterator[Row]:
    """Two models of other sizes in turn, where only one has room."""
    some, others = Weights.pack(_layers(bench, 230, 4096)), Weights.pack(_layers(bench, 150, 5000))
    if not bench.is_cuda:
        _turn(some, others, bench.device, 2)
        yield bench.judged("two models in turn", "drawn", "", None)
        return
    import torch

    room = round(1.25 * max(some.nbytes, others.nbytes))
    free, _ = torch.cuda.mem_get_info(bench.device)
    hold = torch.empty(free - room, dtype=torch.uint8, device=bench.device)
    torch.cuda.reset_peak_memory_stats(bench.device)
    before = torch.cuda.memory_stats(bench.device)["num_alloc_retries"]
    seconds = _turn(some, others, bench.device, 20)[2:]
    over = torch.cuda.max_memory_reserved(bench.device) - hold.nbytes - max(some.nbytes, others.nbytes)
    retries = torch.cuda.memory_stats(bench.device)["num_alloc_retries"] - before
    del hold
    some.free()
    others.free()
    lost = over / max(some.nbytes, others.nbytes)
    found = (
        f"{median(seconds):.2f} s, at most {max(seconds):.2f}; {lost:.0%} of memory lost, "
        f"{retries} times the allocator had to empty its cache"
    )
    passed = max(seconds) <= EVEN * median(seconds)
    yield bench.judged("two models in turn, room for one", found, f"none {EVEN:g} times the median", passed)


def _turn(some: Weights, others: Weights, device: str, times: int) -> list[float]:
    def swap(leaves: Weights, comes: Weights) -> None:
        leaves.leave(device)
        comes.bring(device)

    pairs = [(some, others), (others, some)]
    return [timed(lambda pair=pairs[turn % 2]: swap(*pair), device) for turn in range(times)]


def _layers(bench: Bench, count: int, width: int) -> Any:
    """A stack of layers with other numbers in each, of half a gigabyte and more on a card."""
    import torch

    width = width if bench.is_cuda else 64
    stack = torch.nn.Sequential()
    for index in range(count if bench.is_cuda else 3):
        layer = torch.nn.Linear(width, width, bias=False, device="meta", dtype=torch.bfloat16).to_empty(device="cpu")
        numbers = torch.arange(width * width, dtype=torch.int32).add_(index).to(torch.int16)
        layer.weight.data.view(torch.int16).copy_(numbers.view(width, width))
        stack.append(layer)
    return stack.requires_grad_(False)  # noqa: FBT003  # torch's own name


def _wrong(weights: Weights, device: str) -> bool:
    import torch

    weights.bring(device)
    pairs = zip(weights.on("cpu").parameters(), weights.on(device).parameters(), strict=True)
    wrong = not all(torch.equal(here.view(torch.int16), there.cpu().view(torch.int16)) for here, there in pairs)
    weights.leave(device)
    return wrong


@contextmanager
def _computing(bench: Bench) -> Iterator[list[tuple[float, float]]]:
    """A thread that computes and allocates all the time; yields when each of its passes began and ended."""
    import torch

    steps: list[tuple[float, float]] = []
    stop = threading.Event()
    side = 4096 if bench.is_cuda else 64
    matrix = torch.rand(side, side, dtype=torch.bfloat16, device=bench.device)

    def work() -> None:
        while not stop.is_set():
            start = perf_counter()
            product = matrix
            for _ in range(60):
                product = torch.nn.functional.gelu(product @ matrix)
            if bench.is_cuda:
                torch.cuda.current_stream(bench.device).synchronize()
            steps.append((start, perf_counter()))

    thread = threading.Thread(target=work)
    thread.start()
    try:
        while len(steps) < 3:  # the first passes load kernels
            threading.Event().wait(0.05)
        yield steps
    finally:
        stop.set()
        thread.join()


def _within(steps: list[tuple[float, float]], span: tuple[float, float]) -> list[float]:
    return [end - start for start, end in steps if span[0] <= start and end <= span[1]]
