"""What servers of the Images API accept, as their own sources say, to hold what is sent against.

These are independent of the table that says what we send: a double that shared it would prove nothing. Each refuses
fields that its server does not have, also where the server itself would ignore them.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError

Size = Annotated[str, StringConstraints(pattern=r"^[1-9]\d{1,4}x[1-9]\d{1,4}$")]
Prompt = Annotated[str, StringConstraints(min_length=1, max_length=32_000)]
Percent = Annotated[int, Field(ge=0, le=100)]
Count = Annotated[int, Field(ge=1, le=10)]


class _Body(BaseModel):
    model_config = ConfigDict(extra="forbid")

    prompt: Prompt
    model: str | None = None
    n: Count = 1


class _OpenAI(_Body):
    model: str
    background: Literal["transparent", "opaque", "auto"] = "auto"
    complexity: Literal["low", "medium", "high"] | None = None
    moderation: Literal["low", "auto"] | None = None
    output_compression: Percent | None = None
    output_format: Literal["png", "webp", "jpeg", "gif", "svg"] = "png"
    partial_images: Annotated[int, Field(ge=0, le=3)] = 0
    quality: Literal["low", "medium", "high", "xhigh", "max", "auto", "standard", "hd"] = "auto"
    response_format: Literal["url", "b64_json"] | None = None
    safety_identifier: str | None = None
    size: Size | Literal["auto"] = "auto"
    stream: bool = False
    style: Literal["vivid", "natural"] | None = None
    user: str | None = None


class _OpenAIEdit(_OpenAI):
    moderation: None = None
    style: None = None
    input_fidelity: Literal["high", "low"] | None = None


class _DallE3(_Body):
    model: str
    n: Literal[1] = 1
    quality: Literal["standard", "hd"] = "standard"
    response_format: Literal["url", "b64_json"] = "url"
    size: Literal["1024x1024", "1792x1024", "1024x1792"] = "1024x1024"
    style: Literal["vivid", "natural"] = "vivid"
    user: str | None = None


class _Diffusion(_Body):
    negative_prompt: str | None = None
    guidance_scale: Annotated[float, Field(ge=0, le=20)] | None = None
    true_cfg_scale: Annotated[float, Field(ge=0, le=20)] | None = None
    seed: int | None = None
    output_format: Literal["png", "webp", "jpeg", "jpg"] | None = None
    user: str | None = None


class _Vllm(_Diffusion):
    # neither "auto" nor "url"
    size: Size | None = None
    response_format: Literal["b64_json", "file"] = "b64_json"
    num_inference_steps: Annotated[int, Field(ge=1, le=200)] | None = None
    lora: dict[str, Any] | None = None
    extra_params: dict[str, Any] | None = None
    vae_use_tiling: bool | None = None
    infer_align_image_size: bool | None = None
    return_stage_metrics: bool | None = None


class _VllmEdit(_Diffusion):
    size: Size | Literal["auto"] = "auto"
    response_format: Literal["b64_json"] = "b64_json"
    num_inference_steps: Annotated[int, Field(ge=1, le=200)] | None = None
    background: Literal["transparent", "opaque", "auto"] = "auto"
    output_compression: Percent = 100
    infer_align_image_size: bool | None = None
    stream: bool = False


class _Sglang(_Diffusion):
    size: Size = "1024x1024"
    width: int | None = None
    height: int | None = None
    response_format: Literal["b64_json", "url"] = "url"
    num_inference_steps: int | None = None
    generator_device: str = "cuda"
    diffusers_kwargs: dict[str, Any] | None = None
    enhance_prompt: bool = False
    output_compression: Percent | None = None
    background: Literal["transparent", "opaque", "auto"] = "auto"
    quality: str | None = None
    flow_shift: float | None = None
    max_sequence_length: int | None = None


class _SglangEdit(_Sglang):
    size: Size | None = None  # type: ignore[assignment]  # by default that of the picture
    response_format: Literal["b64_json", "url"] = "b64_json"
    diffusers_kwargs: None = None
    flow_shift: None = None
    max_sequence_length: None = None


class _LocalAI(_Body):
    size: str = "512x512"
    response_format: Literal["b64_json", "url"] = "url"
    step: int | None = None
    mode: int | None = None
    seed: int | None = None


class _LlamaSwap(_Body):
    model: str
    size: Size | None = None
    quality: str | None = None
    response_format: Literal["b64_json", "url"] | None = None
    output_format: str | None = None
    user: str | None = None


class _SdCpp(_Body):
    size: Size | None = None
    output_format: Literal["png", "jpeg", "webp"] = "png"
    output_compression: Percent = 100


class _SdCppEdit(_SdCpp):
    output_format: Literal["png", "jpeg"] = "png"  # its documentation has no WebP here


class _Ours(_Diffusion):
    size: Size | Literal["auto"] = "auto"
    response_format: Literal["b64_json", "url"] = "b64_json"
    num_inference_steps: int | None = None
    strength: float | None = None
    background: Literal["transparent", "opaque", "auto"] = "auto"
    quality: str | None = None


SCHEMAS: Mapping[str, tuple[type[_Body], type[_Body] | None]] = {
    "openai": (_OpenAI, _OpenAIEdit),
    "dall-e-3": (_DallE3, None),
    "vllm-omni": (_Vllm, _VllmEdit),
    "sglang": (_Sglang, _SglangEdit),
    "localai": (_LocalAI, None),
    "llama-swap": (_LlamaSwap, _LlamaSwap),
    "sd-cpp": (_SdCpp, _SdCppEdit),
    "diffusiongpt": (_Ours, _Ours),
}
"""Dialect -> what its generations and its edits take; `None` for no edits."""

ORDERS: Mapping[str, tuple[tuple[str, str], ...]] = {
    "vllm-omni": (("POST", "/v1/omni/sleep"), ("POST", "/v1/omni/wakeup")),
    "sglang": (("POST", "/release_memory_occupation"), ("POST", "/resume_memory_occupation")),
    "llama-swap": (("GET", "/unload"),),
}
"""Dialect -> its requests about memory."""

GIVES_ADDRESSES = frozenset({"sglang", "localai", "dall-e-3"})
"""Those that answer with an address unless they are asked for the picture itself."""


def checked(dialect: str, body: Mapping[str, Any], *, edits: bool) -> tuple[dict[str, Any], str]:
    """The fields that a server reads, with its defaults, or why it refuses them."""
    schema = SCHEMAS[dialect][edits]
    if schema is None:
        return {}, "this server has no such path"
    try:
        fields = schema.model_validate(dict(body)).model_dump(exclude_none=True)
    except ValidationError as error:
        first = error.errors()[0]
        return {}, f"{'.'.join(map(str, first['loc']))}: {first['msg']}"
    if dialect == "sd-cpp":
        tag = re.search(r"<sd_cpp_extra_args>(.*)</sd_cpp_extra_args>", fields["prompt"], re.DOTALL)
        if tag is not None:
            fields["prompt"] = fields["prompt"].replace(tag[0], "").strip()
            fields |= json.loads(tag[1])
    if dialect == "localai":
        fields["prompt"], _, fields["negative_prompt"] = fields["prompt"].partition("|")
    return fields, ""
