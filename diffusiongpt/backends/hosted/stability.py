"""Pictures by the API of Stability AI: Stable Image Ultra and Core, and the Stable Diffusion 3.5 family."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from diffusiongpt.backends.hosted.answers import Answered, decode_base64
from diffusiongpt.backends.hosted.asking import NOT_TAKEN, collect, drawing_of, dropped_from, model_of
from diffusiongpt.backends.hosted.failures import Service, refused
from diffusiongpt.backends.hosted.forms import as_asked, form, nearest_ratio, ready_key
from diffusiongpt.backends.hosted.limits import Limits
from diffusiongpt.bounded import parse_json
from diffusiongpt.errors import DrawError
from diffusiongpt.flow import left_out, on_white

if TYPE_CHECKING:
    from diffusiongpt.backends.base import OnStep
    from diffusiongpt.flow import Call, Drawing, Task
    from diffusiongpt.settings import Settings
    from diffusiongpt.zoo import Expert


SERVICE = Service(key="STABILITY_API_KEY", address="STABILITY_BASE_URL")

LIMITS = Limits(timeout_s=180.0, answer_bytes=7_500_000)
"""A PNG of one and a half megapixels in base64 has fewer bytes than that, and JSON is read up to 8 MB."""

RATIOS = ("1:1", "16:9", "9:16", "3:2", "2:3", "5:4", "4:5", "21:9", "9:21")
LAST_SEED = 4_294_967_294
"""Highest seed; 0 asks for a random one."""

GUIDANCE = (1.0, 10.0)
"""Lowest and highest `cfg_scale`."""


@dataclass(frozen=True, kw_only=True)
class _Path:
    """One of the service's generators.

    Attributes:
        name: Last part of its address.
        model: Whether it wants to know the model.
        takes: Arguments of ours that it takes.
    """

    name: str
    model: bool = False
    takes: frozenset[str] = frozenset({"seed", "negative_prompt"})


_STARTS = frozenset({"seed", "negative_prompt", "strength"})
_PATHS = {
    "stable-image-ultra": _Path(name="ultra", takes=_STARTS),
    "stable-image-core": _Path(name="core"),
    "sd3.5-large-turbo": _Path(name="sd3", model=True, takes=_STARTS),
}
"""Name of a model -> its generator; of what it says about each, the turbo models alone have no guidance.

Source: https://platform.stability.ai/docs/api-reference, by its mirrors in the clients stability-ai 0.7.0 (npm) and
litellm."""

_SD3 = _Path(name="sd3", model=True, takes=_STARTS | {"guidance_scale"})
"""The generator of every other model."""

_SETTINGS = frozenset({"style_preset"})


class StabilityBackend:
    """Asks for one picture at a time, with its seed, and reads it from the answer.

    Args:
        limits: How far its answers are read.
    """

    hosted: Literal[True] = True
    metered: Literal[True] = True

    def __init__(self, limits: Limits = LIMITS) -> None:
        self._limits = limits

    def check(self, settings: Settings) -> None:
        """See `HostedBackend.check`."""
        ready_key(settings.stability_api_key, SERVICE, settings)

    def tasks(self, expert: Expert) -> frozenset[Task]:
        """See `Backend.tasks`."""
        tasks: set[Task] = {"text-to-image"}
        if expert.capabilities.img2img and "strength" in _path_of(expert).takes:
            tasks.add("image-to-image")
        return frozenset(tasks)

    def draw(self, resolved: Call, settings: Settings, *, on_step: OnStep | None = None) -> Drawing:
        """See `HostedBackend.draw`."""
        key = ready_key(settings.stability_api_key, SERVICE, settings)
        from diffusiongpt.backends.hosted.http import Caller, bounded_client, exchange

        path, fields = _path_of(resolved.expert), _fields(resolved)
        caller = Caller(service=SERVICE, key=key, timeout_s=self._limits.timeout_s, expert=resolved.expert)
        address = f"{settings.stability_base_url}/v2beta/stable-image/generate/{path.name}"
        headers = {"Authorization": f"Bearer {key}", "Accept": "application/json"}
        start = {"image": resolved.inputs[0].opaque} if resolved.task == "image-to-image" else {}

        with bounded_client(limit=self._limits.answer_bytes, seconds=self._limits.timeout_s) as client:

            def ask(seeds: Sequence[int]) -> Answered:
                sent = form({**fields, "seed": _seed(seeds[0])}, start)
                answer = exchange(client, caller, "POST", address, headers=headers, files=sent)
                return self._read(answer.body, resolved)

            done = collect(resolved, ask, most=1, on_step=on_step)
        not_taken = {name: why for name, why in NOT_TAKEN.items() if name not in path.takes}
        ours = {name: resolved.arguments.get(name) for name in ("guidance_scale", "strength")}
        return drawing_of(
            resolved,
            done,
            params={"model": model_of(resolved.expert), "style_preset": fields.get("style_preset"), **ours},
            dropped=(*dropped_from(resolved, not_taken, _SETTINGS), *left_out(resolved, 1), *on_white(resolved, 1)),
            absent=tuple(not_taken),
        )

    def _read(self, body: bytes, call: Call) -> Answered:
        try:
            said = parse_json(body)
        except ValueError:
            said = None
        encoded = said.get("image") if isinstance(said, dict) else None
        if isinstance(said, dict) and str(said.get("finish_reason")).upper() == "CONTENT_FILTERED":
            raise refused(call.expert)
        if not isinstance(encoded, str):
            raise DrawError(
                f"{call.expert.id}: the answer holds no picture",
                hint=f"Check {SERVICE.address}: another kind of server may be listening there.",
            )
        image = decode_base64(encoded, call.expert, self._limits.pixels)
        return Answered(images=[as_asked(image, call.arguments.get("width"), call.arguments.get("height"))])


def _path_of(expert: Expert) -> _Path:
    return _PATHS.get(model_of(expert), _SD3)


def _seed(seed: int) -> int:
    return seed % LAST_SEED or LAST_SEED


def _fields(call: Call) -> Mapping[str, Any]:
    """The fields of the form, apart from the seed."""
    path, size = _path_of(call.expert), (call.arguments.get("width"), call.arguments.get("height"))
    fields: dict[str, Any] = {"prompt": call.prompt, "output_format": "png"}
    fields |= {name: value for name, value in call.expert.settings.extra.items() if name in _SETTINGS}
    if path.model:
        fields |= {"model": model_of(call.expert), "mode": call.task}
    if call.negative_prompt:
        fields["negative_prompt"] = call.negative_prompt
    if "guidance_scale" in path.takes and (guidance := call.arguments.get("guidance_scale")) is not None:
        fields["cfg_scale"] = min(max(guidance, GUIDANCE[0]), GUIDANCE[1])
    if call.task == "image-to-image":
        fields["strength"] = call.arguments["strength"]
    elif isinstance(size[0], int) and isinstance(size[1], int):
        fields["aspect_ratio"] = nearest_ratio(size[0], size[1], RATIOS)
    return fields
