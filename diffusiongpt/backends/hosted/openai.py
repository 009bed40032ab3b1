"""Text-to-image by OpenAI's Images API, or by a server that speaks as it does."""

from __future__ import annotations

import time
from contextlib import nullcontext
from importlib.util import find_spec
from itertools import count
from typing import TYPE_CHECKING, Any, Literal

from diffusiongpt.backends.base import OnStep
from diffusiongpt.backends.hosted.answers import MAX_PIXELS, read_pictures
from diffusiongpt.backends.hosted.failures import Service, backoff, explain_service_error
from diffusiongpt.errors import ContentRefusedError, DrawError, NeedsExtraError, NeedsKeyError, ServiceError
from diffusiongpt.flow import Call, Drawing, Dropped, fewer

if TYPE_CHECKING:
    from openai import OpenAI
    from PIL.Image import Image

    from diffusiongpt.settings import Settings
    from diffusiongpt.zoo import Expert


SERVICE = Service(key="OPENAI_API_KEY", address="OPENAI_BASE_URL")

TIMEOUT_S = 300.0
"""Seconds until an answer begins, and again until it ends: large pictures of high quality take minutes."""

MAX_ANSWER_BYTES = 64 * 1024 * 1024
"""Bytes of an answer for each picture; a 4K PNG in base64 rarely takes half of that."""

RETRIES = 1
"""Further attempts after a refused connection, 408, 409, 429 or a failure of the server.

A request that was sent and not answered is not repeated, since its picture may be billed.
"""

MAX_PICTURES = 10
"""Pictures that one request may ask for (`n` of `images.generate`)."""

_TAKEN = frozenset({
    "background", "model", "moderation", "output_compression", "output_format", "quality", "response_format", "style",
    "user",
})  # fmt: skip
"""Arguments of `images.generate` that an expert's `settings.extra` may set; the others are set here."""

_NOT_TAKEN = {
    "seed": "the service takes no seed, so this picture cannot be drawn again bit for bit",
    "negative_prompt": "the service takes no negative prompt; say in the prompt what should be there instead",
    "num_inference_steps": "the service chooses its own number of steps",
    "guidance_scale": "the service takes no guidance scale",
    "callback_on_step_end": "the service does not report steps",
}
"""Arguments of ours that `images.generate` does not take, with the reason for dropping them."""


class OpenAIBackend:
    """Calls `client.images.generate`; pictures come in the answer, and no address in it is followed.

    Args:
        timeout_s: See `TIMEOUT_S`.
        max_answer_bytes: See `MAX_ANSWER_BYTES`.
        max_pixels: Pixels of the largest picture that is decoded.
    """

    hosted: Literal[True] = True
    metered: Literal[True] = True

    def __init__(
        self,
        *,
        timeout_s: float = TIMEOUT_S,
        max_answer_bytes: int = MAX_ANSWER_BYTES,
        max_pixels: int = MAX_PIXELS,
    ) -> None:
        self._timeout_s = timeout_s
        self._max_answer_bytes = max_answer_bytes
        self._max_pixels = max_pixels

    def check(self, settings: Settings) -> None:
        """See `HostedBackend.check`."""
        _key(settings)
        if find_spec("openai") is None:
            raise NeedsExtraError("the package openai is not installed", hint="pip install 'diffusiongpt[openai]'")
        if settings.offline:
            raise ServiceError(
                "the settings forbid network access",
                hint="Unset DIFFUSIONGPT_OFFLINE and HF_HUB_OFFLINE, or choose an expert that runs here.",
            )

    def draw(self, resolved: Call, settings: Settings, *, on_step: OnStep | None = None) -> Drawing:
        """See `HostedBackend.draw`.

        A server that returns fewer pictures than requested, or takes only one at a time, is asked for the others one
        by one: asked again for all that are left, it would be paid for far more than it gives.
        """
        self.check(settings)
        arguments = _arguments(resolved)
        images: list[Image] = []
        wanted = len(resolved.seeds)
        missing: DrawError | None = None
        with self._client(settings, min(wanted, MAX_PICTURES)) as client:
            most = MAX_PICTURES
            while len(images) < wanted:
                n = min(wanted - len(images), most)
                try:
                    found = self._ask(client, {**arguments, "n": n}, resolved)
                except DrawError as error:
                    if n > 1 and _may_be_the_number(error):
                        most = 1
                        continue
                    if not images:
                        raise
                    # the others were paid for
                    missing = error
                    break
                images += found[:n]
                most = most if len(found) >= n else 1
                if on_step is not None:
                    on_step(len(images), wanted)
        asked = {name: value for name, value in arguments.items() if name not in ("prompt", "size", "response_format")}
        size = {"width": images[0].width, "height": images[0].height}
        return Drawing(
            images=tuple(images),
            # what was not passed on is recorded as absent, whatever the request said of it
            params={**asked, **dict.fromkeys(_NOT_TAKEN), **size},
            dropped=(*_dropped(resolved), *(() if missing is None else [fewer(len(images), wanted, missing)])),
            repeatable=False,
            seeds=None if missing is None else resolved.seeds[: len(images)],
        )

    def _client(self, settings: Settings, pictures: int) -> OpenAI:
        import openai

        from diffusiongpt.backends.hosted.http import bounded_client, timeouts

        return openai.OpenAI(
            api_key=_key(settings),
            base_url=settings.openai_base_url,
            timeout=timeouts(self._timeout_s),
            max_retries=0,  # the client repeats requests that may have been billed
            default_headers={"Accept-Encoding": "identity"},
            http_client=bounded_client(limit=pictures * self._max_answer_bytes, seconds=self._timeout_s),
        )

    def _ask(self, client: OpenAI, arguments: dict[str, Any], call: Call) -> list[Image]:
        """The pictures of one request, which is made again where that can help and nothing was billed."""
        for attempt in count():
            try:
                with call.meter.paying(arguments["n"]) if call.meter else nullcontext():
                    body = self._answer(client, arguments, call.expert)
                return read_pictures(body, call.expert, SERVICE, max_pixels=self._max_pixels)
            except ServiceError as error:
                if attempt >= RETRIES or not (error.unbilled and error.retryable):
                    raise
                time.sleep(backoff(attempt, error))
        raise AssertionError  # the loop ends above

    def _answer(self, client: OpenAI, arguments: dict[str, Any], expert: Expert) -> bytes:
        """The answer to one request, as it comes."""
        import httpx2  # openai does not wrap the errors of reading an answer
        from openai import OpenAIError

        try:
            with client.images.with_streaming_response.generate(**arguments) as response:
                body: bytes = response.read()
                return body
        except (OpenAIError, httpx2.HTTPError, httpx2.InvalidURL) as error:
            problem = explain_service_error(error, expert, SERVICE, key=client.api_key, timeout_s=self._timeout_s)
        # outside the except block: the client's exception holds the request, and that holds the key
        raise problem


def _may_be_the_number(error: DrawError) -> bool:
    """Whether a service may have rejected a request because it asks for several pictures."""
    return error.unbilled and not error.retryable and not isinstance(error, NeedsKeyError | ContentRefusedError)


def _key(settings: Settings) -> str:
    if settings.openai_api_key is None:
        raise NeedsKeyError(
            f"{SERVICE.key} is not set", hint=f"Set {SERVICE.key}; a server of your own takes any word."
        )
    return settings.openai_api_key.get_secret_value()


def _arguments(resolved: Call) -> dict[str, Any]:
    """The arguments of `images.generate`, except for the number of pictures."""
    extra = {name: value for name, value in resolved.expert.settings.extra.items() if name in _TAKEN}
    arguments = {"model": resolved.expert.repo.rpartition("/")[2], "prompt": resolved.prompt, **extra}
    if "width" in resolved.arguments and "height" in resolved.arguments:
        arguments["size"] = f"{resolved.arguments['width']}x{resolved.arguments['height']}"
    if resolved.transparent:
        # JPEG, which an expert may prefer, has no transparency
        arguments |= {"background": "transparent", "output_format": "png"}
    return arguments


def _dropped(resolved: Call) -> tuple[Dropped, ...]:
    """What was asked for and is not passed on."""
    asked = {name: value for name, value in resolved.arguments.items() if name in resolved.explicit}
    if "seed" in resolved.explicit:
        asked["seed"] = resolved.seeds[0]
    if resolved.negative_prompt:
        asked["negative_prompt"] = resolved.negative_prompt
    extra = resolved.expert.settings.extra.items()
    unknown = [Dropped(name=name, value=value, reason="the service has no such setting") for name, value in extra
               if name not in _TAKEN]  # fmt: skip
    known = [Dropped(name=name, value=asked[name], reason=why) for name, why in _NOT_TAKEN.items() if name in asked]
    return (*known, *unknown)
