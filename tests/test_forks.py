"""A process that forks while it draws: the child draws with a studio of its own, and the parent goes on."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = """
import os, sys, threading, time
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

drawn, when = [], sys.argv[2]
thread = threading.Thread(target=draw)
thread.start()
assert busy.wait(120)
if when == "after":
    thread.join()

def child():
    try:
        parent.route_and_generate("a red heart", seed=1)
    except LoadError as error:
        assert "another process" in str(error), error
    else:
        raise AssertionError("the parent's studio draws in the child")
    with studio("child") as mine:
        return mine.route_and_generate("a red heart", seed=1, num_inference_steps=4).image.tobytes()

if sys.argv[3] == "fork":
    read, write = os.pipe()
    if os.fork() == 0:
        os.write(write, child())
        os._exit(0)
    os.close(write)
    picture = b"".join(iter(lambda: os.read(read, 65536), b""))
else:
    import multiprocessing
    with multiprocessing.get_context("fork").Pool(1) as pool:
        picture = pool.apply_async(child).get(100)
going.set()
thread.join()
assert drawn[0].image.tobytes() == picture
parent.close()
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
@pytest.mark.parametrize(("when", "how"), [("while", "fork"), ("after", "fork"), ("while", "multiprocessing")])
def test_a_forked_child_draws_with_a_studio_of_its_own(tmp_path: Path, when: str, how: str) -> None:
    """The parent's studio refuses in the child; a new one draws the same picture, also while the parent draws."""
    arguments = [sys.executable, "-W", "ignore", "-c", PROGRAM, str(tmp_path), when, how]
    environment = {**os.environ, "OMP_NUM_THREADS": "2"}
    done = subprocess.run(  # our own program
        arguments, capture_output=True, text=True, env=environment, timeout=240, check=False
    )
    assert done.returncode == 0, done.stderr
