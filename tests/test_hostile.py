"""The attacks are of one shape, and what measures them notices each way to fail."""

from __future__ import annotations

import importlib
import importlib.util
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from time import monotonic, process_time, sleep
from types import ModuleType

import pytest
from hostile import Attack
from hostile._clock import Clock

from diffusiongpt.errors import ZooError

FILE = Path(__file__).parents[1] / "benchmarks" / "hostile.py"


@pytest.fixture(scope="module")
def bench() -> ModuleType:
    """The benchmark, which has the name of the attacks it runs."""
    spec = importlib.util.spec_from_file_location("hostile_benchmark", FILE)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def test_every_module_attacks_and_repeats_itself(bench: ModuleType) -> None:
    """Each yields as many attacks as asked for, all different, and the same for the same seed."""
    assert {"edges", "pictures", "secrets_out", "zoo"} <= set(bench.modules())
    for name in bench.modules():
        module = importlib.import_module(f"hostile.{name}")
        first, again = ([one.name for one in module.attacks(3, 30)] for _ in range(2))
        assert len(first) == 30
        assert first == again
        assert all(isinstance(one, Attack) for one in module.attacks(3, 2))


def _raw(_: Path) -> None:
    raise KeyError("raw")


def _expected(_: Path) -> None:
    raise ZooError("of ours", hint="do that")


def _control(_: Path) -> None:
    os.write(1, b"\x1b[31m")


def _large(_: Path) -> None:
    assert bytearray(b"x" * 100_000_000)


@pytest.mark.parametrize(
    ("run", "failure"),
    [(_expected, ""), (_raw, "raised KeyError"), (_control, "control characters"), (_large, "MB")],
    ids=lambda one: getattr(one, "__name__", None),
)
def test_failures_are_noticed(bench: ModuleType, tmp_path: Path, run: Callable[[Path], None], failure: str,
                              monkeypatch: pytest.MonkeyPatch) -> None:  # fmt: skip
    """Raw exceptions, controls and memory are; an error of ours is none."""
    monkeypatch.chdir(tmp_path)
    found, _, _ = bench._run(Attack("test", "one", run), tmp_path / "one", tmp_path, bench.Watch(), 10.0)
    assert found == [] if not failure else failure in " ".join(found)


def test_secrets_are_noticed(bench: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Printed or written."""
    monkeypatch.chdir(tmp_path)

    def leak(folder: Path) -> None:
        (folder / "log").write_text(bench.CANARY, encoding="ascii")
        os.write(2, bench.CANARY.encode())

    found, _, _ = bench._run(Attack("test", "leak", leak), tmp_path / "leak", tmp_path, bench.Watch(), 10.0)
    assert set(found) == {"printed a secret", "wrote a secret into log"}


@pytest.mark.parametrize(
    ("event", "args", "seen"),
    [
        ("open", ("{out}/x", "w", 0), "wrote outside"),
        ("open", ("{out}/x", "r", 0), ""),
        ("open", ("{here}/x", "w", 0), ""),
        ("open", ("{here}/../x", "w", 0), "wrote outside"),
        ("os.rename", ("{here}/a", "{out}/b", -1, -1), "wrote outside"),
        ("os.symlink", ("../../somewhere", "{here}/link", -1), ""),
        ("socket.connect", (None, ("10.0.0.1", 80)), "spoke to"),
        ("socket.connect", (None, ("127.0.0.1", 80)), ""),
        ("subprocess.Popen", ("gs", ["gs"], None, None), "started a program"),
    ],
)
def test_what_leaves_the_folder_is_noticed(
    bench: ModuleType, tmp_path: Path, event: str, args: tuple[object, ...], seen: str
) -> None:
    """Writes outside, other machines, and other programs."""
    here, out = tmp_path / "here", tmp_path / "out"
    here.mkdir()
    out.mkdir()
    watch = bench.Watch(allowed=(f"{here}/",), on=True)
    watch(event, tuple(one.format(here=here, out=out) if isinstance(one, str) else one for one in args))
    assert seen in " ".join(watch.seen) if seen else not watch.seen


def test_killed_voters_lose_nothing(bench: ModuleType, place: Path | str) -> None:
    """What was acknowledged is there afterwards, in a file and in a database."""
    acknowledged, lost = bench.kill_voters(8, 1, place)
    assert acknowledged >= 4  # every second one is killed after its first
    assert lost == 0


def test_seconds_are_those_of_the_attack() -> None:
    """What other programs keep from it does not count; sleeping and computing do."""
    clock = Clock().start()
    others = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(2 * (os.cpu_count() or 1))]
    try:
        before, begun, computed = clock(), monotonic(), process_time()
        while process_time() < computed + 0.3:
            sum(range(1000))
        took, passed = clock() - before, monotonic() - begun
    finally:
        for one in others:
            one.kill()
            one.wait()
    assert 0.25 < took < (0.3 + passed) / 2
    before = clock()
    sleep(0.3)
    assert 0.25 < clock() - before < 5
