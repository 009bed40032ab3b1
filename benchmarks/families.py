"""Measures what drawing through this package costs beside the same call of diffusers, for each family.

Both draw the same picture of the same loaded miniature in turn: directly, with a scheduler of its own as diffusers'
server examples make it, and through the cache and the backend, from the lease to the picture. Seconds are those of
the processor in the calling thread, and figures are the least of several: what else runs on the machine only adds.

    python benchmarks/families.py
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

import torch  # noqa: E402  # after the number of threads is set
from miniatures import ARCHITECTURES, make_miniature, miniature_settings  # noqa: E402

from diffusiongpt.backends.diffusers import DiffusersBackend, plan_call  # noqa: E402
from diffusiongpt.cache import ModelCache  # noqa: E402
from diffusiongpt.flow import Call  # noqa: E402
from diffusiongpt.settings import load_settings  # noqa: E402
from diffusiongpt.zoo import Expert  # noqa: E402

if TYPE_CHECKING:
    from collections.abc import Callable

MOST_MS = 5.0
"""Milliseconds of a picture that may be ours."""

MOST_SHARE = 0.01
"""Share of a picture of `LONG_S` or more that may be ours."""

LONG_S = 2.0

LONG_FAMILY = "sd15"
"""The family of which a long picture is drawn, by more steps."""

PROMPT = "a red fox in the snow"


def main() -> int:
    """Measure, print a table, and return 1 if a mark is missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pictures", type=int, default=25, help="pictures of each family, each way")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    missed = 0
    print("| family | directly, ms | ours, ms | more, ms | mark |")
    print("|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as place:
        for name in ARCHITECTURES:
            direct, ours = measure(name, Path(place), arguments.pictures)
            missed += show(name, direct, ours, passes=ours - direct <= MOST_MS / 1000)
        direct, ours = measure(LONG_FAMILY, Path(place), 3, at_least_s=LONG_S)
        more = ours / direct - 1
        missed += show(f"{LONG_FAMILY}, a long picture ({more:+.2%})", direct, ours, passes=more <= MOST_SHARE)
    return int(missed > 0)


def show(what: str, direct: float, ours: float, *, passes: bool) -> int:
    """Print a row; 1 if it misses its mark."""
    cells = (what, f"{1000 * direct:.1f}", f"{1000 * ours:.1f}", f"{1000 * (ours - direct):+.1f}")
    print(f"| {' | '.join(cells)} | {'pass' if passes else 'MISSED'} |", flush=True)
    return int(not passes)


def measure(name: str, place: Path, pictures: int, *, at_least_s: float = 0.0) -> tuple[float, float]:
    """The least seconds of a picture directly and through the package.

    Args:
        name: The architecture.
        place: Where miniatures are written.
        pictures: How many pictures each way.
        at_least_s: Seconds that a picture takes directly; steps are added until it does.
    """
    folder = place / name
    if not folder.exists():
        make_miniature(name, folder)
    who = Expert(id=name, repo=str(folder), architecture=name, settings=miniature_settings(name))
    cache, backend = ModelCache(load_settings(home=place / "home", hub_cache=place / "hub")), DiffusersBackend()
    steps = who.settings.num_inference_steps or 2
    with cache.lease(who, backend, device="cpu") as loaded:

        def directly() -> Any:
            return call_diffusers(loaded.model.pipe, who, steps)

        while at_least_s and seconds(directly) < at_least_s:
            steps *= 2

        def through() -> Any:
            with cache.lease(who, backend, device="cpu") as held:
                return backend.draw(held, call_of(who, steps)).images[0]

        if directly().tobytes() != through().tobytes():
            raise SystemExit(f"{name}: the two ways draw different pictures, so their times say nothing")
        rounds = [(seconds(directly), seconds(through)) for _ in range(pictures)]
    cache.close()
    return min(one for one, _ in rounds), min(ours for _, ours in rounds)


def call_of(who: Expert, steps: int) -> Call:
    """The call of an expert, as it is resolved from a prompt."""
    settings = who.settings
    own = {"width": settings.width, "height": settings.height, "num_inference_steps": steps, **settings.extra}
    return Call(expert=who, prompt=PROMPT, negative_prompt="", seeds=(7,), arguments=own)


def call_diffusers(pipe: Any, who: Expert, steps: int) -> Any:
    """The same call, as a user of diffusers writes it."""
    arguments = dict(PLANNED.setdefault((who.id, steps), plan_call(pipe, call_of(who, steps)).arguments))
    pipe.scheduler = type(pipe.scheduler).from_config(pipe.scheduler.config)
    with torch.inference_mode(), torch.random.fork_rng(devices=[]):
        torch.manual_seed(7)
        return pipe(generator=torch.Generator("cpu").manual_seed(7), **arguments).images[0]


PLANNED: dict[tuple[str, int], Any] = {}
"""Arguments that fit each pipeline, made once: a user of diffusers writes them down."""


def seconds(work: Callable[[], Any]) -> float:
    """Processor seconds of this thread that a piece of work takes."""
    start = time.thread_time()
    work()
    return time.thread_time() - start


if __name__ == "__main__":
    sys.exit(main())
