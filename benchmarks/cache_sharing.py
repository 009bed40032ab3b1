"""How many bytes a pool of fine-tunes takes on disk, on the host and on a device, relative to its unique bytes."""

from __future__ import annotations

import gc
import hashlib
import json
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

from cache_rows import Row, in_fresh_process
from fine_tunes import SHAPES, write_pool

from diffusiongpt.backends.diffusers import DiffusersBackend
from diffusiongpt.cache import ModelCache
from diffusiongpt.hub import Puller
from diffusiongpt.settings import Settings, load_settings
from diffusiongpt.testing import LocalHub
from diffusiongpt.zoo import CallSettings, Expert, License

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from miniatures import make_miniature  # the tests' own miniatures are measured here too

FLOOR = 1.01
GOAL = 1.00
DEVICE = "cpu:1"
"""Host memory that is treated as a separate device."""

_ITEM = {"F32": 4, "F16": 2, "BF16": 2}
_PLENTY = 1 << 40


def rows(number: int = 12) -> Iterable[Row]:
    """Measure every pool; a pool is on disk only while it is measured."""
    for architecture in SHAPES:
        with TemporaryDirectory() as scratch:
            yield from _pool_rows(architecture, Path(scratch), number)


def _pool_rows(architecture: str, scratch: Path, number: int) -> Iterable[Row]:
    folders = write_pool(architecture, scratch / "served", number)
    served = [path for folder in folders for path in folder.glob("**/*") if path.is_file()]
    unique = _by_content(served)
    whole = sum(path.stat().st_size for path in served)
    name = f"{number} x {architecture}"
    reference = whole / sum(unique.values())
    yield Row(measure=f"{name}: all copies / unique bytes", figure=reference, note="the ratio without sharing")
    experts = [_expert(f"pool/{folder.name}") for folder in folders]
    with LocalHub({f"pool/{folder.name}": folder for folder in folders}) as hub:
        settings = load_settings(home=scratch / "home", hub_cache=scratch / "hub", hub_endpoint=hub.url)
        puller = Puller(settings)
        for expert in experts:
            puller.ensure(expert, DiffusersBackend())
        sent = sum(sum(files.values()) for files in hub.downloads.values())
    pulled = [path for folder in puller.pulled() for path in _snapshot(settings, folder.repo, folder.commit)]
    wanted = sum(_by_content(pulled).values())
    yield _row(f"{name}: disk", _on_disk(settings.hub_cache) / wanted, f"{wanted / 1e6:.0f} MB unique")
    yield _row(f"{name}: bytes downloaded from the hub", sent / wanted, "")
    weights = [path for path in pulled if path.suffix == ".safetensors"]
    for device, size in (("cpu", 4), (DEVICE, 2)):
        expected = _tensor_bytes(weights, size)
        ledgers, grown = in_fresh_process(_lease_all, settings, experts, architecture, device)
        for tier, resident in ledgers.items():
            where = "host" if tier == "host" else f"device {tier}"
            kind = "float32" if device == "cpu" else SHAPES[architecture].dtype
            yield _row(f"{name} drawn on {device}: {where}", resident / expected, f"{expected / 1e6:.0f} MB of {kind}")
        share = grown / (expected * len(ledgers))
        note = f"with {(grown - expected * len(ledgers)) / number / 1e6:.1f} MB of Python objects and heap for each"
        yield Row(measure=f"{name} drawn on {device}: growth of RssAnon", figure=share, note=note)


def resident_anonymous() -> int:
    """Bytes of this process that are not backed by a file, as Linux counts them."""
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return int(next(line for line in lines if line.startswith("RssAnon")).split()[1]) * 1024


def _lease_all(
    settings: Settings, experts: Sequence[Expert], architecture: str, device: str
) -> tuple[dict[str, int], int]:
    """Lease all; return the ledger's bytes by tier, and the number of bytes by which the process has grown."""
    import torch

    torch.set_num_threads(1)
    with TemporaryDirectory() as scratch:
        small = _expert(str(make_miniature(architecture, Path(scratch, "small"))))
        # what the libraries need for themselves is allocated before the measurement
        _lease(ModelCache(settings, budget_bytes=0), [small], device)
    cache = ModelCache(settings, budget_bytes=_PLENTY)
    before = resident_anonymous()
    _lease(cache, experts, device)
    gc.collect()
    grown = resident_anonymous() - before
    return {one.tier: one.resident for one in cache.explain().ledgers if one.tier != "disk"}, grown


def _lease(cache: ModelCache, experts: Iterable[Expert], device: str) -> None:
    for expert in experts:
        with cache.lease(expert, DiffusersBackend(), device=device):
            pass


def _row(measure: str, figure: float, note: str) -> Row:
    return Row(measure=measure, figure=figure, floor=FLOOR, goal=GOAL, note=note)


def _expert(repo: str) -> Expert:
    identity = repo.rsplit("/", 1)[-1].lower()
    return Expert(id=identity, repo=repo, license=License(id="none"), settings=CallSettings())


def _snapshot(settings: Settings, repo: str, commit: str) -> list[Path]:
    folder = settings.hub_cache / f"models--{repo.replace('/', '--')}" / "snapshots" / commit
    return [path for path in folder.glob("**/*") if path.is_file()]


def _by_content(paths: Iterable[Path]) -> dict[str, int]:
    """Hash -> bytes."""
    return {hashlib.sha256(path.read_bytes()).hexdigest(): path.stat().st_size for path in paths}


def _on_disk(folder: Path) -> int:
    """Bytes of all files, counting one with several names once, including the client's own notes."""
    stats = [path.stat() for path in folder.glob("**/*") if path.is_file() and not path.is_symlink()]
    return sum({(stat.st_dev, stat.st_ino): stat.st_size for stat in stats}.values())


def _tensor_bytes(weights: Iterable[Path], size: int) -> int:
    """Bytes of tensors of files with different content, each number at `size` bytes; not by the cache's own code."""
    first = {hashlib.sha256(path.read_bytes()).hexdigest(): path for path in weights}
    total = 0
    for path in first.values():
        raw = path.read_bytes()
        header = json.loads(raw[8 : 8 + int.from_bytes(raw[:8], "little")])
        for name, tensor in header.items():
            if name != "__metadata__":
                begin, end = tensor["data_offsets"]
                total += (end - begin) // _ITEM[tensor["dtype"]] * size
    return total
