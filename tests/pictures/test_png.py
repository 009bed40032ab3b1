"""A PNG has a record of how it was drawn that other programs can read, and other pictures are refused."""

from __future__ import annotations

import json
import re
from contextlib import suppress
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from fixtures_routing import route, tiny_zoo
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from PIL import Image, PngImagePlugin
from sd_parsers import ParserManager
from sd_parsers.data import Generators

from diffusiongpt.errors import PictureError, RequestError
from diffusiongpt.flow import MAX_PROMPT_CHARS, Dropped, Fallback, PictureRecord, ShownIn
from diffusiongpt.pictures import CHUNK, PARAMETERS, Generation, read_png, slug, write_png

if TYPE_CHECKING:
    from collections.abc import Mapping

WORDS = st.text(st.characters(exclude_categories=["Cs", "Cc"], include_characters="\n\t"), min_size=1, max_size=200)
ODD_PROMPTS = (
    "a fox\nSteps: 20, Sampler: Euler a, CFG scale: 7, Seed: 1, Size: 8x8, Model: nobody",
    "Negative prompt: everything",
    'she said "你好, 世界" \\ \'hi\' {"a": [1]}',
    "🦊\u200d🔥 émigré лиса شعر",
    "a\tb\r\nc\u2028d",
    "x" * MAX_PROMPT_CHARS,
)


def record_of(prompt: str, tmp_path: Path, **changes: Any) -> PictureRecord:
    """The record of a picture of a prompt, as if it had been drawn."""
    decision = route(prompt, tiny_zoo(), tmp_path / "votes.db")
    params = {
        "prompt": prompt,
        "negative_prompt": "blurry, ugly",
        "num_inference_steps": 8,
        "guidance_scale": 1.5,
        "width": 32,
        "height": 24,
        "sampler": "EulerDiscreteScheduler",
    }
    fields = {
        "generator": "diffusiongpt 0.1.0",
        "zoo": ("tiny",),
        "drawn_by": decision.expert,
        "repo": "./pixel",
        "seed": 7,
        "params": params,
        "dropped": (Dropped(name="width", value=33, reason="odd"),),
        "fallbacks": (Fallback(expert="tiny-oil", error="gone", hint="wait"),),
        "route": decision,
        "shown_in": ShownIn(ballot="b", propensities={decision.expert: 0.5}),
        "time": "2026-01-01T00:00:00+00:00",
    }
    return PictureRecord(**{**fields, **changes})


def picture() -> Image.Image:
    """A small picture of many colours."""
    image = Image.new("RGB", (32, 24))
    image.putdata([(x * 7 % 256, x * 13 % 256, x * 29 % 256) for x in range(32 * 24)])
    return image


def saved(tmp_path: Path, **changes: Any) -> Path:
    """A file as this package saves it."""
    path = tmp_path / "fox.png"
    write_png(picture(), path, record_of("a pixel art fox", tmp_path, **changes))
    return path


def with_chunk(tmp_path: Path, text: str, *, compressed: bool = False) -> Path:
    """A PNG with any text in our chunk."""
    info = PngImagePlugin.PngInfo()
    info.add_itxt(CHUNK, text, lang="", tkey="", zip=compressed)
    path = tmp_path / "strange.png"
    picture().save(path, pnginfo=info)
    return path


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(WORDS.filter(str.strip))
@example(ODD_PROMPTS[0])
@example(ODD_PROMPTS[1])
@example(ODD_PROMPTS[2])
@example(ODD_PROMPTS[3])
@example(ODD_PROMPTS[4])
@example(ODD_PROMPTS[5])
def test_any_prompt_comes_back_whole(tmp_path: Path, prompt: str) -> None:
    """Whatever the prompt, pixels and record come back as they were, and the prompt cannot forge the settings."""
    prompt = re.sub("[\ufffd]", "", prompt) or "x"
    if not prompt.strip():
        prompt = "x"
    before = record_of(prompt, tmp_path)
    path = tmp_path / "any.png"
    write_png(picture(), path, before)
    image, after = read_png(path)
    assert image.tobytes() == picture().tobytes()
    assert after.model_dump(mode="json") == before.model_dump(mode="json")
    assert after.route.input == prompt
    with Image.open(path) as file:
        *story, line = file.text[PARAMETERS].splitlines()
    assert len(story) == 2
    assert line.startswith("Steps: 8, Sampler: EulerDiscreteScheduler, CFG scale: 1.5, Seed: 7, Size: 32x24, Model: ")


@pytest.mark.parametrize(
    "prompt", ["a pixel art fox", ODD_PROMPTS[0], ODD_PROMPTS[2], "一只像素风的狐狸", "a fox, (red:1.2)"]
)
def test_other_programs_read_our_files(tmp_path: Path, prompt: str) -> None:
    """A public parser finds the prompt, negative prompt, seed, steps, sampler and model in our PNG."""
    record = record_of(prompt, tmp_path)
    path = tmp_path / "fox.png"
    write_png(picture(), path, record)
    parsed = ParserManager().parse(path)
    assert parsed is not None
    assert parsed.generator == Generators.AUTOMATIC1111
    assert parsed.full_prompt == " ".join(str(record.params["prompt"]).split())
    assert parsed.full_negative_prompt == "blurry, ugly"
    (sampler,) = parsed.samplers
    assert sampler.name == "EulerDiscreteScheduler"
    assert sampler.parameters["seed"] == "7"
    assert sampler.parameters["steps"] == "8"
    assert sampler.model is not None
    assert sampler.model.name == record.drawn_by


def test_a_file_is_read_as_a_generation(tmp_path: Path) -> None:
    """`from_file` restores what was drawn: seeds, parameters, what was dropped, failed experts, where it was shown."""
    generation = Generation.from_file(saved(tmp_path))
    assert generation.image.size == (32, 24)
    assert generation.seeds == (7,)
    assert generation.drawn_by == generation.route.expert == "tiny-pixel"
    assert generation.params["num_inference_steps"] == 8
    assert generation.dropped == (Dropped(name="width", value=33, reason="odd"),)
    assert generation.fallbacks[0].error == "gone"
    assert generation.shown_in is not None
    assert generation.shown_in.propensities == {"tiny-pixel": 0.5}
    assert "tiny-oil could not draw: gone" in generation._repr_html_()


def test_a_notebook_shows_no_markup_of_a_prompt(tmp_path: Path) -> None:
    """What a prompt or an error says is shown as text, never as HTML."""
    path = saved(tmp_path, fallbacks=(Fallback(expert="<b>", error="<script>alert(1)</script>"),))
    html = Generation.from_file(path)._repr_html_()
    assert "<script>" not in html
    assert "&lt;script&gt;" in html
    assert html.count("<img") == 1


def test_a_picture_without_our_record_is_refused(tmp_path: Path) -> None:
    """A picture without a record is a `PictureError` with a hint, whatever its format."""
    for name in ("plain.png", "plain.jpg", "plain.gif"):
        picture().save(tmp_path / name)
        with pytest.raises(PictureError, match="does not say how it was drawn") as caught:
            Generation.from_file(tmp_path / name)
        assert "Pass a picture that this package saved" in caught.value.hint


@pytest.mark.parametrize(
    ("content", "message"),
    [(b"just text\n", "cannot be read"), (b"", "cannot be read"), (b"\x89PNG\r\n\x1a\n", "cannot be read")],
    ids=["text", "empty", "signature"],
)
def test_what_is_no_picture_is_refused(tmp_path: Path, content: bytes, message: str) -> None:
    """A text file, an empty file, or half a signature is a `PictureError`."""
    path = tmp_path / "strange.png"
    path.write_bytes(content)
    with pytest.raises(PictureError, match=message):
        Generation.from_file(path)


def test_a_missing_file_and_a_folder_are_refused(tmp_path: Path) -> None:
    """A path to nothing, or to a folder, is a `PictureError`."""
    with pytest.raises(PictureError, match="does not exist"):
        Generation.from_file(tmp_path / "no.png")
    with pytest.raises(PictureError, match="cannot be read"):
        Generation.from_file(tmp_path)


def test_a_file_cut_anywhere_is_read_or_refused(tmp_path: Path) -> None:
    """A truncated PNG is a `PictureError`, unless only the end mark is missing."""
    whole = saved(tmp_path).read_bytes()
    path = tmp_path / "cut.png"
    refused = 0
    for length in range(0, len(whole), 97):
        path.write_bytes(whole[:length])
        try:
            Generation.from_file(path)
        except PictureError:
            refused += 1
    assert refused >= len(range(0, len(whole), 97)) - 1


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(at=st.floats(0, 1, exclude_max=True), byte=st.integers(0, 255))
def test_a_damaged_byte_is_read_or_refused(tmp_path: Path, at: float, byte: int) -> None:
    """Whatever byte of a file is damaged, it is read, or is a `PictureError`."""
    path = tmp_path / "fox.png"
    data = bytearray(path.read_bytes() if path.exists() else saved(tmp_path).read_bytes())
    data[int(at * len(data))] = byte
    damaged = tmp_path / "damaged.png"
    damaged.write_bytes(data)
    with suppress(PictureError):
        assert Generation.from_file(damaged).image.size


def test_a_bomb_is_refused(tmp_path: Path) -> None:
    """A header that promises more pixels than memory has is a `PictureError`, not a crash."""
    import struct
    import zlib

    header = struct.pack(">IIBBBBB", 100_000, 100_000, 8, 2, 0, 0, 0)
    chunk = b"IHDR" + header
    path = tmp_path / "bomb.png"
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + chunk + struct.pack(">I", zlib.crc32(chunk)))
    with pytest.raises(PictureError, match="cannot be read"):
        Generation.from_file(path)


@pytest.mark.parametrize("text", ["{", "[]", "null", '{"seed": "x"}', "[" * 10_000, "\u0000", "{}" * 3])
def test_a_damaged_record_is_refused(tmp_path: Path, text: str) -> None:
    """A record that is not JSON, or not ours, is a `PictureError`."""
    with pytest.raises(PictureError, match="record in"):
        Generation.from_file(with_chunk(tmp_path, text))


def test_a_record_of_the_future_says_so(tmp_path: Path) -> None:
    """The hint for a newer record is to update; unknown keys in a record of our version are ignored."""
    record = record_of("a fox", tmp_path).model_dump(mode="json")
    assert Generation.from_file(with_chunk(tmp_path, json.dumps({**record, "novelty": 1}))).seeds == (7,)
    with pytest.raises(PictureError) as caught:
        Generation.from_file(with_chunk(tmp_path, json.dumps({**record, "version": 2})))
    assert "newer version" in caught.value.hint


def test_a_picture_is_written_whole_or_not_at_all(tmp_path: Path) -> None:
    """A folder that cannot be created is a `PictureError`, and nothing is left behind."""
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(PictureError, match="cannot write") as caught:
        write_png(picture(), tmp_path / "file" / "fox.png", record_of("a fox", tmp_path))
    assert "folder" in caught.value.hint
    (tmp_path / "taken.png").mkdir()
    with pytest.raises(PictureError, match="cannot write"):
        write_png(picture(), tmp_path / "taken.png", record_of("a fox", tmp_path))
    assert {path.name for path in tmp_path.iterdir()} == {"file", "taken.png"}


def test_names_never_overwrite(tmp_path: Path) -> None:
    """Saving the same picture again uses another name; the folder is created if necessary."""
    generation = Generation(images=(picture(),), records=(record_of("A Red Fox!", tmp_path),))
    folder = tmp_path / "new" / "folder"
    names = [generation.save(folder)[0].name for _ in range(3)]
    expert = generation.drawn_by
    assert names == [f"a-red-fox-{expert}-7.png", f"a-red-fox-{expert}-7-2.png", f"a-red-fox-{expert}-7-3.png"]


def test_save_takes_a_file_or_a_folder(tmp_path: Path) -> None:
    """One picture may be given a name that ends in .png; several need a folder, and no other format is written."""
    one = record_of("a fox", tmp_path)
    generation = Generation(images=(picture(),), records=(one,))
    assert generation.save(tmp_path / "mine.PNG") == [tmp_path / "mine.PNG"]
    with pytest.raises(RequestError, match="only PNG") as caught:
        generation.save(tmp_path / "mine.jpg")
    assert "mine.png" in caught.value.hint
    both = Generation(images=(picture(),) * 2, records=(one, one.model_copy(update={"seed": 8})))
    with pytest.raises(RequestError, match="2 pictures"):
        both.save(tmp_path / "both.png")
    assert len(both.save(tmp_path)) == 2


@settings(max_examples=200, deadline=None)
@given(st.text(max_size=300))
@example("../../etc/passwd")
@example("CON")
@example("字" * 200)
def test_a_slug_is_always_a_safe_name(prompt: str) -> None:
    """Any prompt gives a part of a file name that every system accepts."""
    name = slug(prompt)
    assert name
    assert not re.search(r"[^\w-]|_", name)
    assert not name.startswith("-")
    assert not name.endswith("-")
    assert len(name.encode()) <= 120
    assert not {"/", "\\", "\0"} & set(name)


def test_a_bare_copy_still_loads(tmp_path: Path) -> None:
    """Other programs see an ordinary PNG."""
    with Image.open(BytesIO(saved(tmp_path).read_bytes())) as image:
        text: Mapping[str, str] = image.text
        assert image.format == "PNG"
        assert set(text) == {CHUNK, PARAMETERS}
