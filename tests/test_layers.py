"""A tool enforces the layers of the package, and it detects what breaks them."""

from __future__ import annotations

import ast
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

BEHIND_THEIR_FACE = {"diffusiongpt.votes.database", "diffusiongpt.votes.schema"}
"""What a face leaves out, because importing it would load SQLAlchemy for those who have no votes."""


def lint_imports(folder: Path) -> subprocess.CompletedProcess[str]:
    """Run import-linter on the package in a folder, with the contracts of this repository."""
    code = "import sys; from importlinter.cli import lint_imports_command as run; sys.argv[1:] = ['--no-cache']; run()"
    return subprocess.run([sys.executable, "-c", code], cwd=folder, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def scratch(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the package's modules and of the contracts."""
    folder = tmp_path_factory.mktemp("layers")
    shutil.copytree(ROOT / "diffusiongpt", folder / "diffusiongpt", ignore=shutil.ignore_patterns("*.safetensors"))
    shutil.copy(ROOT / ".importlinter", folder)
    return folder


def test_the_house_keeps_its_layers(scratch: Path) -> None:
    """No room imports a higher one, no files of a room import each other in a circle, and deciding needs no torch."""
    done = lint_imports(scratch)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize(
    ("module", "line", "broken"),
    [
        ("flow/request.py", "from diffusiongpt.routing import search", "imports only rooms below"),
        ("routing/search.py", "from diffusiongpt.drawing import resolve", "imports only rooms below"),
        ("routing/search.py", "from diffusiongpt.routing import router", "in one direction"),
        ("ranking/priors.py", "import torch", "no model library"),
        ("newroom.py", "", "imports only rooms below"),
    ],
)
def test_a_wrong_import_is_seen(scratch: Path, module: str, line: str, broken: str) -> None:
    """It detects an upward import, one between siblings, a circle, forbidden torch, and a room without a layer."""
    file = scratch / "diffusiongpt" / module
    before = file.read_text(encoding="utf-8") if file.exists() else None
    file.write_text(f"{before or ''}\n\ndef wrong() -> None:\n    {line or 'pass'}\n", encoding="utf-8")
    try:
        done = lint_imports(scratch)
    finally:
        if before is None:
            file.unlink()
        else:
            file.write_text(before, encoding="utf-8")
    assert done.returncode != 0
    assert broken in " ".join(done.stdout.split()) or "newroom" in done.stdout


def faces_passed_by(package: Path) -> list[str]:
    """Imports of a file of another room where the face of that room would have done."""
    modules = {".".join(path.relative_to(package.parent).with_suffix("").parts): path for path in package.rglob("*.py")}
    found = []
    for name, path in modules.items():
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if not isinstance(node, ast.ImportFrom) or node.module not in modules:
                continue
            room = node.module.rpartition(".")[0]
            inside = name.startswith(f"{'.'.join(node.module.split('.')[:2])}.")
            if room != "diffusiongpt" and not inside and node.module not in BEHIND_THEIR_FACE:
                found.append(f"{name} imports {node.module}")
    return found


def test_rooms_speak_through_their_faces() -> None:
    """Files of a room import each other; all others import the room."""
    assert faces_passed_by(ROOT / "diffusiongpt") == []
