"""Has pictures drawn by OpenAI's Images API, or by a server that speaks as it does."""

from __future__ import annotations

from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, Literal

from diffusiongpt.backends.base import OnStep
from diffusiongpt.backends.hosted.answers import MAX_ANSWER_BYTES, read_pictures
from diffusiongpt.backends.hosted.errors import explain_service_error
from diffusiongpt.errors import NeedsExtraError, NeedsKeyError, ServiceError
from diffusiongpt.flow.call import Drawing, Dropped, Resolved

if TYPE_CHECKING:
    from openai import OpenAI
    from PIL.Image import Image

    from diffusiongpt.settings import Settings
    from diffusiongpt.zoo.expert import Expert


TIMEOUT_S = 300.0
"""Seconds until an answer begins, and as many until it ends: large pictures of high quality take minutes."""

RETRIES = 1
"""Repeats by the client after a dropped connection, a timeout, 408, 409, 429 or a failure of the server."""

MOST_AT_ONCE = 10
"""Pictures that one request may ask for (`n` of `images.generate`)."""


class OpenAIBackend:
    """Text-to-image through `client.images.generate`: pictures arrive in the answer, and no address is followed.

    Args:
        timeout_s: See `TIMEOUT_S`.
    """

    hosted: Literal[True] = True

    def __init__(self, *, timeout_s: float = TIMEOUT_S) -> None:
        self._timeout_s = timeout_s

    def check(self, settings: Settings) -> None:
        """See `HostedBackend.check`."""
        _key(settings)
        if find_spec("openai") is None:
            raise NeedsExtraError("the package openai is not installed", hint="pip install 'diffusiongpt[openai]'")
        if settings.offline:
            raise ServiceError(
                "the settings forbid the network",
                hint="Unset DIFFUSIONGPT_OFFLINE and HF_HUB_OFFLINE, or choose an expert that runs here.",
            )

    def draw(self, resolved: Resolved, settings: Settings, *, on_step: OnStep | None = None) -> Drawing:
        """See `HostedBackend.draw`.

        A server that gives fewer pictures than asked for is asked again for the rest.
        """
        self.check(settings)
        arguments = arguments_for(resolved)
        images: list[Image] = []
        wanted = len(resolved.seeds)
        with self._client(settings, min(wanted, MOST_AT_ONCE)) as client:
            while len(images) < wanted:
                n = min(wanted - len(images), MOST_AT_ONCE)
                body = self._ask(client, {**arguments, "n": n}, resolved.expert)
                images += read_pictures(body, resolved.expert)[:n]
                if on_step is not None:
                    on_step(len(images), wanted)
        return Drawing(
            images=tuple(images), params=_params(arguments, images[0]), dropped=dropped_from(resolved), repeatable=False
        )

    def _client(self, settings: Settings, pictures: int) -> OpenAI:
        import openai

        from diffusiongpt.backends.hosted.http import bounded_client, timeouts

        return openai.OpenAI(
            api_key=_key(settings),
            base_url=settings.openai_base_url,
            timeout=timeouts(self._timeout_s),
            max_retries=RETRIES,
            default_headers={"Accept-Encoding": "identity"},
            http_client=bounded_client(limit=pictures * MAX_ANSWER_BYTES, seconds=self._timeout_s),
        )

    def _ask(self, client: OpenAI, arguments: dict[str, Any], expert: Expert) -> bytes:
        """One request; the answer as it came."""
        import httpx2  # openai lets its errors through while an answer is read
        from openai import OpenAIError

        try:
            with client.images.with_streaming_response.generate(**arguments) as response:
                body: bytes = response.read()
                return body
        except (OpenAIError, httpx2.HTTPError, httpx2.InvalidURL) as error:
            problem = explain_service_error(error, expert, key=client.api_key, timeout_s=self._timeout_s)
        # outside of the except block: what the client raises holds the request, and that the key
        raise problem


def _key(settings: Settings) -> str:
    secret = settings.openai_api_key
    key = secret.get_secret_value().strip() if secret else ""
    if not key:
        raise NeedsKeyError("no key for OpenAI is set", hint="Set OPENAI_API_KEY; a server of your own takes any word.")
    if not (key.isascii() and key.isprintable()) or " " in key:
        raise NeedsKeyError(
            "the key holds characters that no key has", hint="Set OPENAI_API_KEY again, without quotes or line breaks."
        )
    return key


def _params(arguments: dict[str, Any], image: Image) -> dict[str, Any]:
    """What the record tells: the arguments of the request, the size that came, and nothing that was not passed on."""
    asked = {name: value for name, value in arguments.items() if name not in ("prompt", "size", "response_format")}
    return {**asked, **dict.fromkeys(REASONS), "width": image.width, "height": image.height}


_TAKEN = frozenset({
    "background", "model", "moderation", "output_compression", "output_format", "quality", "response_format", "style",
    "user",
})  # fmt: skip
"""Arguments of `images.generate` that an expert's `settings.extra` may set; the others are ours."""

REASONS = {
    "seed": "the service takes no seed, so this picture cannot be drawn again bit for bit",
    "negative_prompt": "the service takes no negative prompt; say in the prompt what should be there instead",
    "num_inference_steps": "the service chooses its own number of steps",
    "guidance_scale": "the service takes no guidance scale",
    "callback_on_step_end": "the service tells of no steps",
}
"""Arguments of ours that the service does not take."""


def arguments_for(resolved: Resolved) -> dict[str, Any]:
    """What to pass to `images.generate`, without the number of pictures."""
    extra = {name: value for name, value in resolved.expert.settings.extra.items() if name in _TAKEN}
    arguments = {"model": resolved.expert.repo.rpartition("/")[2], "prompt": resolved.prompt, **extra}
    if "width" in resolved.arguments and "height" in resolved.arguments:
        arguments["size"] = f"{resolved.arguments['width']}x{resolved.arguments['height']}"
    if resolved.transparent:
        # of the formats it offers, JPEG has no transparency
        arguments |= {"background": "transparent", "output_format": "png"}
    return arguments


def dropped_from(resolved: Resolved) -> tuple[Dropped, ...]:
    """What was asked for and is not passed on."""
    asked = {name: value for name, value in resolved.arguments.items() if name in resolved.explicit}
    if "seed" in resolved.explicit:
        asked["seed"] = resolved.seeds[0]
    if resolved.negative_prompt:
        asked["negative_prompt"] = resolved.negative_prompt
    dropped = [
        Dropped(name=name, value=asked[name], reason=reason) for name, reason in REASONS.items() if name in asked
    ]
    unknown = {name: value for name, value in resolved.expert.settings.extra.items() if name not in _TAKEN}
    return (
        *dropped,
        *(Dropped(name=name, value=unknown[name], reason="the service has no such setting") for name in unknown),
    )
