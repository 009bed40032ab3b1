"""Every architecture draws the same picture wherever and however its weights are placed."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

import pytest
import torch
from diffusers import DiffusionPipeline
from fixtures_diffusers import BACKEND, pixels
from miniature import expert
from miniatures import ARCHITECTURES, make_miniature, miniature_settings

from diffusiongpt.backends.diffusers import DiffusersBackend
from diffusiongpt.cache import ModelCache
from diffusiongpt.errors import OutOfMemoryError
from diffusiongpt.flow import Call
from diffusiongpt.hub import names_in
from diffusiongpt.weights import Weights

if TYPE_CHECKING:
    from pathlib import Path

    from diffusiongpt.settings import Settings
    from diffusiongpt.zoo import Expert

# diffusers calls its own deprecated method there
pytestmark = pytest.mark.filterwarnings("ignore:`upcast_vae` is deprecated:FutureWarning")

DEVICE = "cpu:1"
"""To torch it is host memory like any other, so it serves as a second device."""


@pytest.fixture(scope="session")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A miniature of each architecture; do not write into them."""
    return {name: make_miniature(name, tmp_path_factory.mktemp(name)) for name in ARCHITECTURES}


def entry(name: str, folder: Path, dtype: str = "float32") -> Expert:
    """The zoo entry of a miniature, in a type that the host has too."""
    settings = miniature_settings(name).model_copy(update={"dtype": dtype})
    return expert(folder, name).model_copy(update={"settings": settings, "architecture": name})


def call(who: Expert, *seeds: int) -> Call:
    """Two steps at the miniature's size."""
    settings = who.settings
    arguments: dict[str, Any] = {"width": settings.width, "height": settings.height, "num_inference_steps": 2}
    return Call(
        expert=who,
        prompt="a red fox",
        negative_prompt="",
        seeds=seeds or (7,),
        arguments={**arguments, **settings.extra},
    )


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_offloaded_and_streamed_the_same_pixels(settings: Settings, folders: dict[str, Path], name: str) -> None:
    """Large parts, or their layers, take turns; small ones stay, since pipelines read tensors of the autoencoder."""
    who = entry(name, folders[name])
    cache = ModelCache(settings)
    with cache.lease(who, BACKEND, device=DEVICE) as loaded:
        wanted = pixels(BACKEND.draw(loaded, call(who, 7, 8)))
        sizes = {part: weights.nbytes for part, weights in loaded.parts.items()}
    cache.clear(DEVICE)
    # as on a GPU: the autoencoder stays, the largest part does not
    decoder = next(size for part, size in sizes.items() if part in ("vae", "movq"))
    backend = DiffusersBackend(small_bytes=min(decoder, max(sizes.values()) - 1))
    for stream in (False, True):
        with cache.lease(who, backend, device=DEVICE, offload=True, stream=stream) as loaded:
            assert pixels(backend.draw(loaded, call(who, 7, 8), offload=True, stream=stream)) == wanted
            assert all(DEVICE not in part.places for part in loaded.parts.values())  # type: ignore[attr-defined]
    with cache.lease(who, backend, device=DEVICE) as loaded:
        assert pixels(backend.draw(loaded, call(who, 7, 8))) == wanted


@pytest.mark.parametrize("stream", [False, True])
def test_what_is_large_has_left_when_a_small_autoencoder_decodes(
    settings: Settings, folders: dict[str, Path], stream: bool
) -> None:
    """Decoding takes the most memory, so a plan counts it beside the small parts alone."""
    who = entry("flux1", folders["flux1"])
    with ModelCache(settings).lease(who, BACKEND, device=DEVICE, offload=True, stream=stream) as loaded:
        parts = loaded.parts
        small = parts["vae"].nbytes
        large = {name: part for name, part in parts.items() if part.nbytes > small}
        assert large
        there: list[list[str]] = []
        vae = parts["vae"].outline(DEVICE)  # type: ignore[attr-defined]
        vae.decoder.register_forward_pre_hook(
            lambda *_: there.append([name for name, part in large.items() if DEVICE in part.places])  # type: ignore[attr-defined]
        )
        DiffusersBackend(small_bytes=small).draw(loaded, call(who), offload=True, stream=stream)
    assert there == [[]]


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("name", ["sd3", "flux1"])
def test_a_text_is_encoded_once_for_all_pictures_of_a_request(
    settings: Settings, folders: dict[str, Path], name: str, stream: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its large encoders come to the device no more often for three pictures than for one."""
    who = entry(name, folders[name])
    came: list[Any] = []
    for way in ("bring", "stream"):
        come = getattr(Weights, way)
        monkeypatch.setattr(Weights, way, lambda part, device, come=come: (came.append(part), come(part, device))[1])
    with ModelCache(settings).lease(who, BACKEND, device=DEVICE, offload=True, stream=stream) as loaded:
        visits = []
        for seeds in ((7,), (7, 8, 9)):
            came.clear()
            DiffusersBackend(small_bytes=0).draw(loaded, call(who, *seeds), offload=True, stream=stream)
            visits.append({part: came.count(weights) for part, weights in loaded.parts.items()})
    encoders = [part for part in visits[0] if part.startswith("text_encoder")]
    assert encoders
    assert all(visits[0][part] == visits[1][part] > 0 for part in encoders)
    assert visits[1]["transformer"] == 3


@pytest.mark.parametrize(("does", "calls"), [("nothing more", 1), ("samples", 2), ("takes a note", 2)])
def test_what_a_pipeline_does_while_it_encodes_is_that_of_each_seed(
    settings: Settings, folders: dict[str, Path], does: str, calls: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Picture `i` of a request is the picture of `seed + i` alone, also where chance writes a part of the prompt.

    What a pipeline notes on itself while it encodes it may look for later, and each picture has a copy of its own.
    """
    from diffusers import FluxPipeline

    who, encode, asked = entry("flux1", folders["flux1"]), FluxPipeline.encode_prompt, []

    def encode_prompt(pipe: FluxPipeline, *args: Any, **options: Any) -> Any:
        embeds, *others = encode(pipe, *args, **options)
        asked.append(embeds)
        if does == "takes a note":
            pipe.read = len(asked)
        return (embeds + torch.rand(1) if does == "samples" else embeds, *others)

    monkeypatch.setattr(FluxPipeline, "encode_prompt", encode_prompt)
    with ModelCache(settings).lease(who, BACKEND, device=DEVICE, offload=True) as loaded:
        alone = [pixels(BACKEND.draw(loaded, call(who, seed), offload=True)) for seed in (7, 8)]
        asked.clear()
        both = pixels(BACKEND.draw(loaded, call(who, 7, 8), offload=True))
    assert len(asked) == calls
    assert both == [one for pictures in alone for one in pictures]


@pytest.mark.parametrize("stream", [False, True])
def test_weights_leave_only_when_what_computed_with_them_has_ended(
    settings: Settings, folders: dict[str, Path], stream: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A GPU computes on after a call has returned, and what has left is free for other weights at once."""
    who, running = entry("flux1", folders["flux1"]), set[Any]()
    leave, early = Weights.leave, []

    def leaves(part: Weights, device: str) -> None:
        early.extend(running & {part})
        leave(part, device)

    monkeypatch.setattr(Weights, "leave", leaves)
    for place in ("short_memory", "backend"):
        monkeypatch.setattr(f"diffusiongpt.backends.diffusers.{place}.finish", lambda *_, **__: running.clear())
    with ModelCache(settings).lease(who, BACKEND, device=DEVICE, offload=True, stream=stream) as loaded:
        parts: dict[str, Any] = dict(loaded.parts)
        for part in parts.values():
            # all within it, since an autoencoder decodes without being called itself
            for inner in part.outline(DEVICE).modules():
                inner.register_forward_hook(lambda *_, part=part: running.add(part))
        DiffusersBackend(small_bytes=0).draw(loaded, call(who, 7, 8), offload=True, stream=stream)
        assert not running
    assert not early


def test_a_lease_ends_when_what_was_started_in_it_has_ended(
    settings: Settings, folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its weights may leave right after it, whatever streams the caller used; a drawing uses that of its thread."""
    who, waited = entry("flux1", folders["flux1"]), []
    monkeypatch.setattr(
        "diffusiongpt.backends.diffusers.backend.finish", lambda *args, **options: waited.append((args, options))
    )
    with ModelCache(settings).lease(who, BACKEND, device=DEVICE) as loaded:
        with BACKEND.opened(loaded, expert=who):
            assert not waited
        assert ((DEVICE,), {"everywhere": True}) in waited
        waited.clear()
        BACKEND.draw(loaded, call(who))
        assert waited == [((DEVICE,), {})]


class Decoder(torch.nn.Module):
    """Runs a decoder and notes the size of each picture, or tile, that it is asked for."""

    def __init__(self, decoder: Any, sides: list[int]) -> None:
        super().__init__()
        self.inner = decoder
        self._sides = sides

    def forward(self, sample: torch.Tensor, *args: Any, **options: Any) -> Any:
        """Decode."""
        made = self.inner(sample, *args, **options)
        self._sides.append(made.shape[-1])
        return made


def test_tiles_are_small_and_gone_afterwards(folders: dict[str, Path]) -> None:
    """With `tile`, no more than a tile is decoded at a time; the next picture is decoded whole and as before."""
    who = entry("flux1", folders["flux1"])
    loaded = BACKEND.load(who, folders["flux1"], names_in(folders["flux1"]), device="cpu", have={})
    vae = loaded.model.pipe.vae
    wanted = pixels(BACKEND.draw(loaded, call(who)))
    sides: list[int] = []
    whole, vae.decoder = vae.decoder, Decoder(vae.decoder, sides)
    # a miniature decodes at once what fills thousands of tiles of a real one
    vae.tile_sample_min_size, vae.tile_latent_min_size = 16, 8
    BACKEND.draw(loaded, call(who), tile=True)
    assert len(sides) > 1
    assert max(sides) == 16
    vae.decoder = whole
    assert not vae.use_tiling
    assert pixels(BACKEND.draw(loaded, call(who))) == wanted


def test_a_model_without_tiles_does_not_draw_the_same_again(folders: dict[str, Path]) -> None:
    """Kandinsky's decoder has none: another attempt would run out of memory after all its steps, as the last did."""
    who = entry("kandinsky3", folders["kandinsky3"])
    loaded = BACKEND.load(who, folders["kandinsky3"], names_in(folders["kandinsky3"]), device="cpu", have={})
    steps: list[int] = []
    with pytest.raises(OutOfMemoryError, match="cannot decode by tiles"):
        BACKEND.draw(loaded, call(who), tile=True, on_step=lambda done, _: steps.append(done))
    assert steps == []


def tensors(pipe: Any) -> dict[str, torch.Tensor]:
    """All parameters and buffers of a pipeline, by name."""
    modules = {name: part for name, part in pipe.components.items() if isinstance(part, torch.nn.Module)}
    return {
        f"{name}.{path}": tensor
        for name, module in modules.items()
        for path, tensor in (*module.named_parameters(), *module.named_buffers())
    }


@pytest.mark.filterwarnings("ignore:`FluxPosEmbed` is deprecated:FutureWarning")
@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
@pytest.mark.parametrize("name", ARCHITECTURES)
def test_building_in_half_precision_never_sets_the_default_type(
    folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch, name: str, dtype: str
) -> None:
    """Other threads make tensors meanwhile; what is built is bit for bit what diffusers builds by setting it."""
    plain = DiffusionPipeline.from_pretrained(folders[name], dtype=getattr(torch, dtype), local_files_only=True)
    wanted = tensors(plain)
    changes: list[torch.dtype] = []
    monkeypatch.setattr("torch.set_default_dtype", changes.append)
    # the device decides only about the type
    where = folders[name]
    loaded = BACKEND.load(entry(name, where, dtype), where, names_in(where), device="mps", have={})
    assert changes == []
    found = tensors(loaded.model.pipe)
    assert {path: tensor.dtype for path, tensor in found.items()} == {path: one.dtype for path, one in wanted.items()}
    assert all(torch.equal(tensor, wanted[path]) for path, tensor in found.items())


def test_a_build_leaves_drawings_in_other_threads_alone(folders: dict[str, Path]) -> None:
    """Z-Image makes its sigmas in the default type: the same pixels, whatever is built meanwhile."""
    who, other = entry("z-image", folders["z-image"]), entry("flux1", folders["flux1"], "bfloat16")
    loaded = BACKEND.load(who, folders["z-image"], names_in(folders["z-image"]), device="cpu", have={})
    wanted = pixels(BACKEND.draw(loaded, call(who)))
    stop = threading.Event()

    def build() -> None:
        while not stop.is_set():
            BACKEND.load(other, folders["flux1"], names_in(folders["flux1"]), device="mps", have={})

    thread = threading.Thread(target=build)
    thread.start()
    try:
        assert [pixels(BACKEND.draw(loaded, call(who))) == wanted for _ in range(20)] == [True] * 20
    finally:
        stop.set()
        thread.join()
