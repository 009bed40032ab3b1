"""OpenAI's Images API with the official client: generations and edits, in the dialect of the server that answers."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

from diffusiongpt.backends.hosted.answers import (
    Answered,
    decode_base64,
    read_pictures,
    read_usage,
)
from diffusiongpt.backends.hosted.asking import NOT_TAKEN, collect, drawing_of, dropped_from, model_of
from diffusiongpt.backends.hosted.failures import Service, explain_service_error, refusal_in, refused
from diffusiongpt.backends.hosted.forms import png_of
from diffusiongpt.errors import DrawError
from diffusiongpt.flow import Dropped, left_out
from diffusiongpt.stopping import check_stop

if TYPE_CHECKING:
    from openai import OpenAI
    from PIL.Image import Image

    from diffusiongpt.backends.base import OnStep
    from diffusiongpt.backends.hosted.dialects import Dialect
    from diffusiongpt.backends.hosted.http import Caller
    from diffusiongpt.backends.hosted.limits import Limits
    from diffusiongpt.flow import Call, Drawing, Task
    from diffusiongpt.zoo import Expert


MOST_PARTIAL = 3
"""Unfinished pictures that one may ask for (`partial_images` of the API)."""

_UNSEEN = ("model", "prompt", "size", "response_format", "n", "partial_images", "stream", "user", "safety_identifier")
"""Fields of a request that its record does not repeat, apart from the model."""

_FORMATS = {"gif": "an animation is not a picture", "svg": "a drawing of lines cannot be decoded here"}
"""Output formats that cannot be had, with the reason."""


@dataclass(frozen=True, kw_only=True)
class Place:
    """A server of the Images API.

    Attributes:
        url: Its address, which ends in `/v1`.
        key: The key that it gets.
        dialect: How it speaks.
        service: What hints name.
        by_zoo: Whether a zoo file named it, which may be a stranger's: it gets nothing from the environment.
    """

    url: str
    key: str
    dialect: Dialect
    service: Service
    by_zoo: bool = False


def tasks_at(dialect: Dialect, expert: Expert) -> frozenset[Task]:
    """What an expert can do at a server: what that takes, of what the zoo says that the expert can."""
    can, edits = expert.capabilities, dialect.edits
    tasks: set[Task] = {"text-to-image"}
    if edits is not None:
        tasks |= {"edit"} if can.image_editing else set()
        tasks |= {"inpaint"} if can.inpaint and edits.mask else set()
        tasks |= {"image-to-image"} if can.img2img and "strength" in dialect.arguments else set()
    return frozenset(tasks)


def draw_at(place: Place, call: Call, limits: Limits, *, on_step: OnStep | None = None) -> Drawing:
    """Have pictures drawn; see `HostedBackend.draw`."""
    request = _Request.for_call(place.dialect, call)
    most = 1 if request.one_by_one else place.dialect.most
    limits = limits.for_call(call, min(len(call.seeds), most) * (1 + request.partial))
    with _client(place, limits) as client:
        asking = _Asking(client=client, place=place, call=call, limits=limits, request=request)
        done = collect(call, asking, most=most, on_step=on_step)
    theirs = {name.partition(".")[0] for name in place.dialect.arguments.values()}
    sent = {name: value for name, value in request.body.items() if name not in {*_UNSEEN, *theirs}}
    model = {"model": request.body["model"]}
    params = {**model, **sent, **request.ours}
    return drawing_of(call, done, params=params, dropped=request.dropped, absent=tuple(request.not_taken))


def _client(place: Place, limits: Limits) -> OpenAI:
    import openai

    from diffusiongpt.backends.hosted.http import bounded_client, timeouts

    # the client adds what the environment says of an account at OpenAI
    ours = {"OpenAI-Organization": openai.Omit(), "OpenAI-Project": openai.Omit()}
    return openai.OpenAI(
        api_key=place.key,
        base_url=place.url,
        default_headers=cast(Any, ours) if place.by_zoo else None,
        timeout=timeouts(limits.timeout_s),
        max_retries=0,  # the client repeats requests that may have been billed
        http_client=bounded_client(limit=limits.answer_bytes, seconds=limits.timeout_s, make=openai.DefaultHttpxClient),
    )


@dataclass(frozen=True, kw_only=True)
class _Request:
    """What is sent for one call, apart from seeds and the number of pictures.

    Attributes:
        body: Fields.
        in_prompt: Fields that go into the prompt.
        files: Pictures that go in, and the mask under its own name; empty for none.
        partial: Unfinished pictures that are asked for.
        one_by_one: Whether each picture needs a request of its own.
        ours: Arguments that are passed on, under our names.
        not_taken: Those that the server does not take, with the reason.
        dropped: What is not passed on.
    """

    body: Mapping[str, Any]
    in_prompt: Mapping[str, Any]
    files: Mapping[str, Any]
    partial: int
    one_by_one: bool
    ours: Mapping[str, Any]
    not_taken: Mapping[str, str]
    dropped: tuple[Dropped, ...]

    @classmethod
    def for_call(cls, dialect: Dialect, call: Call) -> _Request:
        """The request in a dialect."""
        edits = call.task != "text-to-image" and dialect.edits is not None
        settings = dialect.settings - (dialect.not_for_edits if edits else dialect.edit_only)
        extra = {name: value for name, value in call.expert.settings.extra.items() if name in settings}
        dropped = _without_formats(extra)
        partial_images = _partial_images(extra, dialect)
        body: dict[str, Any] = {
            "model": model_of(call.expert),
            "prompt": _plain_prompt(call.prompt, dialect),
            **dialect.fixed,
            **extra,
        }
        if "width" in call.arguments and "height" in call.arguments:
            body["size"] = f"{call.arguments['width']}x{call.arguments['height']}"
        if call.transparent:
            body |= dialect.transparent
            if body.get("output_format", "png") not in ("png", "webp"):
                body["output_format"] = "png"  # JPEG, which an expert may prefer, has no transparency
        given = {name: value for name, value in call.arguments.items() if name in dialect.arguments}
        given, limited = _within(given, dialect)
        if call.negative_prompt and dialect.negative_after:
            body["prompt"] += f"{dialect.negative_after}{call.negative_prompt}"
        elif call.negative_prompt and "negative_prompt" in dialect.arguments:
            given["negative_prompt"] = call.negative_prompt
        fields = {dialect.arguments[name]: value for name, value in given.items() if value is not None}
        nested = _nested(fields)
        not_taken = _not_taken(dialect, streams=partial_images > 0)
        return cls(
            body=body if dialect.in_prompt else {**body, **nested},
            in_prompt=nested if dialect.in_prompt else {},
            files=_files(call, dialect) if edits else {},
            partial=partial_images,
            one_by_one=partial_images > 0 or ("seed" in dialect.arguments and not dialect.seeds_count_up),
            ours=given,
            not_taken=not_taken,
            dropped=(
                *dropped_from(call, not_taken, dialect.settings),
                *dropped,
                *limited,
                *(left_out(call, dialect.edits.pictures) if edits and dialect.edits else ()),
            ),
        )


def _not_taken(dialect: Dialect, *, streams: bool) -> dict[str, str]:
    taken = {*dialect.arguments, *(["negative_prompt"] if dialect.negative_after else [])}
    reasons = {name: why for name, why in NOT_TAKEN.items() if name not in taken}
    if streams:
        del reasons["callback_on_step_end"]
    elif dialect.streams:
        reasons["callback_on_step_end"] = (
            "the service reports no steps; 'partial_images' in settings.extra asks it for unfinished pictures, which "
            "it bills"
        )
    return reasons


def _without_formats(extra: dict[str, Any]) -> list[Dropped]:
    """Take out an output format that cannot be had."""
    reason = _FORMATS.get(str(extra.get("output_format", "")).casefold())
    if reason is None:
        return []
    return [Dropped(name="output_format", value=extra.pop("output_format"), reason=reason)]


def _partial_images(extra: dict[str, Any], dialect: Dialect) -> int:
    """Take out how many unfinished pictures are asked for."""
    wanted = extra.pop("partial_images", 0)
    if not dialect.streams or not isinstance(wanted, int):
        return 0
    return max(0, min(wanted, MOST_PARTIAL))


def _plain_prompt(prompt: str, dialect: Dialect) -> str:
    """The prompt without what the server would take for its own marks."""
    if dialect.in_prompt:
        prompt = re.sub(rf"<\s*/?\s*{re.escape(dialect.in_prompt)}\s*>", " ", prompt, flags=re.IGNORECASE)
    if dialect.negative_after:
        prompt = prompt.replace(dialect.negative_after, ",")
    return prompt


def _within(given: dict[str, Any], dialect: Dialect) -> tuple[dict[str, Any], list[Dropped]]:
    """The arguments within the limits of a server, and a report of those that were beyond."""
    dropped = []
    for name, most in dialect.limits.items():
        if name in given and given[name] > most:
            dropped.append(Dropped(name=name, value=given[name], reason=f"this server takes at most {most:g}"))
            given[name] = type(given[name])(most)
    return given, dropped


def _nested(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Fields whose names have dots, as objects within objects."""
    whole: dict[str, Any] = {}
    for name, value in fields.items():
        *above, last = name.split(".")
        inner = whole
        for part in above:
            inner = inner.setdefault(part, {})
        inner[last] = value
    return whole


def _files(call: Call, dialect: Dialect) -> dict[str, Any]:
    """The pictures that go in as files of a form; one mask, as the server reads it."""
    assert dialect.edits is not None  # noqa: S101  # the caller has looked
    inputs = call.inputs[: dialect.edits.pictures]
    pictures = [(f"image{index}.png", png_of(one.image), "image/png") for index, one in enumerate(inputs)]
    files: dict[str, Any] = {"image": pictures[0] if len(pictures) == 1 else pictures}
    mask = dialect.edits.mask
    if call.task == "inpaint" and call.mask is not None and mask is not None:
        marked = call.mask.as_mask(call.inputs[0].size)
        if mask.paints == "transparent":
            from PIL import Image

            marked = Image.merge("RGBA", (*[marked] * 3, marked.point(lambda light: 255 - light)))
        files[mask.field] = ("mask.png", png_of(marked), "image/png")
    return files


@dataclass(frozen=True, kw_only=True)
class _Asking:
    """Makes the requests of one call."""

    client: OpenAI
    place: Place
    call: Call
    limits: Limits
    request: _Request

    def __call__(self, seeds: Sequence[int]) -> Answered:
        """See `Ask`."""
        import httpx2  # openai does not wrap the errors of reading an answer
        from openai import OpenAIError

        try:
            return self._answered(self._arguments(seeds))
        except (OpenAIError, httpx2.HTTPError, httpx2.InvalidURL) as error:
            problem = explain_service_error(
                error, self.call.expert, self.place.service, key=self.place.key, timeout_s=self.limits.timeout_s
            )
            if isinstance(body := getattr(error, "body", None), dict) and refusal_in(body) and problem.retryable:
                # an error in the middle of a stream has no status
                problem = refused(self.call.expert)
        # outside the except block: the client's exception holds the request, and that holds the key
        raise problem

    def _arguments(self, seeds: Sequence[int]) -> dict[str, Any]:
        """The arguments of the client for a request for these seeds."""
        dialect, body = self.place.dialect, dict(self.request.body)
        in_prompt = dict(self.request.in_prompt)
        if "seed" in dialect.arguments:
            (in_prompt if dialect.in_prompt else body)[dialect.arguments["seed"]] = seeds[0]
        if in_prompt:
            body["prompt"] += f" <{dialect.in_prompt}>{json.dumps(in_prompt)}</{dialect.in_prompt}>"
        body["n"] = len(seeds)
        known: dict[str, Any] = {name: body.pop(name) for name in ("prompt", "model", "n", "size") if name in body}
        if self.request.partial:
            known |= {"stream": True, "partial_images": self.request.partial}
        return {**known, **self.request.files, "extra_body": body or None}

    def _answered(self, arguments: dict[str, Any]) -> Answered:
        images = self.client.images.with_streaming_response
        method = images.edit if self.request.files else images.generate
        expert, service = self.call.expert, self.place.service
        with method(**arguments) as response:
            if "text/event-stream" in response.headers.get("content-type", ""):
                return self._streamed(response.parse())
            body = response.read()
        fetch = self._fetched if self.place.dialect.fetches else None
        return read_pictures(
            body, expert, service, most=arguments.get("n", 1), max_pixels=self.limits.pixels, fetch=fetch
        )

    def _streamed(self, events: Iterator[Any]) -> Answered:
        """The pictures of server-sent events; unfinished ones go to the caller's callback."""
        images: list[Image] = []
        usage: dict[str, int] = {}
        try:
            for event in events:
                kind, encoded = str(getattr(event, "type", "")), getattr(event, "b64_json", None)
                if isinstance(encoded, str) and kind.endswith(".partial_image"):
                    self._show(encoded)
                elif isinstance(encoded, str) and kind.endswith(".completed"):
                    images.append(decode_base64(encoded, self.call.expert, self.limits.pixels))
                    counted: Any = getattr(event, "usage", None)
                    usage = read_usage(counted.to_dict() if hasattr(counted, "to_dict") else counted)
        except (ValueError, AttributeError) as error:
            if not images:
                raise DrawError(
                    f"{self.call.expert.id}: the events of the answer cannot be read: {type(error).__name__}",
                    hint=f"Check {self.place.service.address}: another kind of server may be listening there.",
                ) from None
        if not images:
            raise DrawError(
                f"{self.call.expert.id}: the answer ended before its picture came",
                hint="Try again, or leave 'partial_images' out of settings.extra of this expert.",
            )
        return Answered(images=images, usage=usage)

    def _show(self, encoded: str) -> None:
        """Hand an unfinished picture to the caller's callback, in diffusers' form; one that is spoilt is left out."""
        check_stop()
        callback = self.call.arguments.get("callback_on_step_end")
        if callback is None:
            return
        try:
            picture = decode_base64(encoded, self.call.expert, self.limits.pixels)
        except DrawError:
            return
        callback(None, 0, 0, {"image": picture})

    def _fetched(self, named: str) -> bytes:
        """A picture that an answer names, if it is at the server itself."""
        from diffusiongpt.backends.hosted.http import address_of, bounded_client, exchange

        caller = self._caller()
        address = address_of(named, self.place.url, caller)
        with bounded_client(limit=self.limits.answer_bytes, seconds=self.limits.timeout_s) as client:
            headers = {"Authorization": f"Bearer {self.place.key}"}
            try:
                return exchange(client, caller, "GET", address, headers=headers).body
            except DrawError as error:
                # the picture is on the bill, whatever became of the file
                error.unbilled = False
                raise

    def _caller(self) -> Caller:
        from diffusiongpt.backends.hosted.http import Caller

        return Caller(
            service=self.place.service, key=self.place.key, timeout_s=self.limits.timeout_s, expert=self.call.expert
        )
