"""Pictures go to strangers and come from strangers: what they reveal, and what is trusted in them."""

from __future__ import annotations

import errno
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from fixtures_routing import expert, settings_in, tiny_studio, tiny_zoo, zoo_of

from diffusiongpt.errors import LoadError, NoRouteError, PictureError, RequestError
from diffusiongpt.files import remove_leftovers, replace_file
from diffusiongpt.flow import Fallback
from diffusiongpt.pictures import Generation, shareable, write_png
from diffusiongpt.studio import DiffusionGPT
from diffusiongpt.testing import TINY_FOLDER, hub_zoo, serve_tiny_zoo
from diffusiongpt.zoo import CallSettings

PROMPT = "a pixel art fish on a blue background"


def drawn(tmp_path: Path, **changes: Any) -> Generation:
    """A picture whose record was changed by a stranger."""
    with tiny_studio(tmp_path) as studio:
        result = studio.route_and_generate(PROMPT, seed=1, num_inference_steps=1)
    return Generation(images=result.images, records=(result.records[0].model_copy(update=changes),))


def test_a_picture_does_not_tell_where_it_was_drawn(tmp_path: Path) -> None:
    """The file contains no folder of the machine: not that of the expert, of the zoo, or in an error."""
    home = tmp_path / "alice" / "secret-project"
    shutil.copytree(TINY_FOLDER / "pixel", home / "ck")
    zoo = zoo_of(expert("mine", "pixel_art", repo=str(home / "ck")))
    with DiffusionGPT(zoo, settings=settings_in(tmp_path)) as studio:
        result = studio.route_and_generate(PROMPT, seed=1, num_inference_steps=1)
    told = Fallback(expert="other", error=f"the folder {home}/ck does not exist", hint=f"Correct {home}/zoo.yaml")
    record = result.records[0].model_copy(update={"zoo": (str(home / "zoo.yaml"),), "fallbacks": (told,)})
    [path] = replace(result, records=(record,)).save(tmp_path / "out.png")
    text = Generation.from_file(path).records[0].model_dump_json()
    assert "secret-project" not in text + str(path.read_bytes())
    assert shareable(record).zoo == ("zoo.yaml",)
    assert "zoo.yaml" in shareable(record).fallbacks[0].hint


def test_many_savers_lose_nothing(tmp_path: Path) -> None:
    """Threads that save the same result into one folder at the same time get a file each."""
    result = drawn(tmp_path)
    with ThreadPoolExecutor(8) as pool:
        saved = [path for paths in pool.map(lambda _: result.save(tmp_path / "out"), range(40)) for path in paths]
    assert len(set(saved)) == len(list((tmp_path / "out").iterdir())) == 40
    assert all(Generation.from_file(path).seeds == (1,) for path in saved)


def test_a_failed_save_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An old picture stays as it was, and no partial new one is left next to it."""
    result = drawn(tmp_path)
    [old] = result.save(tmp_path / "out" / "old.png")
    before = old.read_bytes()

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(type(result.image), "save", full)
    with pytest.raises(PictureError, match="No space"):
        write_png(result.image, old, result.records[0])
    with pytest.raises(PictureError, match="No space"):
        result.save(tmp_path / "out")
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["old.png"]
    assert old.read_bytes() == before


def test_what_a_killed_process_left_is_no_picture_and_goes(tmp_path: Path) -> None:
    """Half a picture has a name that no picture has, and the next one saved into the folder takes it away."""
    result, out = drawn(tmp_path), tmp_path / "out"
    out.mkdir()
    code = (
        "import os, pathlib, signal, sys\n"
        "from diffusiongpt.files import written_beside\n"
        "half = lambda stream: (stream.write(b'half'), stream.flush(), os.kill(os.getpid(), signal.SIGKILL))\n"
        "with written_beside(pathlib.Path(sys.argv[1]), half): pass"
    )
    subprocess.run([sys.executable, "-c", code, str(out / ".picture")], check=False)
    [half] = out.iterdir()
    assert (half.read_bytes(), half.suffix) == (b"half", ".tmp")
    [saved] = result.save(out)
    assert list(out.iterdir()) == [saved]


def test_files_of_somebody_else_are_no_leftovers(tmp_path: Path) -> None:
    """Only names that we give are taken away, whatever characters the file has in its own."""
    ours, theirs = tmp_path / "a[1]*.json", [tmp_path / "a[1]*.json.draft.tmp", tmp_path / "b.0123456789abcdef.tmp"]
    left = tmp_path / f"{ours.name}.0123456789abcdef.tmp"
    for file in (left, *theirs):
        file.write_text("x")
    remove_leftovers(ours)
    assert sorted(tmp_path.iterdir()) == sorted(theirs)


def test_where_nothing_can_be_locked_files_are_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Some file systems of a network know no locks; nothing is left there either."""

    def refuse(*_: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr("fcntl.flock", refuse)
    replace_file(tmp_path / "a.json", b"whole")
    assert [(file.name, file.read_bytes()) for file in tmp_path.iterdir()] == [("a.json", b"whole")]


def test_a_changed_checkpoint_is_noticed(tmp_path: Path) -> None:
    """`again` refuses to draw with weights other than those of the picture, at the same place or not."""
    folder = tmp_path / "ck"
    shutil.copytree(TINY_FOLDER / "pixel", folder)
    zoo = zoo_of(expert("mine", "pixel_art", repo=str(folder)))
    with DiffusionGPT(zoo, settings=settings_in(tmp_path)) as studio:
        result = studio.route_and_generate(PROMPT, seed=1, num_inference_steps=1)
        assert result.again().image.tobytes() == result.image.tobytes()
    shutil.copytree(TINY_FOLDER / "oil" / "unet", folder / "unet", dirs_exist_ok=True)
    with (
        DiffusionGPT(zoo, settings=settings_in(tmp_path)) as studio,
        pytest.raises(LoadError, match="not the checkpoint"),
    ):
        studio.redraw(result)


def test_the_same_weights_from_elsewhere_draw_the_same(tmp_path: Path) -> None:
    """A picture drawn through a hub can be drawn again from the package: weights count, not their address."""
    settings = settings_in(tmp_path)
    with serve_tiny_zoo() as hub:
        through_hub = settings.model_copy(update={"hub_endpoint": hub.url})
        with DiffusionGPT(hub_zoo(), settings=through_hub) as studio:
            result = studio.route_and_generate(PROMPT, seed=1, num_inference_steps=1)
    with DiffusionGPT("tiny", settings=settings) as studio:
        assert studio.redraw(result).image.tobytes() == result.image.tobytes()


@pytest.mark.parametrize(
    "params",
    [{"width": 100_000}, {"num_inference_steps": 10**9}, {"guidance_scale": "high"}, {"negative_prompt": 7}],
    ids=lambda params: next(iter(params)),
)
def test_a_record_asks_for_no_more_than_a_request_may(tmp_path: Path, params: dict[str, Any]) -> None:
    """Numbers that a stranger wrote into a picture pass the same checks as a caller's."""
    picture = drawn(tmp_path)
    record = picture.records[0]
    forged = record.model_copy(update={"params": {**record.params, **params}})
    with tiny_studio(tmp_path) as studio, pytest.raises(RequestError):
        studio.redraw(replace(picture, records=(forged,)))


@pytest.mark.parametrize("revision", ["refs/pr/666", "../../../x", "main"])
def test_a_record_names_no_branch(tmp_path: Path, revision: str) -> None:
    """Only a commit, which never changes, may be pulled because a picture names it."""
    with serve_tiny_zoo() as hub:
        settings = settings_in(tmp_path).model_copy(update={"hub_endpoint": hub.url})
        forged = drawn(tmp_path, repo="tiny-zoo/pixel", revision=revision)
        with DiffusionGPT(hub_zoo(), settings=settings) as studio, pytest.raises(LoadError):
            studio.redraw(forged)
        assert not hub.requests


def test_a_strangers_zoo_file_is_not_opened(tmp_path: Path) -> None:
    """A picture names its zoo; only zoos of the package are loaded because of it."""
    forged = drawn(tmp_path, zoo=("tiny", str(tmp_path / "there-is-none.yaml")))
    with DiffusionGPT(zoo_of(expert("other", "anime")), settings=settings_in(tmp_path)) as studio:
        assert studio.redraw(forged).drawn_by == "tiny-pixel"


def test_a_mistake_in_the_zoo_is_told_and_not_painted_over(tmp_path: Path) -> None:
    """The tiny zoo is a fallback for a missing network or memory, not for a misspelt folder."""
    zoo = zoo_of(expert("mine", "pixel_art", repo=str(tmp_path / "typo")))
    with DiffusionGPT(zoo, settings=settings_in(tmp_path)) as studio, pytest.raises(NoRouteError) as caught:
        studio.route_and_generate(PROMPT)
    assert "typo" in str(caught.value.rejected)


def test_who_cannot_draw_is_not_compared(tmp_path: Path) -> None:
    """Unknown backends and experts larger than the device, with their base if any, are left out of comparisons."""
    able = [tiny_zoo()["tiny-pixel"], tiny_zoo()["tiny-oil"]]
    unable = [
        expert("adapter", "pixel_art", kind="adapter", base="somebody/huge"),
        expert("foreign", "pixel_art", backend="nosuch"),
        expert("huge", "pixel_art", size_gb=1e6),
    ]
    with DiffusionGPT(zoo_of(*unable, *able), settings=settings_in(tmp_path)) as studio:
        for seed in range(4):
            shown = studio.compare(PROMPT, seed=seed, num_inference_steps=1).experts
            assert set(shown) == {"tiny-pixel", "tiny-oil"}


def test_a_cpu_needs_twice_the_listed_bytes(tmp_path: Path) -> None:
    """Sizes are listed at 16 bits, and a CPU computes in 32."""
    with tiny_studio(tmp_path) as studio:
        memory = studio._machine.spec.host_bytes
        assert memory is not None
        small = CallSettings(width=64, height=64)
        sizes = [expert(f"e{share}", size_gb=memory * share / 1e9, settings=small) for share in (0.3, 0.46)]
        assert [studio._machine.can_draw(one) for one in sizes] == [True, False]


def test_a_checkpoint_on_disk_draws_though_the_hub_is_down(tmp_path: Path) -> None:
    """What another program left complete in the hub cache draws after an earlier candidate found no hub."""
    from huggingface_hub import snapshot_download

    settings = settings_in(tmp_path)
    with serve_tiny_zoo() as hub:
        snapshot_download("tiny-zoo/oil", cache_dir=settings.hub_cache, endpoint=hub.url)
    oil = hub_zoo()["tiny-oil"].model_copy(update={"tags": tiny_zoo()["tiny-pixel"].tags})
    zoo = zoo_of(hub_zoo()["tiny-pixel"], oil)
    with DiffusionGPT(zoo, settings=settings.model_copy(update={"hub_endpoint": hub.url})) as studio:
        result = studio.route_and_generate(PROMPT, seed=1, num_inference_steps=1)
    assert [fallback.expert for fallback in result.fallbacks] == ["tiny-pixel"]
    assert result.drawn_by == "tiny-oil"
