"""LoRA files made with peft on the miniature, and experts for them."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from miniature import SIDE, expert

from diffusiongpt.hub import USUAL_NAME
from diffusiongpt.zoo import CallSettings, Expert, License, on_their_bases

if TYPE_CHECKING:
    from pathlib import Path

SIZE: dict[str, Any] = {"width": SIDE, "height": SIDE, "num_inference_steps": 2}


def write_lora(base: Path, folder: Path, *, seed: int, text: bool = False, name: str = USUAL_NAME) -> Path:
    """Train nothing: random low-rank weights for the UNet of a pipeline and, if requested, for its text encoder."""
    import torch
    from diffusers import StableDiffusionPipeline
    from peft import LoraConfig
    from peft.utils import get_peft_model_state_dict

    from diffusiongpt.backends.diffusers import quiet_construction

    torch.manual_seed(seed)
    config = partial(LoraConfig, r=4, lora_alpha=4, init_lora_weights=False)
    with quiet_construction():
        pipe = StableDiffusionPipeline.from_pretrained(base, use_safetensors=True)
        pipe.unet.add_adapter(config(target_modules=["to_q", "to_k", "to_v", "to_out.0"]))
        layers = {"unet_lora_layers": get_peft_model_state_dict(pipe.unet)}
        if text:
            pipe.text_encoder.add_adapter(config(target_modules=["q_proj", "v_proj"]))
            layers["text_encoder_lora_layers"] = get_peft_model_state_dict(pipe.text_encoder)
        pipe.save_lora_weights(folder, weight_name=name, **layers)
    return folder


def write_transformer_lora(base: Path, folder: Path) -> Path:
    """The same for the transformer of any other architecture: its attention, as files on the hub have it."""
    import torch
    from diffusers import DiffusionPipeline
    from peft import LoraConfig
    from peft.utils import get_peft_model_state_dict

    from diffusiongpt.backends.diffusers import quiet_construction

    torch.manual_seed(7)
    with quiet_construction():
        pipe = DiffusionPipeline.from_pretrained(base, use_safetensors=True)
        pipe.transformer.add_adapter(LoraConfig(r=4, init_lora_weights=False, target_modules=["to_q", "to_k", "to_v"]))
        pipe.save_lora_weights(folder, transformer_lora_layers=get_peft_model_state_dict(pipe.transformer))
    return folder


def in_kohyas_words(file: Path, copy: Path) -> None:
    """Rewrite a LoRA of a UNet in the format of kohya's scripts, which most adapters on the hub have."""
    import torch
    from safetensors.torch import load_file, save_file

    weights: dict[str, Any] = {}
    for key, value in load_file(file).items():
        path, _, matrix = key.removeprefix("unet.").removesuffix(".weight").rpartition(".")
        module = f"lora_unet_{path.replace('.', '_')}"
        weights[f"{module}.{'lora_down' if matrix == 'lora_A' else 'lora_up'}.weight"] = value
        weights[f"{module}.alpha"] = torch.tensor(2.0)
    save_file(weights, copy)


def adapter(name: str, repo: str | Path, base: str | Path, *, scale: float | None = None, **fields: Any) -> Expert:
    """An adapter at the miniature's size."""
    wanted = {"license": License(id="MIT", commercial="yes"), **fields}
    settings = CallSettings(**SIZE, adapter_scale=scale, weight_name=wanted.pop("weight_name", None))
    return Expert(id=name, repo=str(repo), kind="adapter", base=str(base), settings=settings, **wanted)


def family(base: str | Path, ink: str | Path, toy: str | Path) -> tuple[Expert, Expert, Expert]:
    """A checkpoint and two adapters on it, as zoo entries."""
    known = (expert(base, "plain"), adapter("ink", ink, base), adapter("toy", toy, base, scale=0.5))
    plain, first, second = on_their_bases({one.id: one for one in known}).values()
    return plain, first, second
