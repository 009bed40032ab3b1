"""The weights of a module: packed into one block, copied to devices, restored, freed."""

from __future__ import annotations

import copy
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest
from miniatures import make_miniature

from diffusiongpt.backends.diffusers import activated, attach, detach, quiet_construction
from diffusiongpt.errors import LoadError
from diffusiongpt.weights import HostBlock, Weights, send, slot

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

OTHER = "cpu:1"
"""To torch it is host memory like any other, so it serves as a second device."""

COMPONENTS = {
    "unet": ("sd15", "unet"),
    "wide unet": ("sdxl", "unet"),
    "transformer": ("flux2-klein", "transformer"),
    "clip": ("sdxl", "text_encoder"),
    "projecting clip": ("sdxl", "text_encoder_2"),
    "t5": ("pixart", "text_encoder"),
    "language model": ("flux2-klein", "text_encoder"),
    "autoencoder": ("sdxl", "vae"),
    "normalised autoencoder": ("flux2-klein", "vae"),
}


@pytest.fixture(scope="session")
def pipes(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Any]:
    """Loads a miniature from its files; copy its parts before changing them."""
    known: dict[str, Any] = {}

    def load(architecture: str) -> Any:
        if architecture not in known:
            folder = make_miniature(architecture, tmp_path_factory.mktemp(architecture) / "model")
            known[architecture] = _load(folder)
        return known[architecture]

    return load


@pytest.fixture(autouse=True)
def _no_gradients() -> Iterator[None]:
    import torch

    with torch.no_grad():
        yield


@pytest.mark.parametrize("move", ["bring", "stream", "leave", "bring to the host", "free"])
def test_where_memory_is_shared_nothing_moves_beside_a_drawing(move: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two threads that use MPS at once end the process, so moves wait for the slot that a drawing holds."""
    import torch

    monkeypatch.setattr("diffusiongpt.weights.devices.ONE_MEMORY", frozenset({OTHER}))
    weights = Weights.pack(torch.nn.Linear(4, 4))
    if move not in ("bring", "stream"):
        weights.bring(OTHER)
    if move == "bring to the host":
        weights.leave("cpu")
    moves: dict[str, Callable[[], None]] = {
        "bring": lambda: weights.bring(OTHER),
        "stream": lambda: weights.stream(OTHER),
        "leave": lambda: weights.leave(OTHER),
        "bring to the host": lambda: weights.bring("cpu"),
        "free": weights.free,
    }
    before = weights.places
    with ThreadPoolExecutor(1) as other:
        with slot(OTHER):
            moved = other.submit(moves[move])
            # what draws may still use its own weights
            weights.restore(OTHER if OTHER in before else "cpu")
            with pytest.raises(TimeoutError):
                moved.result(0.1)
            assert OTHER not in before ^ weights.places
        moved.result(60)
    assert weights.places != before


@pytest.mark.parametrize("name", COMPONENTS)
def test_every_copy_computes_the_same_bits(name: str, pipes: Callable[[str], Any]) -> None:
    """A module has the same bits packed, on a device, after the host freed its block, and after another round trip."""
    architecture, component = COMPONENTS[name]
    module = copy.deepcopy(pipes(architecture).components[component])
    wanted = _run(module)
    weights = Weights.pack(module)
    _same(_run(weights.on("cpu")), wanted)
    weights.bring(OTHER)
    replica = weights.on(OTHER)
    _same(_run(replica), wanted)
    weights.leave(OTHER)
    weights.bring(OTHER)
    assert weights.on(OTHER) is replica
    _same(_run(replica), wanted)
    weights.leave("cpu")
    _same(_run(replica), wanted)
    assert weights.places == {OTHER}


def test_a_module_of_many_pieces(pipes: Callable[[str], Any]) -> None:
    """Large modules are in several blocks on a device, and compute the same."""
    module = copy.deepcopy(pipes("sdxl").unet)
    wanted = _run(module)
    weights = Weights.pack(module, piece=4096)
    weights.bring(OTHER)
    assert len({tensor.untyped_storage().data_ptr() for tensor in weights.on(OTHER).parameters()}) > 20
    _same(_run(weights.on(OTHER)), wanted)
    _same(_run(module), wanted)


def test_a_replica_shares_nothing_that_can_change(pipes: Callable[[str], Any]) -> None:
    """Writing into a copy, its settings or its mode does not change another copy."""
    import torch

    module = copy.deepcopy(pipes("sd15").unet)
    weights = Weights.pack(module)
    weights.bring(OTHER)
    replica = weights.on(OTHER)
    assert type(replica) is type(module)
    assert not {id(part) for part in module.modules()} & {id(part) for part in replica.modules()}
    assert not _addresses(module) & _addresses(replica)
    before = _run(module)
    for tensor in replica.parameters():
        tensor.add_(1)
    replica.train()
    _same(_run(module), before)
    assert not module.training
    assert not torch.equal(_run(replica)[0], before[0])


@pytest.mark.parametrize("drawing", [False, True])
def test_what_changes_its_type_is_restored(pipes: Callable[[str], Any], *, drawing: bool) -> None:
    """SDXL's autoencoder converts itself to float32 and back while it draws; restored, it equals the block again."""
    import torch

    module = copy.deepcopy(pipes("sdxl").vae).to(torch.float16)
    weights = Weights.pack(module)
    weights.bring(OTHER)
    for device in ("cpu", OTHER):
        part = weights.on(device)
        wanted, addresses = _state(part), _addresses(part)
        with torch.inference_mode(mode=drawing):
            part.to(torch.float32)
            part.to(torch.float16)
        assert _addresses(part) != addresses
        weights.restore(device)
        assert _addresses(part) == addresses
        _same(_state(part), wanted)


def test_a_copy_that_is_float32_just_now_can_leave_and_come(pipes: Callable[[str], Any]) -> None:
    """Leaving in the middle also frees the changed tensors, and the next copy is made from the block."""
    import torch

    module = copy.deepcopy(pipes("sdxl").vae).to(torch.float16)
    weights = Weights.pack(module)
    weights.bring(OTHER)
    replica = weights.on(OTHER)
    wanted = _state(replica)
    replica.to(torch.float32)
    weights.leave(OTHER)
    assert {(tensor.numel(), tensor.dtype) for tensor in replica.parameters()} == {(0, torch.float16)}
    module.to(torch.float32)
    weights.bring(OTHER)
    _same(_state(replica), wanted)
    weights.bring("cpu:2")
    _same(_state(weights.on("cpu:2")), wanted)


def test_tied_weights_stay_tied_and_count_once(pipes: Callable[[str], Any]) -> None:
    """T5 has its embedding in two places, and transformers ties heads to embeddings: each is copied once."""
    import torch

    t5 = copy.deepcopy(pipes("pixart").text_encoder)
    layer = torch.nn.ModuleDict({"first": torch.nn.Linear(64, 64), "second": torch.nn.Linear(64, 64)})
    layer["second"].weight.data = layer["first"].weight.data  # another parameter over the same bytes
    layer["second"].bias.data = layer["first"].weight.data[3]  # and one over a part of them
    for module in (t5, layer):
        bytes_ = {tensor.data_ptr(): tensor.untyped_storage().nbytes() for tensor in module.parameters()}
        weights = Weights.pack(module)
        assert weights.nbytes <= sum(bytes_.values()) + 64 * len(bytes_)
        weights.bring(OTHER)
    assert t5.shared.weight is t5.encoder.embed_tokens.weight
    replica = Weights.pack(t5)
    replica.bring(OTHER)
    assert replica.on(OTHER).shared.weight is replica.on(OTHER).encoder.embed_tokens.weight
    for one in (layer, weights.on(OTHER)):
        assert weights.nbytes == 64 * 64 * 4 + 64 * 4
        one["first"].weight[3, 5] = 7.0
        assert one["second"].weight[3, 5] == one["second"].bias[5] == 7.0


def test_adapters_on_a_replica_come_and_go(tiny_sd: Path, loras: Path) -> None:
    """An adapter works on the device's copy, survives a restore, and leaves no trace; other copies are unaffected."""
    adapted = _load(tiny_sd)
    plain = _draw(adapted)
    attach(adapted, loras / "toy" / "pytorch_lora_weights.safetensors", "toy")
    with activated(adapted, {"toy": 1.0}):
        wanted = _draw(adapted)
    assert wanted != plain
    pipe = _load(tiny_sd)
    packed = {name: Weights.pack(pipe.components[name]) for name in ("unet", "vae", "text_encoder")}
    for name, weights in packed.items():
        weights.bring(OTHER)
        setattr(pipe, name, weights.on(OTHER))
    attach(pipe, loras / "toy" / "pytorch_lora_weights.safetensors", "toy")
    for weights in packed.values():
        weights.restore(OTHER)
    with activated(pipe, {"toy": 1.0}):
        assert _draw(pipe) == wanted
    for weights in packed.values():
        weights.leave(OTHER)
        weights.bring(OTHER)
    with activated(pipe, {"toy": 1.0}):
        assert _draw(pipe) == wanted
    assert _draw(pipe) == plain
    detach(pipe, "toy")
    assert _draw(pipe) == plain
    assert not any("lora" in name for name, _ in packed["unet"].on("cpu").named_parameters())
    assert not any("lora" in name for name, _ in pipe.unet.named_parameters())


def test_bringing_while_a_model_is_built_elsewhere(pipes: Callable[[str], Any]) -> None:
    """While accelerate builds a model, every module of the process registers meta tensors; a swap is not affected."""
    from accelerate import init_empty_weights

    module = copy.deepcopy(pipes("sd15").unet)
    wanted = _run(module)
    weights = Weights.pack(module)
    with init_empty_weights(include_buffers=False):
        weights.bring(OTHER)
        weights.leave(OTHER)
        weights.bring(OTHER)
    _same(_run(weights.on(OTHER)), wanted)


def test_two_who_bring_at_once_copy_once(pipes: Callable[[str], Any]) -> None:
    """The second waits for the first and finds the copy there."""
    started: list[str] = []

    def slow(host: HostBlock, pieces: Any, device: str) -> Any:
        started.append(device)
        time.sleep(0.05)
        return send(host, pieces, device)

    weights = Weights.pack(copy.deepcopy(pipes("sd15").unet), send=slow)
    with ThreadPoolExecutor() as pool:
        list(pool.map(weights.bring, [OTHER] * 4))
    assert started == [OTHER]


def test_a_copy_that_fails_leaves_nothing(pipes: Callable[[str], Any]) -> None:
    """A device that fails during the copy has no copy afterwards, and the next attempt may succeed."""
    failures = ["the device is gone"]

    def broken_once(host: HostBlock, pieces: Any, device: str) -> Any:
        blocks, wait = send(host, pieces, device)

        def fail() -> None:
            wait()
            if failures:
                raise RuntimeError(failures.pop())

        return blocks, fail

    weights = Weights.pack(copy.deepcopy(pipes("sd15").unet), send=broken_once)
    with pytest.raises(RuntimeError, match="gone"):
        weights.bring(OTHER)
    assert weights.places == {"cpu"}
    weights.bring(OTHER)
    _same(_state(weights.on(OTHER)), _state(weights.on("cpu")))


def test_copies_are_where_they_were_brought(pipes: Callable[[str], Any]) -> None:
    """Bringing twice copies once, leaving where there is no copy does nothing, and using a copy there is an error."""
    weights = Weights.pack(copy.deepcopy(pipes("sd15").vae))
    assert weights.places == {"cpu"}
    with pytest.raises(LoadError, match="not on 'cpu:1' but on: cpu"):
        weights.on(OTHER)
    weights.leave(OTHER)
    weights.bring("cpu")
    weights.bring(OTHER)
    addresses = _addresses(weights.on(OTHER))
    weights.bring(OTHER)
    assert _addresses(weights.on(OTHER)) == addresses
    weights.leave("cpu")
    with pytest.raises(LoadError, match="not on 'cpu'"):
        weights.bring("cpu:2")
    weights.free()
    weights.free()
    assert weights.places == frozenset()
    with pytest.raises(LoadError, match="nowhere"):
        weights.restore(OTHER)


def test_what_a_copy_would_get_wrong_is_refused(pipes: Callable[[str], Any]) -> None:
    """A module without bytes, one with an adapter, and one whose `forward` a hook replaced are errors."""
    import torch
    from peft import LoraConfig

    with pytest.raises(LoadError, match="no weights yet"):
        Weights.pack(torch.nn.Linear(2, 2, device="meta"))
    adapted = copy.deepcopy(pipes("sd15").unet)
    weights = Weights.pack(adapted)
    adapted.add_adapter(LoraConfig(r=2, target_modules=["to_q"]))
    with pytest.raises(LoadError, match="tensors were added"):
        weights.bring(OTHER)
    hooked = copy.deepcopy(pipes("flux2-klein").transformer)
    hooked.enable_layerwise_casting(storage_dtype=torch.float8_e4m3fn, compute_dtype=torch.float32)
    with pytest.raises(LoadError, match="`forward`"):
        Weights.pack(hooked).bring(OTHER)


def _draw(pipe: Any) -> bytes:
    import torch

    pipe.set_progress_bar_config(disable=True)
    image = pipe("fox", width=32, height=32, num_inference_steps=2, generator=torch.Generator().manual_seed(1)).images[
        0
    ]
    return bytes(image.tobytes())


def _load(folder: Path) -> Any:
    with quiet_construction():
        from diffusers import DiffusionPipeline

        return DiffusionPipeline.from_pretrained(folder, use_safetensors=True)


def _run(module: Any) -> list[Any]:
    import torch

    kind = type(module).__name__
    if kind.startswith("Autoencoder"):
        return [module(torch.linspace(-1, 1, 3 * 32 * 32).view(1, 3, 32, 32)).sample]
    if kind == "UNet2DConditionModel":
        width = module.config.cross_attention_dim
        more = {"text_embeds": torch.ones(1, 16), "time_ids": torch.ones(1, 6)}
        latents = torch.linspace(-1, 1, 4 * 16 * 16).view(1, 4, 16, 16)
        return [module(latents, 5, torch.ones(1, 8, width), added_cond_kwargs=more).sample]
    if kind == "Flux2Transformer2DModel":
        return [
            module(
                hidden_states=torch.linspace(-1, 1, 4 * 16).view(1, 4, 16),
                encoder_hidden_states=torch.ones(1, 3, module.config.joint_attention_dim),
                timestep=torch.tensor([0.5]),
                img_ids=torch.zeros(1, 4, 4),
                txt_ids=torch.zeros(1, 3, 4),
            ).sample
        ]
    return list(module(torch.tensor([[1, 2, 3, 4]]), output_hidden_states=True).hidden_states)


def _same(some: Any, others: Any) -> None:
    import torch

    assert len(some) == len(others) > 0
    pairs = zip(some, others, strict=True) if isinstance(some, list) else [(some[key], others[key]) for key in some]
    for one, other in pairs:
        assert one.dtype == other.dtype
        assert torch.equal(one, other)


def _state(module: Any) -> dict[str, Any]:
    return {name: tensor.clone() for name, tensor in module.state_dict().items()}


def _tensors(module: Any) -> dict[str, Any]:
    return {**dict(module.named_parameters()), **dict(module.named_buffers())}


def _addresses(module: Any) -> set[int]:
    return {tensor.data_ptr() for tensor in _tensors(module).values() if tensor.numel()}
