"""How much of this machine's memory packed weights take, measured in separate processes."""

from __future__ import annotations

import gc
import json
import subprocess
import sys
import weakref
from pathlib import Path
from textwrap import dedent
from typing import Any

import pytest

from diffusiongpt.weights import HostBlock, Weights, send

pytestmark = pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads the memory from Linux")

MIB = 1 << 20

PRELUDE = """
import gc, json, sys, tempfile
from pathlib import Path
import torch
from diffusiongpt.weights.module import Weights

torch.set_grad_enabled(False)

def memory(key="RssAnon"):
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(key + ":"))

def highest(begin=False):
    if begin:
        Path("/proc/self/clear_refs").write_text("5")
    return memory("VmHWM")

def layers(count, width, dtype=torch.float32):
    return torch.nn.Sequential(*(torch.nn.Linear(width, width, bias=False, dtype=dtype) for _ in range(count)))
"""


def test_memory_comes_back_from_every_place() -> None:
    """A copy that is freed returns its bytes, and after `free` nothing is left, although modules are still held."""
    seen = _measure(
        """
        module = layers(100, 512)
        held = list(module.parameters())
        weights = Weights.pack(module)
        seen = [memory()]
        for _ in range(3):
            weights.bring("cpu:1")
            seen.append(memory())
            weights.leave("cpu:1")
            seen.append(memory())
        weights.bring("cpu:1")
        twin = weights.on("cpu:1")
        weights.leave("cpu")
        seen.append(memory())
        weights.free()
        seen.append(memory())
        print(json.dumps({"seen": seen, "nbytes": weights.nbytes}))
        """
    )
    copies = [round((one - seen["seen"][0]) / seen["nbytes"], 1) + 1 for one in seen["seen"]]
    wanted = [1, 2, 1, 2, 1, 2, 1, 1, 0]
    assert copies == pytest.approx(wanted, abs=0.2)


@pytest.mark.parametrize("count", [20, 3000], ids=["large tensors", "small tensors"])
def test_packing_never_needs_a_second_copy(count: int) -> None:
    """Loaded from safetensors in another type, as most checkpoints are, 200 MB of weights are packed within 300 MB."""
    seen = _measure(
        f"""
        from safetensors.torch import load_file, save_file

        count = {count}
        width = int((200e6 / 2 / count) ** 0.5)
        file = tempfile.mktemp()
        save_file({{f"{{i}}.weight": torch.ones(width, width) for i in range(count)}}, file)
        with torch.device("meta"):
            module = layers(count, width)
        state = {{name: tensor.to(torch.float16) for name, tensor in load_file(file).items()}}
        Path(file).unlink()
        gc.collect()
        module.load_state_dict(state, assign=True)
        del state
        before = highest(begin=True)
        weights = Weights.pack(module)
        print(json.dumps({{"more": highest() - before, "after": memory("VmRSS") - before, "nbytes": weights.nbytes}}))
        """
    )
    assert 150 * MIB < seen["nbytes"] < 230 * MIB
    assert seen["more"] < seen["nbytes"] / 2
    assert seen["after"] < seen["nbytes"] / 5


def test_nothing_keeps_freed_weights() -> None:
    """The objects are freed when their holders are: no registry of ours and no cycle keeps a copy."""
    import torch

    blocks: list[weakref.ref[Any]] = []

    def watched_send(host: HostBlock, pieces: Any, device: str) -> Any:
        sent, wait = send(host, pieces, device)
        blocks.extend(weakref.ref(one) for one in (host, *sent))
        return sent, wait

    module = torch.nn.Sequential(torch.nn.Linear(8, 8))
    weights = Weights.pack(module, send=watched_send)
    weights.bring("cpu:1")
    watched = [weakref.ref(module), weakref.ref(weights.on("cpu:1"))]
    weights.free()
    assert [block() for block in blocks] == [None, None]
    assert {tensor.numel() for one in watched for tensor in one().parameters()} == {0}
    del module, weights
    gc.collect()
    assert [one() for one in watched] == [None, None]


def _measure(body: str) -> dict[str, Any]:
    done = subprocess.run(
        [sys.executable, "-c", PRELUDE + dedent(body)], capture_output=True, text=True, check=False, timeout=200
    )
    assert done.returncode == 0, done.stderr
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer
