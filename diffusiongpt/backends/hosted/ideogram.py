"""Pictures by the API of Ideogram, versions 3 and 4, with its own rewriting of prompts switched off."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

from diffusiongpt.backends.base import FROM_TEXT
from diffusiongpt.backends.hosted.answers import Answered, decode_picture
from diffusiongpt.backends.hosted.asking import NOT_TAKEN, RETRIES, collect, drawing_of, dropped_from, model_of
from diffusiongpt.backends.hosted.failures import Service, refused
from diffusiongpt.backends.hosted.forms import form, ready_key
from diffusiongpt.backends.hosted.limits import Limits
from diffusiongpt.bounded import parse_json
from diffusiongpt.errors import DrawError, ServiceError

if TYPE_CHECKING:
    import httpx2

    from diffusiongpt.backends.base import OnStep
    from diffusiongpt.backends.hosted.http import Caller
    from diffusiongpt.flow import Call, Drawing, Task
    from diffusiongpt.settings import Settings
    from diffusiongpt.zoo import Expert


SERVICE = Service(key="IDEOGRAM_API_KEY", address="IDEOGRAM_BASE_URL")

LIMITS = Limits(timeout_s=180.0, answer_bytes=32 * 1024 * 1024)
"""Of an answer, and of a picture: a PNG of four megapixels rarely has half of these bytes."""

HOSTS = ("ideogram.ai",)
"""Where its pictures are, for some hours, next to the address that was asked."""

LAST_SEED = 2_147_483_647


@dataclass(frozen=True, kw_only=True)
class _Version:
    """One version of the API.

    Attributes:
        path: Path of its generator.
        settings: What `settings.extra` of an expert may set.
        takes: Arguments of ours that it takes.
        structured: Whether the prompt is sent as the object that its model reads, which nothing rewrites.
    """

    path: str
    settings: frozenset[str]
    takes: frozenset[str] = frozenset()
    structured: bool = False


_VERSIONS = {
    "ideogram-v3": _Version(
        path="/v1/ideogram-v3/generate",
        settings=frozenset({"color_palette", "rendering_speed", "style_codes", "style_preset", "style_type"}),
        takes=frozenset({"seed", "negative_prompt"}),
    ),
    "ideogram-v4": _Version(
        path="/v1/ideogram-v4/generate",
        settings=frozenset({"enable_copyright_detection", "rendering_speed"}),
        structured=True,
    ),
}
"""Name of a model -> its version.

Source: https://developer.ideogram.ai/v1/api-reference/generate-images/generate-v4.md, and `generate-v3`."""

_CAPTION = "compositional_deconstruction"
"""What every structured prompt has: the background, and the things in front of it."""


class IdeogramBackend:
    """Asks for one picture at a time, and fetches it at once from the provider's own hosts.

    Args:
        limits: How far its answers are read.
    """

    hosted: Literal[True] = True
    metered: Literal[True] = True

    def __init__(self, limits: Limits = LIMITS) -> None:
        self._limits = limits

    def check(self, settings: Settings) -> None:
        """See `HostedBackend.check`."""
        ready_key(settings.ideogram_api_key, SERVICE, settings)

    def tasks(self, expert: Expert) -> frozenset[Task]:
        """See `Backend.tasks`."""
        del expert
        return FROM_TEXT

    def draw(self, resolved: Call, settings: Settings, *, on_step: OnStep | None = None) -> Drawing:
        """See `HostedBackend.draw`."""
        key = ready_key(settings.ideogram_api_key, SERVICE, settings)
        from diffusiongpt.backends.hosted.http import Caller, bounded_client, exchange

        version, base = _version_of(resolved.expert), settings.ideogram_base_url
        fields = _fields(version, resolved)
        caller = Caller(service=SERVICE, key=key, timeout_s=self._limits.timeout_s, expert=resolved.expert)

        with bounded_client(limit=self._limits.answer_bytes, seconds=self._limits.timeout_s) as client:

            def ask(seeds: Sequence[int]) -> Answered:
                seed = {"seed": str(seeds[0] % (LAST_SEED + 1))} if "seed" in version.takes else {}
                sent = form({**fields, **seed})
                answer = exchange(client, caller, "POST", f"{base}{version.path}", headers={"Api-Key": key}, files=sent)
                return self._read(answer.body, resolved, partial(self._fetch, client, caller, base))

            done = collect(resolved, ask, most=1, on_step=on_step)
        not_taken = {name: why for name, why in NOT_TAKEN.items() if name not in version.takes}
        sent = {name: value for name, value in fields.items() if name in version.settings}
        return drawing_of(
            resolved,
            done,
            params={"model": model_of(resolved.expert), **sent},
            dropped=dropped_from(resolved, not_taken, version.settings),
            absent=tuple(not_taken),
        )

    def _read(self, body: bytes, call: Call, fetch: Callable[[str], bytes]) -> Answered:
        """The picture of an answer, fetched; one that the provider holds back is a refusal."""
        try:
            said = parse_json(body)
        except ValueError:
            said = None
        data = said.get("data") if isinstance(said, dict) else None
        entry = next((one for one in data if isinstance(one, dict)), None) if isinstance(data, list) else None
        if entry is None:
            raise DrawError(
                f"{call.expert.id}: the answer holds no picture",
                hint=f"Check {SERVICE.address}: another kind of server may be listening there.",
            )
        address = entry.get("url")
        if entry.get("is_image_safe") is False or not isinstance(address, str) or not address:
            raise refused(call.expert)
        return Answered(images=[decode_picture(fetch(address), call.expert, self._limits.pixels)])

    def _fetch(self, client: httpx2.Client, caller: Caller, base: str, named: str) -> bytes:
        """A picture that was paid for: another attempt costs nothing. The key does not go there."""
        from diffusiongpt.backends.hosted.http import address_of, exchange

        address = address_of(named, base, caller, hosts=HOSTS)
        for attempt in range(RETRIES + 1):
            try:
                return exchange(client, caller, "GET", address).body
            except DrawError as error:
                # the picture is on the bill, whatever became of the file
                error.unbilled = False
                if attempt == RETRIES or not isinstance(error, ServiceError):
                    raise
        raise AssertionError  # the loop ends above


def _version_of(expert: Expert) -> _Version:
    try:
        return _VERSIONS[model_of(expert)]
    except KeyError:
        raise DrawError(
            f"{expert.id}: {model_of(expert)!r} is not a version of Ideogram's API",
            hint=f"Write 'repo: ideogram/{' or ideogram/'.join(_VERSIONS)}'.",
        ) from None


def _fields(version: _Version, call: Call) -> dict[str, Any]:
    """The fields of the form, apart from the seed."""
    extra = {name: value for name, value in call.expert.settings.extra.items() if name in version.settings}
    fields: dict[str, Any] = {"rendering_speed": "DEFAULT", **extra}
    if version.structured:
        fields["json_prompt"] = _structured(call.prompt)
    else:
        fields |= {"prompt": call.prompt, "magic_prompt": "OFF", "num_images": "1"}
        fields["negative_prompt"] = call.negative_prompt or None
    if "width" in call.arguments and "height" in call.arguments:
        fields["resolution"] = f"{call.arguments['width']}x{call.arguments['height']}"
    return fields


def _structured(prompt: str) -> dict[str, Any]:
    """A prompt in the form that the fourth version reads; one that has it already stays as it is.

    A text alone would be rewritten by the service.
    """
    try:
        caption = json.loads(prompt)
    except (ValueError, RecursionError):
        caption = None
    if isinstance(caption, dict) and _CAPTION in caption:
        return caption
    return {
        "high_level_description": prompt,
        _CAPTION: {"background": prompt, "elements": []},
    }
