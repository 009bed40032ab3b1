"""Checks a built wheel: what is in it, and that it draws when installed on its own.

python tests/check_wheel.py dist
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

NEEDED = (
    "diffusiongpt/model_zoo.yaml",
    "diffusiongpt/zoo/taxonomy.yaml",
    "diffusiongpt/backends/diffusers/architectures.yaml",
    "diffusiongpt/py.typed",
    "diffusiongpt/zoo/tiny/zoo.yaml",
    "diffusiongpt/zoo/tiny/judge.safetensors",
    "diffusiongpt/apps/server/page/index.html",
    "diffusiongpt/apps/server/page/page.js",
    "diffusiongpt/apps/server/page/strings.json",
)
MAX_WEIGHTS = 16_000_000
"""Bytes of weights that a wheel may carry."""


def check_contents(wheel: Path) -> None:
    """Exit if something is missing or too heavy."""
    with zipfile.ZipFile(wheel) as archive:
        sizes = {item.filename: item.file_size for item in archive.infolist()}
    missing = [name for name in NEEDED if name not in sizes]
    weights = sum(size for name, size in sizes.items() if name.endswith(".safetensors"))
    stray = [name for name in sizes if not name.startswith(("diffusiongpt/", "diffusiongpt-"))]
    if missing or stray or weights > MAX_WEIGHTS:
        sys.exit(f"{wheel.name}: missing {missing}, stray {stray}, {weights:,} bytes of weights")
    sys.stdout.write(f"{wheel.name}: {len(sizes)} files, {weights / 1e6:.1f} MB of weights\n")


def check_draws(wheel: Path) -> None:
    """Exit if the installed wheel, away from the checkout, does not draw."""
    with tempfile.TemporaryDirectory() as folder:
        site, work = Path(folder) / "site", Path(folder) / "work"
        work.mkdir()
        install = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps"]
        subprocess.run([*install, "--target", str(site), str(wheel)], check=True)
        environment = {**os.environ, "PYTHONPATH": str(site), "DIFFUSIONGPT_HOME": str(Path(folder) / "home")}
        command = [sys.executable, "-m", "diffusiongpt", "generate", "8-bit red heart", "--zoo", "tiny", "--json"]
        done = subprocess.run(command, check=True, cwd=work, env=environment, capture_output=True, text=True)
        drawn = json.loads(done.stdout)
        where = [sys.executable, "-c", "import diffusiongpt; print(diffusiongpt.__file__)"]
        home = subprocess.run(where, check=True, cwd=work, env=environment, capture_output=True, text=True).stdout
        if not home.startswith(str(site)) or not (work / drawn["images"][0]).is_file():
            sys.exit(f"{wheel.name}: drew {drawn['images']} with {home}")
    sys.stdout.write(f"{wheel.name}: installed apart, drew with {drawn['drawn_by']}\n")


if __name__ == "__main__":
    [newest] = sorted(Path(sys.argv[1]).glob("*.whl"), key=lambda path: path.stat().st_mtime)[-1:]
    check_contents(newest)
    check_draws(newest)
