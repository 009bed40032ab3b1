"""The backend that docs/hosted.md shows works as a package: found by its entry point, routed, paid, and drawn with."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

from diffusiongpt.testing import LocalServices

PAGE = Path(__file__).parents[2] / "docs" / "hosted.md"
LINES = 30

PROGRAM = """
import sys
from diffusiongpt import DiffusionGPT
from diffusiongpt.drawing import Spending
from diffusiongpt.settings import load_settings
settings = load_settings(home=sys.argv[1], device="cpu")
with DiffusionGPT("mine.yaml", settings=settings) as studio:
    print(studio.route("a fox", max_price=0.05).chosen.readiness)
    result = studio.route_and_generate("a fox", max_price=0.05, num_images_per_prompt=2, seed=3)
    print(result.drawn_by, len(result.images), result.image.size, Spending(settings).today())
"""


def shown(language: str) -> str:
    """The last block of that language on the page."""
    text = PAGE.read_text(encoding="utf-8")
    return str(re.findall(rf"^```{language}\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)[-1])


def run(folder: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """Draw in a process that has the package installed."""
    import os

    path = f"{folder}:{PAGE.parents[1]}"
    env = {**os.environ, "PYTHONPATH": path, **environment}
    command = [sys.executable, "-c", PROGRAM, str(folder / "home")]
    return subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, check=False, timeout=200)


def install(folder: Path) -> None:
    """Put the package of the page into a folder, as pip would."""
    (folder / "my_service.py").write_text(shown("python"), encoding="utf-8")
    facts = folder / "my_service-1.0.dist-info"
    facts.mkdir()
    (facts / "METADATA").write_text("Metadata-Version: 2.1\nName: my-service\nVersion: 1.0\n", encoding="utf-8")
    points = shown("toml").replace('[project.entry-points."diffusiongpt.backends"]', "[diffusiongpt.backends]")
    (facts / "entry_points.txt").write_text(points.replace('"', ""), encoding="utf-8")
    zoo = "experts:\n  - {id: mine, backend: my-service, repo: my-service/one, price: {usd: 0.04}}\n"
    (folder / "mine.yaml").write_text(zoo, encoding="utf-8")


def test_the_backend_of_the_page_draws(tmp_path: Path) -> None:
    """It is some thirty lines, and every picture is asked for by itself, within the limits of the user."""
    install(tmp_path)
    assert sum(bool(line.strip()) for line in shown("python").splitlines()) <= LINES

    def picture(handler: Any) -> None:
        from io import BytesIO

        from PIL import Image

        held = BytesIO()
        Image.effect_noise((64, 64), 50).save(held, format="PNG")
        handler.send(held.getvalue(), "image/png")

    with LocalServices() as services:
        services.fail("custom", answer=picture)
        done = run(tmp_path, MY_SERVICE_KEY="sesame", MY_SERVICE_URL=f"{services.url}/endpoint")
        assert done.stdout.splitlines() == ["loaded", "mine 2 (64, 64) 0.08"], done.stderr
        assert [request.body["seed"] for request in services.requests] == [3, 4]
        assert services.requests[0].key == "sesame"


def test_without_its_key_it_says_so(tmp_path: Path) -> None:
    """The route shows that it needs one."""
    install(tmp_path)
    done = run(tmp_path, MY_SERVICE_KEY="", MY_SERVICE_URL="http://127.0.0.1:9")
    assert done.stdout.splitlines()[0] == "needs_key"
