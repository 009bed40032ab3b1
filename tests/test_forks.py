"""A process that forks: the child never waits without end, and the parent goes on."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest

PROGRAM = """
import multiprocessing, sys, threading
from pathlib import Path
from diffusiongpt import DiffusionGPT, LoadError
from diffusiongpt.settings import load_settings

home = Path(sys.argv[1])

def studio(name):
    settings = load_settings(home=home / name, hub_cache=home / "hub", device="cpu")
    return DiffusionGPT("tiny", settings=settings, votes=home / f"{name}.db")

parent = studio("parent")
busy, going = threading.Event(), threading.Event()

def draw():
    def step(pipe, step, timestep, kwargs):
        busy.set()
        if when == "while":
            going.wait(60)
        return kwargs
    drawn.append(parent.route_and_generate("a red heart", seed=1, num_inference_steps=4, callback_on_step_end=step))

def refused(studio):
    try:
        studio.route_and_generate("a red heart", seed=1)
    except LoadError as error:
        return "forked" in str(error) and "spawn" in error.hint
    return False

def child():
    route = parent.route("a red heart").expert
    with studio("child") as mine:
        if when == "before":
            assert refused(parent)
            return route, mine.route_and_generate("a red heart", seed=1, num_inference_steps=4).image.tobytes()
        return route, refused(parent) and refused(mine)

def in_child():
    with multiprocessing.get_context("fork").Pool(1) as pool:
        return pool.apply_async(child).get(100)

drawn, when = [], sys.argv[2]
thread = threading.Thread(target=draw)
if when == "before":
    result = in_child()
thread.start()
assert busy.wait(120)
if when == "after":
    thread.join()
if when != "before":
    result = in_child()
going.set()
thread.join()
expected = drawn[0].image.tobytes() if when == "before" else True
assert result == (drawn[0].route.expert, expected), result[0]
parent.close()
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
@pytest.mark.parametrize("when", ["before", "while", "after"])
def test_a_forked_child_draws_or_says_at_once_that_it_cannot(tmp_path: Path, when: str) -> None:
    """Forked before the first drawing, a child draws the same picture; later it routes, and refuses to draw."""
    program = subprocess.Popen(
        [sys.executable, "-W", "ignore", "-c", PROGRAM, str(tmp_path), when],
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "2"},
        start_new_session=True,
    )
    try:
        _, err = program.communicate(timeout=150)
    finally:
        # children, too
        with suppress(ProcessLookupError):
            os.killpg(program.pid, signal.SIGKILL)
    assert program.returncode == 0, err
