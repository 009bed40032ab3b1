"""A hook of MkDocs: the README is the first page, and what lies outside of docs/ is linked where the code is."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

ROOT = Path(__file__).parents[1]
_LINK = re.compile(r"(?<!!)\[([^\]]+)\]\((?!https?://|#)([^)]+)\)")


def on_files(files: Files, config: Any) -> Files:
    """Add the README as the first page."""
    text = _inside((ROOT / "README.md").read_text(encoding="utf-8"), "docs/").replace("](docs/", "](")
    files.append(File.generated(config, "index.md", content=text))
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Leave only the words of a link that leads out of the documentation: the site does not know where the code is."""
    return markdown if page.file.src_uri == "index.md" else _inside(markdown, "")


def _inside(text: str, folder: str) -> str:
    def link(found: re.Match[str]) -> str:
        leads_out = ".." in found[2] or not found[2].startswith(folder)
        return found[1] if leads_out else found[0]

    return _LINK.sub(link, text)
