"""What a pass of a denoiser and a decode take on a GPU at real size, which figures of `placement/costs.yaml` state.

    python benchmarks/gpu_passes.py

needs an NVIDIA card with 48 GB (80 GB for all rows; what does not fit is left out), no network, and diffusers and
transformers beside torch. Modules have the published sizes and random weights. It prints Markdown for `RESULTS.md`:

- weights: GB of them, as they are on the card;
- live, reserved: GB that a pass at 1024 x 1024 takes beyond the weights, of tensors and of the allocator;
- seconds: of a pass at 1024 x 1024, guidance as its pipeline does it, the best of some;
- share: of the operations a second that are listed for the card, counting two for each parameter and token;
- small: seconds of a pass at 128 x 128, which is what the host takes to issue the work.
"""

from __future__ import annotations

import gc
import sys
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from typing import Any

from gpu_modules import MODELS, _autoencoder, _flux, _flux_autoencoder, _sdxl_unet, _t5
from gpu_swap import _name, _versions, timed

from diffusiongpt.placement import speed_of
from diffusiongpt.weights import device_facts, device_memory

DEVICE = "cuda:0"
SIDE, SMALL = 1024, 128
TEXT = 512


@dataclass(frozen=True)
class Case:
    """A module, and a pass of it for a square picture; pixels along a side of a token, and pictures in a pass.

    Without a token, its operations are not known.
    """

    build: Callable[[], Any]
    run: Callable[[Any, int], object]
    dtype: str = "bfloat16"
    token: int | None = 16
    passes: int = 1


def _rand(*shape: int, dtype: str = "bfloat16") -> Any:
    import torch

    return torch.rand(shape, device=DEVICE, dtype=getattr(torch, dtype))


def _whole(*shape: int) -> Any:
    import torch

    return torch.zeros(shape, device=DEVICE, dtype=torch.long)


def _unet(unet: Any, side: int) -> object:
    half = partial(_rand, dtype="float16")
    added = {"text_embeds": half(2, 1280), "time_ids": half(2, 6)} if unet.config.addition_embed_type else None
    text = half(2, 77, unet.config.cross_attention_dim)
    return unet(half(2, 4, side // 8, side // 8), 500, text, added_cond_kwargs=added)


def _sd15() -> Any:
    from diffusers import UNet2DConditionModel

    return UNet2DConditionModel(sample_size=64, cross_attention_dim=768)


def _flux1(model: Any, side: int) -> object:
    tokens = (side // 16) ** 2
    return model(
        hidden_states=_rand(1, tokens, 64),
        encoder_hidden_states=_rand(1, TEXT, 4096),
        pooled_projections=_rand(1, 768),
        timestep=_rand(1),
        img_ids=_rand(tokens, 3),
        txt_ids=_rand(TEXT, 3),
        guidance=_rand(1),
    )


def _flux2(**sizes: int) -> Any:
    from diffusers import Flux2Transformer2DModel

    return Flux2Transformer2DModel(**sizes)


def _flux2_pass(model: Any, side: int) -> object:
    tokens = (side // 16) ** 2
    return model(
        hidden_states=_rand(1, tokens, 128),
        encoder_hidden_states=_rand(1, TEXT, model.config.joint_attention_dim),
        timestep=_rand(1),
        img_ids=_rand(1, tokens, 4, dtype="float32"),
        txt_ids=_rand(1, TEXT, 4, dtype="float32"),
        guidance=_rand(1),
    )


def _qwen() -> Any:
    from diffusers import QwenImageTransformer2DModel

    return QwenImageTransformer2DModel()


def _qwen_pass(model: Any, side: int) -> object:
    wide = side // 16
    return model(
        hidden_states=_rand(1, wide * wide, 64),
        encoder_hidden_states=_rand(1, TEXT, 3584),
        encoder_hidden_states_mask=_whole(1, TEXT) + 1,
        timestep=_rand(1),
        img_shapes=[[(1, wide, wide)]],
    )


def _z_image() -> Any:
    from diffusers import ZImageTransformer2DModel

    return ZImageTransformer2DModel()


def _z_image_pass(model: Any, side: int) -> object:
    latent = side // 8
    return model([_rand(16, 1, latent, latent)] * 2, _rand(2), [_rand(TEXT, 2560)] * 2)


def _ernie() -> Any:
    from diffusers import ErnieImageTransformer2DModel

    return ErnieImageTransformer2DModel(
        hidden_size=4096,
        num_attention_heads=32,
        num_layers=36,
        ffn_hidden_size=12288,
        text_in_dim=3072,
        rope_axes_dim=(32, 48, 48),
    )


def _ernie_pass(model: Any, side: int) -> object:
    wide = side // 16
    return model(
        hidden_states=_rand(2, 128, wide, wide),
        timestep=_rand(2),
        text_bth=_rand(2, TEXT, 3072),
        text_lens=_whole(2) + TEXT,
    )


def _decode(channels: int, dtype: str) -> Callable[[Any, int], object]:
    return lambda vae, side: vae.decode(_rand(1, channels, side // 8, side // 8, dtype=dtype))


def _qwen_autoencoder() -> Any:
    from diffusers import AutoencoderKLQwenImage

    return AutoencoderKLQwenImage()


def _text(model: Any, _side: int) -> object:
    return model(_whole(1, TEXT if type(model).__name__.startswith("T5") else 77))


CASES = {
    "sd15, guided": Case(_sd15, _unet, "float16", 32, 2),
    "sdxl, guided": Case(partial(_sdxl_unet, 1), _unet, "float16", 32, 2),
    "sdxl CLIP bigG": Case(partial(MODELS["sdxl"][2].build, 1), _text, "float16", None),
    "sdxl decode in float16": Case(partial(_autoencoder, 1), _decode(4, "float16"), "float16", None),
    "sdxl decode in float32": Case(partial(_autoencoder, 1), _decode(4, "float32"), "float32", None),
    "flux1": Case(partial(_flux, 1), _flux1),
    "flux1 T5-XXL": Case(partial(_t5, 1), _text, token=None),
    "flux1 decode": Case(partial(_flux_autoencoder, 1), _decode(16, "bfloat16"), token=None),
    "flux2-klein, 4B": Case(
        partial(_flux2, num_layers=5, num_single_layers=20, num_attention_heads=24, joint_attention_dim=7680),
        _flux2_pass,
    ),
    "flux2-klein, 9B": Case(
        partial(_flux2, num_layers=8, num_single_layers=24, num_attention_heads=32, joint_attention_dim=12288),
        _flux2_pass,
    ),
    "qwen-image": Case(_qwen, _qwen_pass),
    "qwen-image decode": Case(
        _qwen_autoencoder, lambda vae, side: vae.decode(_rand(1, 16, 1, side // 8, side // 8)), token=None
    ),
    "z-image, guided": Case(_z_image, _z_image_pass, passes=2),
    "ernie-image, guided": Case(_ernie, _ernie_pass, passes=2),
    "flux2": Case(_flux2, _flux2_pass),
}


def measure(case: Case) -> list[str]:
    """Cells of one row, after the name."""
    import torch

    before = torch.get_default_dtype()
    torch.set_default_dtype(getattr(torch, case.dtype))
    try:
        # some modules keep tensors that are neither parameters nor buffers, so they are made where they work
        with torch.device(DEVICE):
            module = case.build().eval().requires_grad_(False)  # noqa: FBT003  # torch's own name
    finally:
        torch.set_default_dtype(before)
    nbytes = sum(one.nbytes for one in {id(one): one for one in (*module.parameters(), *module.buffers())}.values())
    with torch.inference_mode():
        small = min(timed(lambda: case.run(module, SMALL), DEVICE) for _ in range(5))
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(DEVICE)
        allocated, reserved = torch.cuda.memory_allocated(DEVICE), torch.cuda.memory_reserved(DEVICE)
        case.run(module, SIDE)
        live = torch.cuda.max_memory_allocated(DEVICE) - allocated
        held = torch.cuda.max_memory_reserved(DEVICE) - reserved
        seconds = min(timed(lambda: case.run(module, SIDE), DEVICE) for _ in range(4))
    listed, _ = speed_of("cuda", device_facts(DEVICE)[0], device_memory(DEVICE) or 0)
    share = ""
    if case.token is not None:
        share = f"{nbytes * (SIDE / case.token) ** 2 * case.passes / seconds / listed:.0%}"
    return [
        f"{nbytes / 1e9:.2f}",
        f"{live / 1e9:.2f}",
        f"{held / 1e9:.2f}",
        f"{seconds:.4f}",
        share,
        f"{small:.4f}",
    ]


def main() -> None:
    """Measure all, and print; what fails is a row that says why."""
    import torch

    if not torch.cuda.is_available():
        print("This needs an NVIDIA card.", file=sys.stderr)
        raise SystemExit(1)
    print(f"## {datetime.now(UTC):%Y-%m-%d}, {_name(DEVICE)}\n\n{_versions()}; `python benchmarks/gpu_passes.py`.\n")
    print("| | weights GB | live GB | reserved GB | seconds | share | small, seconds |\n|---|---|---|---|---|---|---|")
    for name, case in CASES.items():
        try:
            cells = measure(case)
        except Exception as error:  # noqa: BLE001  # the table is to be whole, whatever fails on an unknown machine
            cells = [f"{type(error).__name__}: {str(error)[:80]}", *[""] * 5]
        print(f"| {name} | {' | '.join(cells)} |", flush=True)
        gc.collect()
        torch.cuda.empty_cache()


if __name__ == "__main__":
    main()
