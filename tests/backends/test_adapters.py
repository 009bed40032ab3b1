"""Adapters on a shared base: each draws its own pictures, and the base draws the same pictures as before."""

from __future__ import annotations

from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from itertools import cycle, islice
from typing import TYPE_CHECKING, Any

import pytest
import torch
from fixtures_adapters import adapter, family, in_kohyas_words, write_transformer_lora
from fixtures_cache import Counting, touch
from fixtures_diffusers import BACKEND, ask, pixels
from miniature import expert, stable_diffusion
from miniatures import make_miniature, miniature_settings
from safetensors.torch import load_file, save_file

from diffusiongpt.backends.diffusers import attach
from diffusiongpt.cache import LRU, ModelCache
from diffusiongpt.errors import LoadError
from diffusiongpt.hub import USUAL_NAME, names_in
from diffusiongpt.zoo import on_their_bases

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from diffusiongpt.backends import Loaded
    from diffusiongpt.settings import Settings
    from diffusiongpt.zoo import Expert


@pytest.fixture
def three(tiny_sd: Path, loras: Path) -> tuple[Expert, Expert, Expert]:
    """The plain base and two adapters on it."""
    return family(tiny_sd, loras / "ink", loras / "toy")


def drawn(cache: ModelCache, who: Expert, backend: Any = BACKEND) -> list[bytes]:
    """What an expert draws when leased from a cache."""
    with cache.lease(who, backend, device="cpu") as loaded:
        return pixels(BACKEND.draw(loaded, ask(who)))


def leased(cache: ModelCache, who: Expert) -> Loaded:
    """What an expert draws when leased from a cache that evicts nothing."""
    with cache.lease(who, BACKEND, device="cpu") as loaded:
        return loaded


def alone(settings: Settings, *experts: Expert) -> dict[str, list[bytes]]:
    """What each expert draws if nothing else was ever loaded."""
    return {who.id: drawn(ModelCache(settings), who) for who in experts}


def linear(loaded: Loaded) -> Any:
    """A layer that adapters wrap."""
    return loaded.model.pipe.unet.down_blocks[1].attentions[0].transformer_blocks[0].attn1.to_q


def test_three_pictures_of_one_base(settings: Settings, three: tuple[Expert, Expert, Expert]) -> None:
    """In whatever order they draw, all three draw what they would alone: no adapter affects another or the base."""
    wanted = alone(settings, *three)
    assert len({picture[0] for picture in wanted.values()}) == 3
    plain, ink, toy = three
    cache, backend = ModelCache(settings), Counting()
    for who in (plain, ink, plain, toy, ink, toy, plain, toy, toy, plain, ink, ink, plain):
        assert drawn(cache, who, backend) == wanted[who.id], who.id
    assert backend.loads == ["plain"]


def test_three_pictures_of_one_base_at_a_time(settings: Settings, three: tuple[Expert, Expert, Expert]) -> None:
    """The same holds for six threads at once, including a cold start, with one load of the base."""
    wanted = alone(settings, *three)
    cache, backend = ModelCache(settings), Counting()
    order = list(islice(cycle(three), 24))
    with ThreadPoolExecutor(6) as pool:
        pictures = list(pool.map(lambda who: drawn(cache, who, backend), order))
    assert [picture == wanted[who.id] for picture, who in zip(pictures, order, strict=True)] == [True] * 24
    assert backend.loads == ["plain"]
    assert len(cache.explain().residents) == 3 + 2


def test_an_adapter_is_a_small_addition(
    settings: Settings, three: tuple[Expert, Expert, Expert], tiny_sd: Path
) -> None:
    """The base is in memory once, and each adapter takes the bytes of its own file."""
    cache = ModelCache(settings)
    touch(cache, BACKEND, *three)
    rows = Counter[tuple[str, ...]]()
    for row in cache.explain().residents:
        rows[row.experts] += row.nbytes
    base = BACKEND.load(three[0], tiny_sd, names_in(tiny_sd), device="cpu", have={}).nbytes
    files = [
        sum(tensor.nbytes for tensor in load_file(who.folder / USUAL_NAME).values()) for who in three[1:] if who.folder
    ]
    assert rows == {("plain",): base, ("ink",): files[0], ("toy",): files[1]}
    assert all(cache.is_loaded(who, device="cpu") for who in three)


def test_how_strongly_it_pulls(settings: Settings, tiny_sd: Path, loras: Path) -> None:
    """`adapter_scale` changes the picture and is recorded; one file serves all scales."""
    cache = ModelCache(settings)
    scales = {"weak": 0.25, "full": 1.0, "silent": None}
    experts = [adapter(name, loras / "ink", tiny_sd, scale=scale) for name, scale in scales.items()]
    pictures = [drawn(cache, who)[0] for who in experts]
    assert pictures[0] != pictures[1] == pictures[2]
    assert len(cache.explain().residents) == 3 + 1
    with cache.lease(experts[0], BACKEND, device="cpu") as loaded:
        assert BACKEND.draw(loaded, ask(experts[0])).params["adapter_scale"] == 0.25


def test_kohyas_files_are_read(settings: Settings, tiny_sd: Path, loras: Path, tmp_path: Path) -> None:
    """With other names for the same weights and an alpha of half the rank, the picture is that of half the strength."""
    in_kohyas_words(loras / "ink" / USUAL_NAME, tmp_path / "kohya.safetensors")
    cache = ModelCache(settings)
    half = drawn(cache, adapter("half", loras / "ink", tiny_sd, scale=0.5))
    assert drawn(cache, adapter("kohya", tmp_path, tiny_sd)) == half


@pytest.mark.parametrize("architecture", ["flux1", "flux2-klein", "krea2", "qwen-image", "z-image", "ernie-image"])
def test_other_architectures_take_adapters_too(settings: Settings, tmp_path: Path, architecture: str) -> None:
    """An adapter on a flow-matching transformer changes the picture, and the base is the same before and after."""
    base = make_miniature(architecture, tmp_path / "base")
    plain = expert(base, "plain", extra=miniature_settings(architecture).extra)
    lora = adapter("lora", write_transformer_lora(base, tmp_path / "lora"), base)
    who = on_their_bases({"plain": plain, "lora": lora})["lora"]
    cache = ModelCache(settings)
    pictures = [
        pixels(BACKEND.draw(loaded, ask(one, **who.settings.extra)))
        for one in (plain, who, plain, who)
        for loaded in [leased(cache, one)]
    ]
    assert pictures[0] == pictures[2] != pictures[1] == pictures[3]
    residents = [row.experts for row in cache.explain().residents]
    assert residents.count(("lora",)) == 1


def of_krea(key: str) -> str:
    """A name in Krea's own code, which its adapters may be for."""
    theirs = {"to_q": "wq", "to_k": "wk", "to_v": "wv", "transformer_blocks": "blocks", "text_fusion": "txtfusion"}
    return ".".join(theirs.get(part, part) for part in key.removeprefix("transformer.").split("."))


@pytest.mark.parametrize(
    ("architecture", "renamed"),
    [
        ("krea2", lambda key: f"diffusion_model.{of_krea(key)}"),
        ("krea2", lambda key: f"base_model.model.{of_krea(key)}"),
        ("z-image", lambda key: key.replace("transformer.", "diffusion_model.")),
        ("qwen-image", lambda key: key.replace("transformer.", "diffusion_model.")),
        ("qwen-image", lambda key: key.replace("transformer.", "").replace(".weight", ".default.weight")),
    ],
)
def test_files_of_trainers_are_read(
    settings: Settings, tmp_path: Path, architecture: str, renamed: Callable[[str], str]
) -> None:
    """The same weights under the names that trainers give them draw the same picture."""
    base = make_miniature(architecture, tmp_path / "base")
    weights = load_file(write_transformer_lora(base, tmp_path / "own") / USUAL_NAME)
    (tmp_path / "theirs").mkdir()
    save_file({renamed(key): tensor for key, tensor in weights.items()}, tmp_path / "theirs" / USUAL_NAME)
    cache, extra = ModelCache(settings), miniature_settings(architecture).extra
    plain = expert(base, "plain", extra=extra)
    known = {name: adapter(name, tmp_path / name, base) for name in ("own", "theirs")}
    experts = on_their_bases({"plain": plain, **known})
    pictures = {name: pixels(BACKEND.draw(leased(cache, who), ask(who, **extra))) for name, who in experts.items()}
    assert pictures["theirs"] == pictures["own"] != pictures["plain"]


def test_an_adapter_comes_off_without_a_trace(tiny_sd: Path, loras: Path, three: tuple[Expert, Expert, Expert]) -> None:
    """When the last adapter is removed, the layers are the very objects they were before, and draw the same."""
    plain, ink, toy = three
    base = BACKEND.load(plain, tiny_sd, names_in(tiny_sd), device="cpu", have={})
    layer, picture = linear(base), pixels(BACKEND.draw(base, ask(plain)))
    attached = [BACKEND.attach(base, who, who.folder / USUAL_NAME) for who in (ink, toy) if who.folder]
    assert linear(base) is not layer
    second = pixels(BACKEND.draw(attached[1], ask(toy)))
    off(attached[0])
    assert pixels(BACKEND.draw(attached[1], ask(toy))) == second
    assert pixels(BACKEND.draw(base, ask(plain))) == picture
    off(attached[1])
    assert linear(base) is layer
    assert pixels(BACKEND.draw(base, ask(plain))) == picture
    # an adapter that comes off only after its base was freed
    late = BACKEND.attach(base, ink, loras / "ink" / USUAL_NAME)
    off(base)
    off(late)


def off(loaded: Loaded) -> None:
    """Free the parts of a model, or take an adapter off."""
    for part in loaded.parts.values():
        part.leave("cpu")


def test_a_drawing_that_fails_leaves_the_base_as_it_was(
    settings: Settings, three: tuple[Expert, Expert, Expert]
) -> None:
    """An adapter is removed even if the drawing ends in an error."""
    plain, ink, _ = three
    cache = ModelCache(settings)
    before = drawn(cache, plain)

    def stop(*_: Any) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt), cache.lease(ink, BACKEND, device="cpu") as loaded:
        BACKEND.draw(loaded, ask(ink, callback_on_step_end=stop))
    assert drawn(cache, plain) == before


def renamed(weights: dict[str, Any]) -> dict[str, Any]:
    """None of its weights match a layer of the base."""
    return {key.replace("unet.", "transformer."): value for key, value in weights.items()}


def elsewhere(weights: dict[str, Any]) -> dict[str, Any]:
    """Few of its layers exist in the base."""
    return {key.replace("unet.down", "unet.left").replace("unet.up", "unet.right"): weights[key] for key in weights}


def wider(weights: dict[str, Any]) -> dict[str, Any]:
    """It was made for a wider model with the same layers."""
    return {key: torch.cat([value, value], dim=int("lora_A" in key)) for key, value in weights.items()}


def whole(weights: dict[str, Any]) -> dict[str, Any]:
    """It has more than low-rank weights: some would replace weights of the base."""
    return {**weights, "unet.conv_in.weight": torch.zeros(4)}


def nothing(_: dict[str, Any]) -> dict[str, Any]:
    """An empty file."""
    return {}


@pytest.mark.parametrize("spoil", [renamed, elsewhere, wider, whole, nothing], ids=lambda change: change.__name__)
def test_an_adapter_of_another_model_is_refused(
    settings: Settings,
    three: tuple[Expert, Expert, Expert],
    tiny_sd: Path,
    loras: Path,
    tmp_path: Path,
    spoil: Callable[[dict[str, Any]], dict[str, Any]],
) -> None:
    """The error says in one line what to check, and neither the base nor other adapters draw differently afterwards."""
    save_file(spoil(load_file(loras / "ink" / USUAL_NAME)), tmp_path / "x.safetensors")
    stranger = adapter("stranger", tmp_path, tiny_sd)
    wanted = alone(settings, *three)
    cache = ModelCache(settings)
    touch(cache, BACKEND, three[0], three[2])
    with pytest.raises(LoadError) as caught, cache.lease(stranger, BACKEND, device="cpu"):
        pass
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 600
    assert "zoo file" in caught.value.hint or "weight_name" in caught.value.hint
    assert {who.id: drawn(cache, who) for who in three} == wanted
    assert not cache.is_loaded(stranger, device="cpu")


def test_another_architecture_is_not_a_silent_base(settings: Settings, loras: Path, tiny_klein: Path) -> None:
    """No weight of a Stable Diffusion adapter fits FLUX.2; diffusers would continue without the adapter."""
    with (
        pytest.raises(LoadError, match="0 of the") as caught,
        ModelCache(settings).lease(adapter("ink", loras / "ink", tiny_klein), BACKEND, device="cpu"),
    ):
        pass
    assert "'base'" in caught.value.hint


def test_what_does_not_fit_is_refused(settings: Settings, tiny_sd: Path, loras: Path, tmp_path: Path) -> None:
    """A few weights for layers that the base lacks are not left out in silence: the first is named."""
    weights = load_file(loras / "ink" / USUAL_NAME)
    middle = {key: value.clone() for key, value in weights.items() if "mid_block" in key}
    spare = {key.replace("mid_block", "top_block"): value for key, value in middle.items()}
    save_file({**weights, **spare}, tmp_path / "x.safetensors")
    with (
        pytest.raises(LoadError, match=r"32 of the 40 layers .* unet\.top_block"),
        ModelCache(settings).lease(adapter("ink", tmp_path, tiny_sd), BACKEND, device="cpu"),
    ):
        pass


def test_a_damaged_file_is_an_error(settings: Settings, tiny_sd: Path, tmp_path: Path) -> None:
    """A file that is not safetensors cannot be attached to a base."""
    (tmp_path / "x.safetensors").write_bytes(b"\x08\0\0\0\0\0\0\0not json")
    with (
        pytest.raises(LoadError, match="SafetensorError"),
        ModelCache(settings).lease(adapter("x", tmp_path, tiny_sd), BACKEND, device="cpu"),
    ):
        pass


def test_a_pipeline_without_adapters_says_so(loras: Path) -> None:
    """Some pipelines of diffusers do not support adapters."""
    from diffusers import DDPMPipeline

    with pytest.raises(LoadError, match="DDPMPipeline takes no adapters"):
        attach(object.__new__(DDPMPipeline), loras / "ink" / USUAL_NAME, "a")


def test_an_adapter_made_for_pictures_is_refused(tiny_klein: Path, tmp_path: Path) -> None:
    """A control adapter would widen the first layer permanently, so it is refused before it can."""
    weights = {"transformer.x_embedder.lora_A.weight": torch.zeros(4, 32)}
    weights["transformer.x_embedder.lora_B.weight"] = torch.zeros(32, 4)
    save_file(weights, tmp_path / "x.safetensors")
    base = BACKEND.load(adapter("a", tmp_path, tiny_klein), tiny_klein, names_in(tiny_klein), device="cpu", have={})
    with pytest.raises(LoadError, match="to start from a picture"):
        BACKEND.attach(base, adapter("a", tmp_path, tiny_klein), tmp_path / "x.safetensors")


def test_the_least_used_adapter_goes_first(
    settings: Settings, three: tuple[Expert, Expert, Expert], tmp_path: Path
) -> None:
    """Within the budget, an idle adapter is evicted before its base; evicting the base also evicts its adapters."""
    plain, ink, toy = three
    cache = ModelCache(settings)
    touch(cache, BACKEND, *three)
    sizes = Counter[str]()
    for row in cache.explain().residents:
        sizes[row.experts[0]] += row.nbytes
    cache = ModelCache(settings, budget_bytes=sizes["plain"] + sizes["toy"], policy=LRU())
    wanted = drawn(cache, plain)
    touch(cache, BACKEND, ink, toy)
    assert [cache.is_loaded(who, device="cpu") for who in three] == [True, False, True]
    assert drawn(cache, plain) == wanted
    other = expert(stable_diffusion(tmp_path / "other", seed=9), "other")
    touch(cache, BACKEND, other)
    assert [cache.is_loaded(who, device="cpu") for who in (*three, other)] == [False, False, False, True]


def test_what_is_in_use_stays(settings: Settings, three: tuple[Expert, Expert, Expert]) -> None:
    """While one adapter is leased, base and adapter survive a clearing; afterwards everything is evicted."""
    _, ink, toy = three
    cache = ModelCache(settings, budget_bytes=1)
    with cache.lease(ink, BACKEND, device="cpu") as loaded:
        picture = pixels(BACKEND.draw(loaded, ask(ink)))
        touch(cache, BACKEND, toy)
        cache.clear()
        assert [cache.is_loaded(who, device="cpu") for who in three] == [True, True, False]
        assert pixels(BACKEND.draw(loaded, ask(ink))) == picture
    touch(cache, BACKEND, ink)
    # larger than the budget, and yet kept as long as nothing else is needed
    assert [cache.is_loaded(who, device="cpu") for who in three] == [True, True, False]
    assert cache.clear() > 0
    assert cache.explain().residents == ()


def test_a_closed_cache_lets_go_of_base_and_adapter(settings: Settings, three: tuple[Expert, Expert, Expert]) -> None:
    """A model that is leased when the cache closes is freed when the lease ends."""
    cache = ModelCache(settings)
    with cache.lease(three[1], BACKEND, device="cpu") as loaded:
        cache.close()
        assert pixels(BACKEND.draw(loaded, ask(three[1])))
    assert cache.explain().residents == ()
    assert all(tensor.numel() == 0 for tensor in loaded.model.pipe.unet.parameters())
