"""Pictures by Hugging Face's Inference Providers: fal, Replicate, Together, WaveSpeed, Nscale, Z.ai and its own."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from time import monotonic
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import urlsplit

from diffusiongpt.backends.base import FROM_TEXT
from diffusiongpt.backends.hosted.answers import Answered
from diffusiongpt.backends.hosted.asking import NOT_TAKEN, check_online, collect, drawing_of, dropped_from
from diffusiongpt.backends.hosted.failures import Service, answered_error, explain_service_error
from diffusiongpt.backends.hosted.limits import USUAL, Limits
from diffusiongpt.backends.hosted.server import NO_KEY
from diffusiongpt.backends.hosted.server import SERVICE as SERVER
from diffusiongpt.errors import DrawError, NeedsExtraError, NeedsKeyError, ServiceError
from diffusiongpt.safe_text import words_of

if TYPE_CHECKING:
    from PIL.Image import Image

    from diffusiongpt.backends.base import OnStep
    from diffusiongpt.flow import Call, Drawing, Task
    from diffusiongpt.settings import Settings
    from diffusiongpt.zoo import Expert


SERVICE = Service(key="HF_TOKEN", address="HF_ENDPOINT")

PICTURES_AT = {
    "fal-ai": ("fal.media", "fal.run"),
    "hf-inference": (),
    "nscale": ("nscale.com",),
    "replicate": ("replicate.delivery", "replicate.com"),
    "together": ("together.ai", "together.xyz"),
    "wavespeed": ("wavespeed.ai", "d1q70pf5vjeyhc.cloudfront.net"),
    "zai-org": ("z.ai", "bigmodel.cn"),
}
"""Provider for pictures in huggingface_hub 2.4 -> further hosts that its pictures may be fetched from.

The client fetches what an answer names, from anywhere; a host that is not here is an error that names it."""

_TAKEN = ("negative_prompt", "num_inference_steps", "guidance_scale", "width", "height")
_OWN = ("provider", "scheduler", "model")
"""What `settings.extra` sets for the client; all the rest is the provider's own, and is passed on."""

_TOKEN = "hf_"  # noqa: S105  # how a token begins


@dataclass(frozen=True, kw_only=True)
class _Bounds:
    """What requests of the client may do while a picture is drawn in this thread."""

    hosts: tuple[str, ...]
    limit: int
    deadline: float
    expert: str
    accepted: list[str] = field(default_factory=list)
    """Addresses that took a request for a picture, which may be on the bill from then on."""


_BOUNDS: ContextVar[_Bounds | None] = ContextVar("_BOUNDS", default=None)


class InferenceBackend:
    """Calls `InferenceClient.text_to_image`, one picture at a time, each with its seed.

    The client's requests are held to the hub, its router and the provider's own hosts, and to bytes and seconds. A zoo
    file may be a stranger's: a server that it names does not get the token of the hub.

    Args:
        limits: How far its answers are read; the seconds are for all that one picture takes, with waiting for its turn
            at a provider.
    """

    hosted: Literal[True] = True
    metered: Literal[True] = True

    def __init__(self, limits: Limits = USUAL) -> None:
        self._limits = limits

    def check(self, settings: Settings) -> None:
        """See `HostedBackend.check`."""
        _token(settings)
        check_online(settings)

    def check_expert(self, expert: Expert, settings: Settings) -> None:
        """The same for one expert: the server that an entry names needs no token of the hub."""
        _token_for(expert, settings)
        check_online(settings)

    def tasks(self, expert: Expert) -> frozenset[Task]:
        """See `Backend.tasks`."""
        del expert
        return FROM_TEXT

    def draw(self, resolved: Call, settings: Settings, *, on_step: OnStep | None = None) -> Drawing:
        """See `HostedBackend.draw`."""
        token = _token_for(resolved.expert, settings)
        check_online(settings)
        extra, provider = resolved.expert.settings.extra, _provider(resolved.expert)
        ours = {name: resolved.arguments[name] for name in _TAKEN if resolved.arguments.get(name) is not None}
        given = {
            **ours,
            "negative_prompt": resolved.negative_prompt or None,
            "scheduler": extra.get("scheduler"),
            "extra_body": {name: value for name, value in extra.items() if name not in _OWN} or None,
        }

        def ask(seeds: Sequence[int]) -> Answered:
            image = self._one(resolved, settings, token, provider, {**given, "seed": seeds[0]})
            return Answered(images=[image])

        done = collect(resolved, ask, most=1, on_step=on_step)
        taken = {*_TAKEN, "seed"}
        not_taken = {name: why for name, why in NOT_TAKEN.items() if name not in taken}
        return drawing_of(
            resolved,
            done,
            params={"model": resolved.expert.repo, "provider": provider, **ours},
            dropped=dropped_from(resolved, not_taken, None),
            absent=tuple(not_taken),
        )

    def _one(self, call: Call, settings: Settings, token: str, provider: str, given: dict[str, Any]) -> Image:
        """One picture by the client, whose errors are ours."""
        import httpx2
        from huggingface_hub import InferenceClient
        from huggingface_hub.errors import HfHubHTTPError, InferenceTimeoutError, OfflineModeIsEnabled

        expert, service = call.expert, SERVER if call.expert.server else SERVICE
        model = expert.server.url if expert.server else expert.settings.extra.get("model", expert.repo)
        names: Any = provider
        client = InferenceClient(model=model, provider=names, token=token, timeout=self._limits.timeout_s)
        bounds = self._bounds(expert, settings, provider)
        try:
            with _held(bounds):
                return self._checked(client.text_to_image(call.prompt, **given), expert)
        except HfHubHTTPError as error:
            problem = _answered(error, expert, service, token)
        except (InferenceTimeoutError, httpx2.HTTPError, httpx2.InvalidURL) as error:
            problem = explain_service_error(error, expert, service, key=token, timeout_s=self._limits.timeout_s)
        except OfflineModeIsEnabled:
            problem = ServiceError("the settings forbid network access", hint="Unset HF_HUB_OFFLINE.")
        except (ValueError, LookupError, TypeError, AttributeError, OSError, StopIteration) as error:
            # what the client makes of an answer in another form, or of a provider that does not have the model
            problem = DrawError(
                f"{expert.id}: {provider} cannot draw this: {words_of(error)}",
                hint="Choose another provider in settings.extra of this expert; its page on the hub lists them.",
            )
        if bounds.accepted:
            problem.unbilled = False
        # outside the except block: the client's exception holds the request, and that holds the token
        raise problem

    def _checked(self, image: Any, expert: Expert) -> Image:
        """The client's picture, whose pixels it has not decoded yet."""
        if image.format not in ("PNG", "WEBP", "JPEG") or image.width * image.height > self._limits.pixels:
            raise DrawError(
                f"{expert.id}: the answer is {image.format} with {image.width}x{image.height} pixels",
                hint="PNG, WEBP and JPEG of up to 67 megapixels can be read; ask for one of them in settings.extra.",
            )
        image.load()
        picture: Image = image.copy() if image.mode in ("RGB", "RGBA") else image.convert("RGBA")
        return picture

    def _bounds(self, expert: Expert, settings: Settings, provider: str) -> _Bounds:
        from huggingface_hub import constants

        places = [settings.hub_endpoint, constants.ENDPOINT, constants.INFERENCE_PROXY_TEMPLATE]
        own = [urlsplit(place).hostname or "" for place in (*places, *([expert.server.url] if expert.server else []))]
        further = PICTURES_AT[provider] if provider in PICTURES_AT else sum(PICTURES_AT.values(), ())
        deadline = monotonic() + self._limits.timeout_s
        return _Bounds(hosts=(*own, *further), limit=self._limits.answer_bytes, deadline=deadline, expert=expert.id)


@contextmanager
def _held(bounds: _Bounds) -> Iterator[None]:
    """Hold the client's requests of this thread to hosts, bytes and seconds."""
    _guard_session()
    before = _BOUNDS.set(bounds)
    try:
        yield
    finally:
        _BOUNDS.reset(before)


def _token_for(expert: Expert, settings: Settings) -> str:
    """What the service of an expert gets as a key."""
    if expert.server is None:
        return _token(settings)
    # the client takes no key at all for the token that is saved on this machine
    return settings.key_for(expert.server.url) or NO_KEY


def _token(settings: Settings) -> str:
    if settings.hub_token is None:
        raise NeedsKeyError(f"{SERVICE.key} is not set", hint=f"Set {SERVICE.key} to a token of your account.")
    token = settings.hub_token.get_secret_value()
    if not token.startswith(_TOKEN):
        # the client would take it for a key of the provider, and send it there
        raise NeedsKeyError(
            f"{SERVICE.key} is not a token of Hugging Face", hint=f"Set it to one that begins with {_TOKEN}."
        )
    return token


def _provider(expert: Expert) -> str:
    """The provider that an entry names; `auto` for the first that has the model, in the order of the account."""
    provider = expert.settings.extra.get("provider", "auto")
    if provider == "auto" or provider in PICTURES_AT:
        return str(provider)
    raise DrawError(
        f"{expert.id}: {provider!r} is not a provider of pictures",
        hint=f"Write one of auto, {', '.join(PICTURES_AT)} as settings.extra.provider.",
    )


def _answered(error: Any, expert: Expert, service: Service, token: str) -> DrawError:
    response = error.response
    try:
        body = response.content
    except RuntimeError:  # what httpx raises for an answer that was not read
        body = b""
    return answered_error(response.status_code, body, response.headers, expert, service, key=token)


def _guard_session() -> None:
    """Have the hub client's own session keep to `_BOUNDS`; outside of a drawing it does as before."""
    import httpx2
    from huggingface_hub.utils import get_session  # type: ignore[attr-defined]  # exported lazily

    session = get_session()
    if not isinstance(session, httpx2.Client):
        raise NeedsExtraError("the hub client is too old for services", hint="pip install 'huggingface-hub>=2'")
    hooks = session.event_hooks
    if _check_request not in hooks["request"]:
        session.event_hooks = {
            "request": [*hooks["request"], _check_request],
            "response": [*hooks["response"], _check_response],
        }


def _check_request(request: Any) -> None:
    bounds = _BOUNDS.get()
    if bounds is None:
        return
    import httpx2

    if monotonic() > bounds.deadline:
        raise httpx2.ReadTimeout("the picture is not done", request=request)
    host = request.url.host
    if not any(host == one or host.endswith(f".{one}") for one in bounds.hosts):
        raise DrawError(
            f"{bounds.expert}: the answer names a picture at {host}, which is not the service that was asked, and it "
            "is not fetched",
            hint="Choose another provider in settings.extra of this expert.",
        )
    request.headers["Accept-Encoding"] = "identity"


def _check_response(response: Any) -> None:
    bounds = _BOUNDS.get()
    if bounds is not None:
        from diffusiongpt.backends.hosted.http import bind

        bind(response, bounds.limit, bounds.deadline)
        if response.request.method == "POST" and response.is_success:
            bounds.accepted.append(str(response.request.url))
