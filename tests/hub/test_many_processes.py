"""Many processes of one node that want the same checkpoint at once, as the replicas of a fleet that starts cold."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from fixtures_cache import UNET

from diffusiongpt.testing import Fault, LocalHub

if TYPE_CHECKING:
    from diffusiongpt.settings import Settings

PROCESSES = 10

# what is imported is imported once: the processes are its children
_PULLS = """
import os, sys
sys.path.insert(0, sys.argv[4])
from pathlib import Path
from miniature import expert
from diffusiongpt.backends import get_backend
from diffusiongpt.hub import Puller
from diffusiongpt.settings import load_settings
backend = get_backend("diffusers")
children = []
for _ in range(int(sys.argv[5])):
    child = os.fork()
    if not child:
        settings = load_settings(home=Path(sys.argv[1]), hub_cache=Path(sys.argv[2]), hub_endpoint=sys.argv[3])
        folder = Puller(settings).ensure(expert("t/sd"), backend)
        os._exit(0 if (folder / "model_index.json").exists() else 1)
    children.append(child)
sys.exit(sum(os.waitpid(child, 0)[1] != 0 for child in children))
"""


def test_ten_processes_that_start_cold_make_one_download(hub: LocalHub, online: Settings) -> None:
    """Each has the checkpoint, and no byte of its weights was sent twice, though all asked while it was under way."""
    hub.fail(Fault(match=UNET, bytes_per_s=200_000))
    here = Path(__file__).parents[1]
    arguments = [str(online.home), str(online.hub_cache), hub.url, str(here), str(PROCESSES)]
    environment = {**os.environ, "PYTHONPATH": str(here.parent)}
    done = subprocess.run(
        [sys.executable, "-c", _PULLS, *arguments], env=environment, check=False, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    folder = hub.repo("t/sd").folder  # type: ignore[union-attr]
    weights = {name: size for name, size in hub.downloads["t/sd"].items() if name.endswith(".safetensors")}
    assert weights == {name: (folder / name).stat().st_size for name in weights}
    assert UNET in weights
