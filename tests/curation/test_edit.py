"""Changes to zoo files: shown first, never half written, never invalid, never over the changes of others."""

from __future__ import annotations

import os
import threading
from typing import TYPE_CHECKING

import pytest

from diffusiongpt.curation import ZooDraft, editable_layers
from diffusiongpt.errors import RequestError, ZooError, ZooFileChangedError
from diffusiongpt.files import replace_file
from diffusiongpt.settings import load_settings
from diffusiongpt.zoo import Node, Tags, Zoo

if TYPE_CHECKING:
    from pathlib import Path

    from diffusiongpt.settings import Settings

MINE = """\
# my zoo
schema_version: 1
experts:
  - id: fox   # the first
    repo: 'somebody/fox'
    tags: {styles: [watercolor]}

  - id: plain
    repo: somebody/plain
    description: "No tags yet"
"""
ENTRY = {"id": "new", "repo": "somebody/new", "tags": {"styles": ["anime"]}}


@pytest.fixture
def mine(tmp_path: Path) -> Path:
    """A zoo file with comments."""
    path = tmp_path / "mine.yaml"
    path.write_text(MINE, encoding="utf-8")
    return path


def added(path: Path, entry: dict[str, object] | None = None) -> ZooDraft:
    """The file with a further entry, not finished."""
    change = ZooDraft(path)
    change.add(entry or ENTRY)
    return change


def test_a_draft_shows_and_then_writes(mine: Path, settings: Settings) -> None:
    """Making a draft writes nothing; its diff has only new lines; writing adds them to the file."""
    draft = added(mine).finish()
    assert mine.read_text() == MINE
    changed = [line for line in draft.diff().splitlines()[2:] if line[0] in "+-"]
    assert changed == ["+", "+  - id: new", "+    repo: somebody/new", "+    tags: {styles: [anime]}"]
    draft.write(settings)
    assert mine.read_text() == MINE + "\n" + "\n".join(line[1:] for line in changed[1:]) + "\n"
    assert list(Zoo.load(mine)) == ["fox", "plain", "new"]
    assert [path.name for path in mine.parent.iterdir() if path.is_file()] == ["mine.yaml"]


def test_a_missing_file_is_created(tmp_path: Path, settings: Settings) -> None:
    """A new file, in new folders, is a complete zoo file."""
    path = tmp_path / "deep" / "er" / "zoo.yaml"
    draft = added(path).finish()
    assert draft.diff().startswith("--- /dev/null")
    draft.write(settings)
    assert list(Zoo.load(path)) == ["new"]


@pytest.mark.parametrize(
    ("entry", "message", "hint"),
    [
        ({"id": "other", "repo": "somebody/fox"}, "the repository somebody/fox already, as fox", "zoo show fox"),
        ({"id": "fox", "repo": "somebody/else"}, "an expert called fox already", "--id"),
        ({"id": "new", "repo": "a/b", "tags": {"styles": ["animee"]}}, "is not a style", "'anime'"),
        ({"id": "New One", "repo": "a/b"}, "id", "New One"),
        ({"id": "new", "repo": "a/b", "licence": "mit"}, "unknown key", "'license'"),
    ],
)
def test_an_invalid_change_is_refused(mine: Path, entry: dict[str, object], message: str, hint: str) -> None:
    """An entry that exists already, or that the check would refuse, is a typed error and the file stays."""
    with pytest.raises(ZooError) as caught:
        added(mine, entry).finish()
    assert message in str(caught.value)
    assert hint in caught.value.hint
    assert mine.read_text() == MINE


@pytest.mark.parametrize("text", ["- a\n", "", "experts: [", "experts: [{id: a}]\n", "\xff"])
def test_what_is_not_a_zoo_is_not_touched(tmp_path: Path, text: str) -> None:
    """A file that is not a zoo file is an error at once, and keeps its bytes."""
    path = tmp_path / "x.yaml"
    path.write_bytes(text.encode("latin-1"))
    with pytest.raises(ZooError) as caught:
        ZooDraft(path)
    assert caught.value.hint
    assert path.read_bytes() == text.encode("latin-1")


def test_files_with_anchors_are_refused(tmp_path: Path) -> None:
    """A list that cannot be changed in place is an error whose hint says what to do."""
    path = tmp_path / "x.yaml"
    path.write_text(
        "experts:\n  - id: a\n    repo: a/a\n    tags: &t {styles: [anime]}\n  - id: b\n    repo: b/b\n    tags: *t\n",
        encoding="utf-8",
    )
    change = ZooDraft(path)
    change.add_tags(change.file.experts[1], Tags(styles=("photo",)))
    with pytest.raises(ZooError, match="anchors") as caught:
        change.finish()
    assert "by hand" in caught.value.hint


@pytest.mark.parametrize("name", ["default", "tiny"])
def test_what_ships_is_not_edited(name: str) -> None:
    """The zoos of the package are read-only; the hint names the option."""
    with pytest.raises(RequestError, match="comes with the package") as caught:
        ZooDraft(name)
    assert "--zoo" in caught.value.hint


def test_a_read_only_file_is_refused_at_once(mine: Path) -> None:
    """A file without write permission stays, although its folder would allow replacing it."""
    mine.chmod(0o444)
    with pytest.raises(ZooError, match="read-only"):
        ZooDraft(mine)


def test_a_folder_is_not_a_zoo_file(tmp_path: Path) -> None:
    """A folder where the file should be is a `ZooError`."""
    with pytest.raises(ZooError, match="cannot be written"):
        ZooDraft(tmp_path)


def test_changes_of_others_are_never_overwritten(mine: Path, settings: Settings) -> None:
    """A file that was changed or removed after the draft was made stays as it is now."""
    draft = added(mine).finish()
    mine.write_text(MINE + "# a late thought\n", encoding="utf-8")
    with pytest.raises(ZooFileChangedError) as caught:
        draft.write(settings)
    assert caught.value.retryable
    assert mine.read_text() == MINE + "# a late thought\n"
    mine.unlink()
    with pytest.raises(ZooFileChangedError):
        draft.write(settings)
    assert not mine.exists()


def test_no_entry_of_concurrent_writers_is_lost(mine: Path, settings: Settings) -> None:
    """Entries of threads that write at the same time, and retry on a conflict, are all in the file."""
    problems: list[BaseException] = []

    def add(number: int) -> None:
        try:
            while True:
                try:
                    added(mine, {"id": f"n{number}", "repo": f"a/n{number}"}).finish().write(settings)
                except ZooFileChangedError:
                    continue
                return
        except BaseException as error:  # noqa: BLE001  # a thread's error would go unseen
            problems.append(error)

    threads = [threading.Thread(target=add, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not problems
    assert set(Zoo.load(mine)) == {"fox", "plain", *(f"n{number}" for number in range(6))}
    assert mine.read_text().startswith(MINE)


@pytest.mark.parametrize("call", ["os.fsync", "pathlib.Path.replace"])
def test_a_failure_while_writing_leaves_the_old_bytes(
    mine: Path, settings: Settings, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    """A full disk in the middle of writing is a `ZooError`; the file is intact and no other file is left."""

    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    draft = added(mine).finish()
    monkeypatch.setattr(call, fail)
    with pytest.raises(ZooError, match="No space left"):
        draft.write(settings)
    assert mine.read_text() == MINE
    assert [path.name for path in mine.parent.iterdir() if path.is_file()] == ["mine.yaml"]


def test_permissions_and_links_stay(mine: Path, tmp_path: Path) -> None:
    """A replaced file keeps its mode; of a link the target is replaced, not the link."""
    mine.chmod(0o640)
    link = tmp_path / "link.yaml"
    link.symlink_to(mine)
    replace_file(link, b"x")
    assert link.is_symlink()
    assert mine.read_bytes() == b"x"
    assert mine.stat().st_mode & 0o777 == 0o640
    umask = os.umask(0o022)
    os.umask(umask)
    replace_file(tmp_path / "fresh", b"")
    assert (tmp_path / "fresh").stat().st_mode & 0o777 == 0o666 & ~umask


def test_commits_are_pinned_in_place(mine: Path) -> None:
    """A commit is written after the repository; experts that have it already, and others, stay as they are."""
    change = ZooDraft(mine)
    change.pin({"fox": "ab" * 20, "other": "1" * 40})
    after = change.finish().after
    assert after == MINE.replace("'somebody/fox'\n", f"'somebody/fox'\n    revision: {'ab' * 20}\n")
    mine.write_text(after, encoding="utf-8")
    change = ZooDraft(mine)
    change.pin({"fox": "ab" * 20})
    assert change.finish().is_empty


def test_tags_are_only_added(mine: Path) -> None:
    """Existing tags stay; an expert without any gets all of them, and whether it is a generalist."""
    change = ZooDraft(mine)
    fox, plain = change.file.experts
    change.add_tags(fox, Tags(styles=("photo", "watercolor"), subjects=("animal",), generalist=True))
    change.add_tags(plain, Tags(styles=("anime",), generalist=True))
    change.add_nodes([Node(id="silkscreen", kind="style", label={"zh": "丝网印刷"}, aliases=("screen print",))])
    after = change.finish().after
    mine.write_text(after, encoding="utf-8")
    zoo = Zoo.load(mine)
    assert zoo["fox"].tags == Tags(styles=("watercolor", "photo"), subjects=("animal",))
    assert zoo["plain"].tags == Tags(styles=("anime",), generalist=True)
    assert zoo.taxonomy.nodes["silkscreen"].aliases == ("screen print",)
    assert after.startswith(MINE[: MINE.index("    tags")])


def test_layers_below_count(mine: Path, tmp_path: Path) -> None:
    """A file is checked with the layers below it, whose categories and experts count as existing."""
    above = tmp_path / "above.yaml"
    mine.write_text(MINE + "taxonomy:\n  - {id: silkscreen, kind: style}\n", encoding="utf-8")
    change = ZooDraft(mine, above)
    with pytest.raises(ZooError, match="already"):
        change.add({"id": "x", "repo": "somebody/fox"})
    change.add({"id": "x", "repo": "somebody/x", "tags": {"styles": ["silkscreen"]}})
    assert change.finish().path == above


def test_the_users_zoo_is_used_once_it_exists(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without `--zoo` the user's own file is edited; it is a layer over the default zoo unless layers are named."""
    monkeypatch.delenv("DIFFUSIONGPT_ZOO", raising=False)
    settings = load_settings(home=tmp_path)
    assert settings.zoo_layers == ("default",)
    assert editable_layers(settings) == ("default", str(tmp_path / "zoo.yaml"))
    (tmp_path / "zoo.yaml").write_text(MINE)
    assert settings.zoo_layers == editable_layers(settings) == ("default", str(tmp_path / "zoo.yaml"))
    assert load_settings(home=tmp_path, zoo="default").zoo_layers == ("default",)
    named = load_settings(home=tmp_path, zoo="tiny, mine.yaml")
    assert editable_layers(named) == ("tiny", "mine.yaml")
    assert editable_layers(named, ["a.yaml", "b.yaml"]) == ("a.yaml", "b.yaml")
