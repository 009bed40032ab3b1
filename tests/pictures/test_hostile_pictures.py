"""Pictures of strangers start no program, take no memory, and are believed only where they hold together."""

from __future__ import annotations

import json
import os
import shutil
import struct
import time
import tracemalloc
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from fixtures_routing import tiny_studio
from PIL import Image, PngImagePlugin

from diffusiongpt.errors import PictureError
from diffusiongpt.pictures import CHUNK, Generation, read_record, shareable


@pytest.fixture(scope="module")
def record(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The record of a real picture, as JSON."""
    with tiny_studio(tmp_path_factory.mktemp("record")) as studio:
        result = studio.route_and_generate("a pixel art fish", seed=1, num_inference_steps=1)
    data: dict[str, Any] = shareable(result.records[0]).model_dump(mode="json")
    return data


@pytest.fixture
def forged(tmp_path: Path) -> Callable[[Any], Path]:
    """Writes a picture with a record of the test's."""

    def write(data: Any) -> Path:
        info = PngImagePlugin.PngInfo()
        info.add_itxt(CHUNK, data if isinstance(data, str) else json.dumps(data), lang="", tkey="")
        Image.new("RGB", (8, 8)).save(tmp_path / "forged.png", pnginfo=info)
        return tmp_path / "forged.png"

    return write


def changed(record: dict[str, Any], path: str, value: Any) -> dict[str, Any]:
    """A copy of a record with one value replaced."""
    copy: dict[str, Any] = json.loads(json.dumps(record))
    *way, last = path.split("/")
    place: Any = copy
    for part in way:
        place = place[int(part) if part.isdigit() else part]
    place[last] = value
    return copy


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("route/expert", "nosuch"),
        ("route/candidates", []),
        ("drawn_by", "../../../outside"),
        ("drawn_by", "a\0b"),
        ("route/candidates/0/expert", "\x1b[31m"),
        ("shown_in", {"ballot": "b", "propensities": {"other": 0.5}}),
        ("route/propensities", {"tiny-pixel": 7}),
        ("route/understanding/evidence", {"anime": -1}),
        ("route/candidates/0/score", 1e308),
        ("route/candidates/0/score", float("nan")),
        ("route/candidates/0/std", float("inf")),
        ("route/candidates/0/parts", {"tags": 1e308}),
        ("route/timings_ms", {"total": float("inf")}),
        ("seed", 10**30),
        ("seed", -1),
        ("zoo", ["a\0b"]),
        ("zoo", ["layer"] * 1_000_000),
        ("params", {"prompt": "x", **{f"p{n}": n for n in range(300)}}),
        ("params", {"prompt": 7}),
        ("params", json.loads("[" * 100 + "]" * 100)),
        ("route/rejected", [{"expert": "a", "reason": "x"}] * 60_000),
        ("route/input", "x" * 5_000_000),
    ],
)
def test_a_record_that_does_not_hold_together_is_refused(
    record: dict[str, Any], forged: Callable[[Any], Path], path: str, value: Any
) -> None:
    """Missing experts, impossible names and numbers, a million layers: a `PictureError` that says why, at once."""
    file = forged(changed(record, path, value))
    start = time.monotonic()
    for read in (Generation.from_file, Generation.without_pixels, read_record):
        with pytest.raises(PictureError, match="record in"):
            read(file)  # type: ignore[operator]
    assert time.monotonic() - start < 5


def test_a_whole_record_is_read(record: dict[str, Any], forged: Callable[[Any], Path]) -> None:
    """The check refuses nothing that this package writes."""
    file = forged(record)
    assert Generation.from_file(file).drawn_by == Generation.without_pixels(file).drawn_by == record["drawn_by"]


def test_depth_is_refused(forged: Callable[[Any], Path]) -> None:
    """Nesting without end, and values without end, are refused before they are parsed."""
    for text in ("[" * 1_000_000, '{"a":' * 500_000, "[" + "0," * 1_000_000 + "0]"):
        file = forged(text)
        tracemalloc.start()
        with pytest.raises(PictureError):
            read_record(file)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < 40e6


def test_a_route_through_thousands_of_experts_fits_into_a_picture(record: dict[str, Any], tmp_path: Path) -> None:
    """What is written can be read: of very many candidates the file keeps the best, and the one that was chosen."""
    from diffusiongpt.flow import PictureRecord
    from diffusiongpt.pictures import write_png

    one = record["route"]["candidates"][0]
    many = [{**one, "expert": f"expert-{n}", "score": -n / 100} for n in range(20_000)]
    big = changed(record, "route/candidates", [*many, one])
    big = changed(big, "route/rejected", [{"expert": f"no-{n}", "reason": "too large"} for n in range(20_000)])
    write_png(Image.new("RGB", (8, 8)), tmp_path / "big.png", PictureRecord.model_validate(big))
    assert (tmp_path / "big.png").stat().st_size < 1_000_000
    assert Generation.from_file(tmp_path / "big.png").route.chosen.expert == one["expert"]


def test_no_program_is_started_on_a_picture(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An EPS is not given to Ghostscript, whatever its file is called."""
    ran = tmp_path / "ran"
    for name in ("gs", "gswin64c"):
        program = tmp_path / name
        program.write_text(f"#!/bin/sh\ntouch {ran}\n")
        program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    eps = tmp_path / "fox.png"
    eps.write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\nshowpage\n%%EOF\n")
    with pytest.raises(PictureError, match="PNG, JPEG or WebP"):
        Generation.from_file(eps)
    assert not ran.exists()


def test_pixels_are_counted_before_they_are_decoded(tmp_path: Path, record: dict[str, Any]) -> None:
    """Dimensions above those of any request are refused by the header, and a vote decodes nothing."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    text = CHUNK.encode() + b"\0\0\0\0\0" + json.dumps(record).encode()
    for side, refused in ((13_000, True), (8_000, False)):
        head = chunk(b"IHDR", struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0))
        rows = chunk(b"IDAT", zlib.compress(b"\0" * 1000))
        file = tmp_path / f"{side}.png"
        file.write_bytes(b"\x89PNG\r\n\x1a\n" + head + chunk(b"iTXt", text) + rows + chunk(b"IEND", b""))
        if refused:
            with pytest.raises(PictureError, match=r"13,?000x13,?000|169000000 pixels"):
                read_record(file)
        else:
            assert Generation.without_pixels(file).drawn_by == record["drawn_by"]


def test_devices_and_pipes_are_no_pictures(tmp_path: Path) -> None:
    """Reading them might never end."""
    os.mkfifo(tmp_path / "pipe.png")
    for path in (tmp_path / "pipe.png", Path("/dev/zero")):
        with pytest.raises(PictureError, match="not a regular file"):
            Generation.from_file(path)
    shutil.rmtree(tmp_path)
