"""The README and the documentation match the code: every block in them is run."""

from __future__ import annotations

import re
import shlex
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner

import diffusiongpt
from diffusiongpt.apps.cli import app
from diffusiongpt.testing import TINY_FOLDER

ROOT = Path(__file__).parents[1]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")])


@pytest.fixture
def reader(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A reader's folder, with the tiny zoo as the default zoo."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DIFFUSIONGPT_ZOO", "tiny")
    monkeypatch.setenv("DIFFUSIONGPT_HOME", str(tmp_path / "home"))
    diffusiongpt._made_studio.cache_clear()
    yield tmp_path
    diffusiongpt._default_studio().close()
    diffusiongpt._made_studio.cache_clear()


def blocks(page: Path, language: str) -> list[str]:
    """Fenced blocks of one language."""
    return re.findall(rf"^```{language}\n(.*?)^```$", page.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)


@pytest.mark.parametrize("page", [page for page in PAGES if blocks(page, "python")], ids=lambda page: page.name)
def test_python_blocks_run(page: Path, reader: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A reader who copies the blocks of a page, top to bottom, sees no error."""
    namespace: dict[str, object] = {}
    for block in blocks(page, "python"):
        exec(compile(block, page.name, "exec"), namespace)  # noqa: S102 - our own documentation
    studio = namespace.get("studio")
    if isinstance(studio, diffusiongpt.DiffusionGPT):
        studio.close()
    assert capsys.readouterr().out
    assert reader.is_dir()


def test_readme_commands_run(reader: Path) -> None:
    """All diffusiongpt commands of the README work as written, in their order."""
    readme = ROOT / "README.md"
    (reader / "mine.yaml").write_text(blocks(readme, "yaml")[0], encoding="utf-8")
    shutil.copytree(TINY_FOLDER / "sketch", reader / "my-papercut-checkpoint")
    commands = re.findall(r"^\$ diffusiongpt (.+)$", "".join(blocks(readme, "console")), re.MULTILINE)
    assert len(commands) >= 8
    for command in commands:
        compared = sorted(path.name for path in (reader / "pictures").glob("*-[AB]-*.png"))
        for name, picture in zip(("BEST.png", "OTHER.png"), compared, strict=False):
            command = command.replace(name, picture)  # noqa: PLW2901 - the reader's own file names
        result = CliRunner().invoke(app, shlex.split(command))
        assert result.exit_code == 0, f"{command}\n{result.output}"


@pytest.mark.parametrize(("page", "files"), [("zoo.md", 4), ("hosted.md", 2)])
def test_a_page_shows_valid_files(reader: Path, page: str, files: int) -> None:
    """Each zoo file that a page shows is accepted by the check."""
    shown = blocks(ROOT / "docs" / page, "yaml")
    assert len(shown) == files
    for text in shown:
        (reader / "page.yaml").write_text(text, encoding="utf-8")
        result = CliRunner().invoke(app, ["zoo", "check", "page.yaml"])
        assert result.exit_code == 0, result.output


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    """A relative link names a file that exists."""
    targets = re.findall(r"\]\((?!https?://)([^)#]+)\)", page.read_text(encoding="utf-8"))
    missing = [target for target in targets if not (page.parent / target).exists()]
    assert not missing
