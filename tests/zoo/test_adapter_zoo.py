"""Adapters in a zoo: what they inherit from their base, and what the base forbids."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from fixtures_routing import expert, route, router_of, zoo_of
from typer.testing import CliRunner

from diffusiongpt.apps.cli import app
from diffusiongpt.errors import NoRouteError, ZooError
from diffusiongpt.flow import Policy, Request
from diffusiongpt.zoo import CallSettings, Expert, License, Zoo

if TYPE_CHECKING:
    from pathlib import Path
    from typing import Any

    from diffusiongpt.flow import Route

BASE_SETTINGS = CallSettings(
    width=1024,
    height=768,
    num_inference_steps=50,
    guidance_scale=5.0,
    dtype="float16",
    variant="fp16",
    extra={"clip_skip": 1, "eta": 0.5},
)
PROMPT = "a pixel art fish"


def base(name: str = "base", **fields: Any) -> Expert:
    """A generalist with every field set."""
    known = {"architecture": "sdxl", "size_gb": 6.94, "revision": "v1", "settings": BASE_SETTINGS}
    return expert(name, **{**known, **fields})


def lora(name: str = "lora", on: str = "somebody/base", **fields: Any) -> Expert:
    """A pixel-art adapter."""
    return expert(name, "pixel_art", kind="adapter", base=on, **fields)


def sold(zoo: Zoo, votes: Path) -> Route:
    """The route of a prompt for commercial use."""
    return router_of(zoo, votes).route(Request(prompt=PROMPT), Policy(commercial_use=True))


def test_an_adapter_inherits_the_facts_of_its_base() -> None:
    """It inherits type, variant, revision, native size, settings and architecture; its own values take precedence."""
    own = CallSettings(num_inference_steps=20, adapter_scale=0.8, extra={"eta": 0.0})
    zoo = zoo_of(lora(settings=own), base())
    adapted = zoo["lora"]
    wanted = {**BASE_SETTINGS.model_dump(), **own.model_dump(exclude_none=True), "extra": {"clip_skip": 1, "eta": 0.0}}
    assert adapted.settings.model_dump() == wanted
    assert adapted.architecture == "sdxl"
    assert adapted.revision is None
    assert adapted.base_expert == zoo["base"]
    assert adapted.parts == (zoo["base"], adapted)
    assert zoo["base"].parts == (zoo["base"],)


def test_another_type_is_another_copy_of_the_base() -> None:
    """An adapter that states another type or variant has its base loaded in that type or variant."""
    one = zoo_of(lora(settings=CallSettings(dtype="bfloat16", variant="bf16")), base())["lora"].base_expert
    assert one is not None
    assert (one.settings.dtype, one.settings.variant, one.id) == ("bfloat16", "bf16", "base")


def test_its_size_includes_that_of_its_base() -> None:
    """The size in memory includes that of the base; if the base's size is unknown, so is the sum."""
    zoo = zoo_of(base(), lora("a", size_gb=0.2), lora("b"), lora("c", on="o/unknown", size_gb=0.2))
    assert [zoo[name].size_bytes for name in "abc"] == [7_140_000_000, 6_940_000_000, None]
    sizes = {one.id: one.size_bytes for one in zoo.values()}
    assert sizes == {"base": 6_940_000_000, "a": 7_140_000_000, "b": 6_940_000_000, "c": None}


def test_the_base_may_come_in_another_layer_and_be_a_folder(tmp_path: Path) -> None:
    """A folder is resolved from any zoo file, and the entry of the latest layer counts."""
    (tmp_path / "one").mkdir()
    (tmp_path / "one" / "zoo.yaml").write_text("experts: [{id: base, repo: ./ck, size_gb: 2}]")
    entry = "{id: lora, repo: ./lora, kind: adapter, base: ../one/ck}"
    (tmp_path / "zoo.yaml").write_text(entry.join(["experts: [", "]"]).replace("../one", "./one"))
    zoo = Zoo.load(tmp_path / "one" / "zoo.yaml", tmp_path / "zoo.yaml")
    assert zoo["lora"].size_bytes == 2_000_000_000
    assert zoo["lora"].base_expert is not None
    assert zoo["lora"].base_expert.folder == tmp_path / "one" / "ck"


def test_an_adapter_is_not_a_base() -> None:
    """An adapter on an adapter is refused, and the hint names a checkpoint that works."""
    with pytest.raises(ZooError, match="itself an adapter, lora") as caught:
        zoo_of(base(), lora(), lora("second", on="somebody/lora"))
    assert "somebody/base" in caught.value.hint


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ("kind: adapter", "needs 'base'"),
        ("kind: adapter, base: nonsense", "base 'nonsense' is neither"),
        ("base: o/b", "'base' is for 'kind: adapter'"),
        ("kind: adapter, base: o/b, settings: {adapter_scale: 9}", "less than or equal to 4"),
    ],
)
def test_an_invalid_entry_is_reported_with_its_line(tmp_path: Path, entry: str, message: str) -> None:
    """The error names file and line, as for every mistake."""
    path = tmp_path / "zoo.yaml"
    path.write_text(f"experts:\n  - {{id: a, repo: o/a, {entry}}}\n")
    with pytest.raises(ZooError, match=message) as caught:
        Zoo.load(path)
    assert f"{path}:2" in str(caught.value)


@pytest.mark.parametrize("place", ["repo", "base"])
def test_zoo_check_finds_a_folder_that_is_missing(tmp_path: Path, place: str) -> None:
    """A missing folder of the adapter or of its base is an error."""
    places = {"repo": "o/a", "base": "o/b", place: "./nowhere"}
    path = tmp_path / "zoo.yaml"
    path.write_text(f"experts:\n  - {{id: a, kind: adapter, repo: {places['repo']}, base: {places['base']}}}\n")
    result = CliRunner().invoke(app, ["zoo", "check", str(path)])
    assert result.exit_code == 1
    assert f"the folder {tmp_path / 'nowhere'} of a does not exist" in result.output


@pytest.mark.parametrize(
    ("license_", "reason"),
    [
        (License(id="flux-nc", commercial="no"), "commercial use of its base somebody/base is not allowed (flux-nc)"),
        (
            License(id="community", commercial="conditional"),
            "of its base somebody/base is allowed only under conditions",
        ),
        (None, "of its base somebody/base is not known to be allowed (no licence stated)"),
    ],
)
def test_the_licence_of_the_base_counts_too(tmp_path: Path, license_: License | None, reason: str) -> None:
    """Commercial use must be allowed by both licences."""
    zoo = zoo_of(lora(), base(license=license_), expert("free"))
    made = route(PROMPT, zoo, tmp_path / "v.db")
    assert made.expert == "lora"
    strict = sold(zoo, tmp_path / "v.db")
    assert strict.expert == "free"
    assert reason in strict.why_not("lora")


def test_the_adapters_own_licence_comes_first(tmp_path: Path) -> None:
    """The adapter's own prohibition is the reason, not that of the base; the licence of an unknown base is unknown."""
    zoo = zoo_of(lora(license=License(id="nc", commercial="no")), lora("other", on="o/unknown"))
    with pytest.raises(NoRouteError) as caught:
        sold(zoo, tmp_path / "v.db")
    reasons = dict(caught.value.rejected)
    assert reasons["lora"] == "commercial use is not allowed (nc)"
    assert "its base o/unknown is not known" in reasons["other"]


def test_trigger_words_lead_the_prompt() -> None:
    """An adapter that was trained with a word gets it, unless the prompt already contains it."""
    who = lora(trigger_words=("pixel art", "pxl style"))
    assert who.prompt_for(PROMPT) == f"pxl style, {PROMPT}"


def test_the_default_zoo_knows_every_base() -> None:
    """The bases of all shipped adapters are in the zoo, so that variant, type and size are known."""
    zoo = Zoo.load("default")
    adapters = [one for one in zoo.values() if one.kind == "adapter"]
    assert adapters
    for one in adapters:
        known = [other for other in zoo.values() if other.repo == one.base]
        assert one.base_expert == known[0], one.id
        assert one.settings.num_inference_steps
        assert one.size_bytes
