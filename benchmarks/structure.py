"""The floor plan in figures: entries at the top, modules, small modules with one importer, circles, back edges, lines.

Run it as `python benchmarks/structure.py`; it reads the source and runs nothing of it. Circles and back edges are those
that import-linter finds with the contracts of `.importlinter`.
"""

from __future__ import annotations

import re
import subprocess
import sys
from collections import defaultdict
from pathlib import Path

import grimp

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "diffusiongpt"

SMALL = 80
"""Lines below which a module with a single importer has to be worth its own name."""


def main() -> None:
    """Print one row per figure."""
    graph = grimp.build_graph("diffusiongpt", cache_dir=None)
    files = {name_of(path): path for path in PACKAGE.rglob("*.py")}
    importers = importers_of(graph, files)
    small = sorted(
        f"{name.removeprefix('diffusiongpt.')} ({count} lines)"
        for name, path in files.items()
        if path.name not in ("__init__.py", "__main__.py")
        and (count := lines_of(path)) < SMALL
        and len(importers[name]) == 1
    )
    entries = [path for path in PACKAGE.iterdir() if path.name != "__pycache__"]
    circles, back_edges = broken()
    print(f"entries at the top of diffusiongpt/               {len(entries)}")
    print(f"modules                                           {len(files)}")
    print(f"with one importer and under {SMALL} lines              {len(small)}: {', '.join(small)}")
    print(f"import circles                                    {circles}")
    print(f"back edges                                        {back_edges}")
    print(f"lines of Python in the package                    {sum(map(lines_of, files.values())):,}")
    names = defaultdict(list)
    for path in files.values():
        names[path.name].append(path)
    shared = {name: len(paths) for name, paths in names.items() if len(paths) > 1 and name != "__init__.py"}
    print(f"file names that occur in several rooms            {len(shared)}: {', '.join(sorted(shared))}")


def importers_of(graph: grimp.ImportGraph, files: dict[str, Path]) -> dict[str, set[str]]:
    """Module -> modules that import it, directly or through the face of its room; the face itself does not count."""
    direct = {name: set(graph.find_modules_that_directly_import(name)) & set(files) for name in files}
    found = {}
    for name, users in direct.items():
        faces = {user for user in users if files[user].name == "__init__.py" and name.startswith(f"{user}.")}
        through = {
            user
            for face in faces
            for user in direct[face]
            if re.search(rf"\b({'|'.join(public_names(files[name]))})\b", files[user].read_text(encoding="utf-8"))
        }
        found[name] = (users - faces) | through
    return found


def public_names(path: Path) -> list[str]:
    """Classes, functions and constants that a module defines."""
    text = path.read_text(encoding="utf-8")
    found = re.findall(r"^(?:(?:class|def|async def) (\w+)|([A-Z]\w*)\b[^=\n]*=)", text, re.MULTILINE)
    return [definition or constant for definition, constant in found] or [path.stem]


def broken() -> tuple[int, int]:
    """Circles among the files of a room, and imports of a higher room."""
    code = "import sys; from importlinter.cli import lint_imports_command as run; sys.argv[1:] = ['--no-cache']; run()"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    return done.stdout.count("No cycles are allowed in"), done.stdout.count("is not allowed to import")


def name_of(path: Path) -> str:
    """Dotted name of a module."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def lines_of(path: Path) -> int:
    """Lines of a file."""
    return len(path.read_text(encoding="utf-8").splitlines())


if __name__ == "__main__":
    main()
