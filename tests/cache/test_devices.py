"""Real pipelines on a device and the host give the same pixels wherever their weights have been in between."""

from __future__ import annotations

import json
import shutil
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest
from fixtures_adapters import family
from fixtures_cache import Counting
from fixtures_diffusers import BACKEND, ask, pixels
from miniature import expert, stable_diffusion
from miniatures import make_miniature

from diffusiongpt.backends.diffusers import DiffusersBackend
from diffusiongpt.cache import Identities, ModelCache
from diffusiongpt.errors import LoadError
from diffusiongpt.hub import Puller
from diffusiongpt.weights import Weights

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from diffusiongpt.settings import Settings
    from diffusiongpt.zoo import Expert

# diffusers calls its own deprecated method there
pytestmark = pytest.mark.filterwarnings("ignore:`upcast_vae` is deprecated:FutureWarning")

DEVICE = "cpu:1"
"""To torch it is host memory like any other, so it serves as a second device."""

LATE_S = 60.0

STRICT = DiffusersBackend(small_bytes=0)
"""Offloads every part, however small."""


@pytest.fixture(scope="session")
def tiny_sdxl(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random StableDiffusionXLPipeline; do not write into it."""
    return make_miniature("sdxl", tmp_path_factory.mktemp("sdxl") / "sdxl")


@pytest.fixture(scope="session")
def sibling(tiny_sd: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A fine-tune of the miniature: another UNet, the same text encoder and autoencoder."""
    folder, other = (tmp_path_factory.mktemp("sibling") / name for name in ("sibling", "other"))
    shutil.copytree(tiny_sd, folder)
    shutil.copytree(stable_diffusion(other, seed=5) / "unet", folder / "unet", dirs_exist_ok=True)
    return folder


def full(folder: Path, name: str = "full") -> Expert:
    """Use the one type that both places can have."""
    return expert(folder, name, dtype="float32")


def drawn(cache: ModelCache, who: Expert, device: str = DEVICE, *, offload: bool = False) -> list[bytes]:
    """What an expert draws on a device."""
    with cache.lease(who, BACKEND, device=device, offload=offload) as loaded:
        return pixels(BACKEND.draw(loaded, ask(who), offload=offload))


def resident(cache: ModelCache, tier: str) -> set[str]:
    """What is in a tier, as text."""
    return {row.what for row in cache.explain().on(tier)}


def test_the_same_pixels_on_a_device_after_whatever_happened(settings: Settings, tiny_sd: Path) -> None:
    """It draws the same from the host, from a device, from a device without a host copy, and after each reload."""
    cache, who, backend = ModelCache(settings), full(tiny_sd), Counting()
    wanted = drawn(ModelCache(settings), who, "cpu")
    for device, then in ((DEVICE, "cpu"), (DEVICE, DEVICE), (DEVICE, DEVICE), ("cpu", DEVICE), ("cpu:2", None)):
        with cache.lease(who, backend, device=device) as loaded:
            assert pixels(BACKEND.draw(loaded, ask(who))) == wanted, device
        cache.clear(then)
    assert cache.explain().on("host") == ()


def test_what_left_the_host_comes_back_from_the_device(settings: Settings, tiny_sd: Path) -> None:
    """Copies for a second device and for the host itself are made without reading the disk."""
    cache, who = ModelCache(settings), full(tiny_sd)
    wanted = drawn(cache, who)
    for device in ("cpu:2", "cpu"):
        cache.clear("cpu")
        assert resident(cache, "host") == set()
        assert drawn(cache, who, device) == wanted
    assert len({row.what for row in cache.explain().residents if row.tier != "disk"}) == 3


def test_another_model_shares_what_is_only_on_the_device(settings: Settings, tiny_sd: Path, sibling: Path) -> None:
    """Text encoder and autoencoder stay in place; both models draw their own pixels, also after the first is freed."""
    first, second = full(tiny_sd, "first"), full(sibling, "second")
    wanted = {who.id: drawn(ModelCache(settings), who, "cpu") for who in (first, second)}
    assert wanted["first"] != wanted["second"]
    cache = ModelCache(settings)
    assert drawn(cache, first) == wanted["first"]
    cache.clear("cpu")
    assert drawn(cache, second) == wanted["second"]
    assert len(cache.explain().on("host")) == 1
    assert len(cache.explain().on(DEVICE)) == 4
    with cache.lease(second, BACKEND, device=DEVICE) as loaded:
        cache.clear()
        assert pixels(BACKEND.draw(loaded, ask(second))) == wanted["second"]
        assert len(cache.explain().on(DEVICE)) == 3
    assert drawn(cache, first) == wanted["first"]
    assert drawn(cache, second) == wanted["second"]


def test_the_autoencoder_is_half_again_after_it_was_whole(settings: Settings, tiny_sdxl: Path) -> None:
    """SDXL's autoencoder converts itself to float32 to decode; the next drawing finds the shared weights unchanged."""
    import torch

    cache, who = ModelCache(settings), expert(tiny_sdxl, "xl", dtype="float16")
    with cache.lease(who, BACKEND, device=DEVICE) as loaded:
        first = pixels(BACKEND.draw(loaded, ask(who)))
        vae = loaded.model.weights["vae"]
        assert {tensor.dtype for tensor in vae.on(DEVICE).parameters()} == {torch.float16}
        assert pixels(BACKEND.draw(loaded, ask(who))) == first
    cache.clear(DEVICE)
    assert drawn(cache, who) == first


def test_adapters_and_the_plain_base_in_turns_on_a_device(settings: Settings, tiny_sd: Path, loras: Path) -> None:
    """Each draws what it draws alone, bit for bit, and the host copy never has an adapter."""
    plain = full(tiny_sd, "plain")
    ink, toy = (who.on(plain) for who in family(tiny_sd, loras / "ink", loras / "toy")[1:])
    wanted = {who.id: drawn(ModelCache(settings), who) for who in (plain, ink, toy)}
    assert len({picture[0] for picture in wanted.values()}) == 3
    cache = ModelCache(settings)
    for who in (plain, ink, plain, toy, ink, toy, plain, toy, toy, plain, ink, ink, plain):
        assert drawn(cache, who) == wanted[who.id], who.id
    assert drawn(cache, plain, "cpu") == wanted["plain"]
    cache.clear(DEVICE)
    assert [drawn(cache, who) == wanted[who.id] for who in (toy, plain)] == [True, True]


@pytest.fixture
def visits(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """The number of parts that were on the device after each arrival."""
    seen: list[int] = []
    there: set[int] = set()
    bring, leave = Weights.bring, Weights.leave

    def counted(self: Weights, device: str) -> None:
        bring(self, device)
        if device == DEVICE:
            there.add(id(self))
            seen.append(len(there))

    def uncounted(self: Weights, device: str) -> None:
        leave(self, device)
        if device == DEVICE:
            there.discard(id(self))

    monkeypatch.setattr(Weights, "bring", counted)
    monkeypatch.setattr(Weights, "leave", uncounted)
    yield seen
    assert there == set()


@pytest.mark.parametrize("name", ["sd", "sdxl"])
def test_part_by_part_the_same_pixels(
    settings: Settings, tiny_sd: Path, tiny_sdxl: Path, visits: list[int], name: str
) -> None:
    """With room only for its largest part, a model draws what it draws whole, also one that upcasts meanwhile."""
    who = full(tiny_sd) if name == "sd" else expert(tiny_sdxl, "xl", dtype="float16")
    cache = ModelCache(settings)
    wanted = drawn(cache, who)
    cache.clear(DEVICE)
    visits.clear()
    with cache.lease(who, STRICT, device=DEVICE, offload=True) as loaded:
        (ledger,) = (one for one in cache.explain().ledgers if one.tier == DEVICE)
        largest = max(part.nbytes for part in loaded.parts.values())
        assert (ledger.resident, ledger.reserved + ledger.in_flight) == (0, largest)
        assert pixels(STRICT.draw(loaded, ask(who), offload=True)) == wanted
    assert set(visits) == {1}
    assert drawn(cache, who) == wanted
    cache.clear(DEVICE)


def test_what_visits_is_not_available_to_others_meanwhile(settings: Settings, tiny_sd: Path, sibling: Path) -> None:
    """Another model with the same text encoder waits for the visits to end, and finds its parts in place."""
    first, second = full(tiny_sd, "first"), full(sibling, "second")
    wanted = {who.id: drawn(ModelCache(settings), who) for who in (first, second)}
    cache = ModelCache(settings)
    drawn(cache, second)
    with ThreadPoolExecutor(1) as pool:
        with cache.lease(first, BACKEND, device=DEVICE, offload=True) as loaded:
            assert not cache.is_loaded(second, device=DEVICE)
            other = pool.submit(drawn, cache, second)
            assert pixels(BACKEND.draw(loaded, ask(first), offload=True)) == wanted["first"]
        assert other.result(LATE_S) == wanted["second"]
    assert drawn(cache, first) == wanted["first"]


def test_visits_wait_for_the_leases_there(settings: Settings, tiny_sd: Path, sibling: Path) -> None:
    """What another lease holds on the device stays complete until that lease ends."""
    first, second = full(tiny_sd, "first"), full(sibling, "second")
    cache = ModelCache(settings)
    wanted = drawn(cache, second)
    with ThreadPoolExecutor(1) as pool:
        with cache.lease(second, BACKEND, device=DEVICE) as held:
            visitor = pool.submit(drawn, cache, first, offload=True)
            assert pixels(BACKEND.draw(held, ask(second))) == wanted
            assert not visitor.done()
        assert len(visitor.result(LATE_S)) == 1


def test_on_the_host_nothing_is_offloaded(settings: Settings, who: Expert) -> None:
    """There is no other place for the weights, so what was freed would be lost."""
    cache = ModelCache(settings)
    wanted = drawn(cache, who, "cpu")
    assert drawn(cache, who, "cpu", offload=True) == wanted
    assert drawn(cache, who, "cpu") == wanted


def test_an_adapter_is_not_offloaded(settings: Settings, tiny_sd: Path, loras: Path) -> None:
    """It sits on modules that stay."""
    _, ink, _ = family(tiny_sd, loras / "ink", loras / "toy")
    with pytest.raises(LoadError, match="adapter"):
        drawn(ModelCache(settings), ink, offload=True)


def test_an_adapter_is_taken_off_when_no_lease_uses_its_base(
    settings: Settings, tiny_sd: Path, sibling: Path, loras: Path
) -> None:
    """Its text encoder is in use by another model: making room does not wait, and changes no drawing."""
    first, second = full(tiny_sd, "first"), full(sibling, "second")
    toy = family(tiny_sd, loras / "ink", loras / "toy")[2].on(first)
    wanted = {who.id: drawn(ModelCache(settings), who) for who in (toy, second)}
    cache = ModelCache(settings)
    assert drawn(cache, toy) == wanted["toy"]
    assert drawn(cache, second) == wanted["second"]
    with (
        ThreadPoolExecutor(1) as pool,
        cache.lease(second, BACKEND, device=DEVICE) as loaded,
        BACKEND.opened(loaded),
    ):
        with cache.memory.look(DEVICE) as (tier,):
            tier.budget = 0
        pool.submit(cache.memory.settle, DEVICE).result(LATE_S / 4)
        assert pixels(BACKEND.draw(loaded, ask(second))) == wanted["second"]
        assert cache.is_loaded(toy, device=DEVICE)
    cache.clear(DEVICE)
    assert cache.explain().on(DEVICE) == ()
    assert drawn(cache, toy) == wanted["toy"]


def test_the_same_component_twice_in_a_pipeline_comes_twice(settings: Settings, tmp_path: Path) -> None:
    """SDXL with two identical text encoders: each is on the device, and it draws what it draws on the host."""
    folder = make_miniature("sdxl", tmp_path / "sdxl")
    shutil.rmtree(folder / "text_encoder")
    shutil.copytree(folder / "text_encoder_2", folder / "text_encoder")
    index = json.loads((folder / "model_index.json").read_text())
    index["text_encoder"] = index["text_encoder_2"]
    (folder / "model_index.json").write_text(json.dumps(index))
    who = expert(folder, "twice")
    found = Puller(settings).find(who, BACKEND)
    assert found is not None
    model = Identities(settings.home).of(who, BACKEND, found, DEVICE)
    assert len(set(model.parts.values())) == len(model.parts) == 4
    with ModelCache(settings).lease(who, BACKEND, device=DEVICE) as loaded:
        assert all(DEVICE in part.places for part in loaded.parts.values())  # type: ignore[attr-defined]
