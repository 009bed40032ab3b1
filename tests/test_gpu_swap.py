"""The benchmark of swaps runs on any machine, and reports what it cannot measure."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"


def test_the_benchmark_runs_small_without_a_gpu() -> None:
    """Every component of a model is loaded in every way, its bits are compared, and the table can be pasted."""
    table = _run("--model", "sdxl", "--device", "cpu:1", "--scale", "0.01", "--repeat", "1").splitlines()
    assert table[0].startswith("## 20")
    assert "diffusers" in table[2]
    header, rule, *rows = (line.split("|") for line in table if line.count("|") > 10)
    assert {len(row) for row in (header, rule, *rows)} == {len(header)}
    assert [row[1].strip() for row in rows] == [
        "SDXL UNet",
        "SDXL CLIP L",
        "SDXL CLIP bigG",
        "SDXL VAE",
        "**sdxl, all**",
    ]
    assert [row[-2].strip() for row in rows] == ["yes"] * 5


def test_a_wrong_bit_on_the_device_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two modules count as equal only if each tensor has the same bits, including the sign of a zero."""
    import torch

    monkeypatch.syspath_prepend(BENCHMARKS)
    from gpu_swap import _equal

    one, other = (torch.nn.Linear(3, 2, bias=False) for _ in range(2))
    other.weight.data.copy_(one.weight.data).view(-1)[0] = one.weight.data.view(-1)[0] = 0.0
    assert _equal(one, other)
    other.weight.data[0, 0] = -0.0
    assert not _equal(one, other)


def test_without_a_gpu_it_says_so() -> None:
    """Without a link there are no figures and no failure."""
    import torch

    if torch.cuda.is_available():
        pytest.skip("there is a GPU here")
    assert _run("--model", "both") == "No CUDA device here, so there is no link to measure.\n"


def _run(*options: str) -> str:
    command = [sys.executable, str(BENCHMARKS / "gpu_swap.py"), *options]
    environment = {**os.environ, "PYTHONPATH": str(BENCHMARKS.parent)}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment, timeout=200)
    assert done.returncode == 0, done.stderr
    return done.stdout
