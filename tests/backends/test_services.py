"""Ideogram, Stability AI and Hugging Face's providers, against doubles that refuse what they refuse."""

from __future__ import annotations

import json
import traceback
from typing import TYPE_CHECKING, Any

import pytest
from fixtures_hosted import ask, hosted, studio_with
from fixtures_routing import settings_in
from PIL import Image

from diffusiongpt.backends import get_backend
from diffusiongpt.backends.hosted import IdeogramBackend, InferenceBackend, Limits, StabilityBackend
from diffusiongpt.drawing import Spending
from diffusiongpt.errors import ContentRefusedError, DiffusionGPTError, DrawError, NeedsKeyError, ServiceError
from diffusiongpt.testing import LocalServices
from diffusiongpt.zoo import CallSettings, Capabilities, Expert, Server

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from diffusiongpt.flow import Drawing
    from diffusiongpt.settings import Settings

KEY = "a-secret-that-nobody-may-see"
TOKEN = "hf_aSecretThatNobodyMaySee123"  # noqa: S105  # of no account
PROVIDERS = ("fal-ai", "nscale", "replicate", "together", "wavespeed")
HASTE = Limits(timeout_s=20.0)


@pytest.fixture
def services(monkeypatch: pytest.MonkeyPatch) -> Iterator[LocalServices]:
    """All three, without a wait between attempts."""
    monkeypatch.setattr("time.sleep", lambda _: None)
    with LocalServices() as running:
        yield running


@pytest.fixture
def there(services: LocalServices, tmp_path: Path) -> Settings:
    """Settings that point to them."""
    return settings_in(
        tmp_path,
        ideogram_api_key=KEY,
        ideogram_base_url=services.url,
        stability_api_key=KEY,
        stability_base_url=services.url,
        hub_token=TOKEN,
    )


@pytest.fixture
def router(services: LocalServices, monkeypatch: pytest.MonkeyPatch) -> LocalServices:
    """The services as the hub client's router; the models are known to it without a request."""
    from huggingface_hub import constants
    from huggingface_hub.hf_api import InferenceProviderMapping
    from huggingface_hub.inference._providers import _common

    monkeypatch.setattr(constants, "INFERENCE_PROXY_TEMPLATE", f"{services.url}/{{provider}}")
    for provider in PROVIDERS:
        known = InferenceProviderMapping(
            provider=provider, hf_model_id="me/flux", providerId="me/flux", task="text-to-image", status="live"
        )
        monkeypatch.setitem(_common.HARDCODED_MODEL_INFERENCE_MAPPING, provider, {"me/flux": known})
    return services


def ideogram(version: str = "v4", **extra: Any) -> Expert:
    """An expert at Ideogram."""
    settings = CallSettings(width=1024, height=1024, sizes=("1024x1024", "1248x832"), extra=extra)
    return hosted("idea", backend="ideogram", repo=f"ideogram/ideogram-{version}", settings=settings)


def stability(model: str = "sd3.5-large", **extra: Any) -> Expert:
    """An expert at Stability AI."""
    settings = CallSettings(width=1024, height=1024, sizes=("1024x1024", "1344x768"), extra=extra)
    can = Capabilities(img2img=True)
    return hosted("steady", backend="stability", repo=f"stability/{model}", settings=settings, capabilities=can)


def inference(provider: str = "fal-ai", **fields: Any) -> Expert:
    """An expert at one of the providers."""
    settings = CallSettings(width=512, height=512, extra={"provider": provider, **fields.pop("extra", {})})
    return hosted("hugged", backend="hf-inference", repo="me/flux", settings=settings, **fields)


def draw(who: Expert, settings: Settings, *, limits: Limits = HASTE, **asked: Any) -> Drawing:
    """A drawing by its backend."""
    kind = {"ideogram": IdeogramBackend, "stability": StabilityBackend, "hf-inference": InferenceBackend}[who.backend]
    return kind(limits).draw(ask(who=who, **asked), settings)


def failure(who: Expert, settings: Settings, **asked: Any) -> DiffusionGPTError:
    """The error of a drawing, which shows no secret and says what to do."""
    with pytest.raises(DiffusionGPTError) as caught:
        draw(who, settings, **asked)
    shown = "".join(traceback.format_exception(caught.value))
    assert KEY not in shown
    assert TOKEN not in shown
    assert caught.value.hint
    return caught.value


def refused(who: Expert, settings: Settings, error: type[DrawError], *, billed: bool, words: str = "") -> None:
    """A drawing fails with this error, which knows what may be on the bill."""
    found = failure(who, settings)
    assert isinstance(found, error)
    assert words in str(found)
    assert found.unbilled is not billed


def reasons(drawing: Drawing) -> dict[str, str]:
    """What was dropped, and why."""
    return {one.name: one.reason for one in drawing.dropped}


def test_ideogram_4_reads_the_prompt_as_it_is(services: LocalServices, there: Settings) -> None:
    """A text would be rewritten, so it is sent as the object that the model reads; a caption of one's own stays."""
    drawing = draw(
        ideogram(rendering_speed="TURBO", magic_prompt="ON"), there, prompt='a sign that says "OPEN"', seed=3
    )
    body = services.requests[0].body
    assert body.keys() == {"json_prompt", "resolution", "rendering_speed"}
    assert json.loads(body["json_prompt"])["high_level_description"] == 'a sign that says "OPEN"'
    assert (body["resolution"], body["rendering_speed"]) == ("1024x1024", "TURBO")
    assert services.requests[0].headers["api-key"] == KEY
    assert reasons(drawing).keys() == {"seed", "magic_prompt"}
    caption = {"compositional_deconstruction": {"background": "sea", "elements": []}}
    draw(ideogram(), there, prompt=json.dumps(caption))
    assert json.loads(services.requests[1].body["json_prompt"]) == caption


def test_ideogram_3_takes_seeds_and_is_told_not_to_rewrite(services: LocalServices, there: Settings) -> None:
    """Each picture has a request of its own, with its seed."""
    drawing = draw(
        ideogram("v3", style_type="DESIGN", color_palette={"name": "EMBER"}), there, seed=7, negative_prompt="snow",
        num_images_per_prompt=2, aspect_ratio="3:2", num_inference_steps=9,
    )  # fmt: skip
    assert [request.body["seed"] for request in services.requests] == ["7", "8"]
    body = services.requests[0].body
    assert (body["magic_prompt"], body["num_images"], body["negative_prompt"]) == ("OFF", "1", "snow")
    assert json.loads(body["color_palette"]) == {"name": "EMBER"}
    assert [image.size for image in drawing.images] == [(1248, 832)] * 2
    assert reasons(drawing).keys() == {"num_inference_steps"}


def test_the_key_does_not_go_where_the_picture_is(services: LocalServices, there: Settings) -> None:
    """The address in an answer holds its own permission."""
    draw(ideogram(), there)
    assert len(services.fetched) == 1
    assert KEY not in str(services.fetched)


@pytest.mark.parametrize(
    ("kind", "error", "words", "billed"),
    [
        ("refusal", ContentRefusedError, "refuses", False),
        ("filtered", ContentRefusedError, "refuses", True),
        ("elsewhere", DrawError, "example.com", True),
        ("gone", ServiceError, "failed", True),
        ("spoilt", DrawError, "cannot be read", True),
        ("html", DrawError, "no picture", True),
        ("closed", ServiceError, "closed the connection", True),
        ("status", ServiceError, "500", False),
    ],
)
@pytest.mark.parametrize("who", [ideogram("v3"), ideogram("v4")], ids=["v3", "v4"])
def test_ideogram_fails_with_an_error_of_ours(
    services: LocalServices, there: Settings, who: Expert, kind: str, error: type[DrawError], words: str, billed: bool
) -> None:
    """Nothing is fetched from elsewhere, and what may be on the bill is known."""
    services.fail(kind)
    refused(who, there, error, billed=billed, words=words)
    assert len(services.fetched) == (2 if kind == "gone" else kind == "spoilt")


def test_a_version_that_does_not_exist_is_named(services: LocalServices, there: Settings) -> None:
    """A slip in the zoo sends nothing."""
    assert "ideogram-v4" in failure(ideogram("v9"), there).hint
    assert services.requests == []


@pytest.mark.parametrize(
    ("model", "generator", "takes"),
    [
        ("stable-image-ultra", "ultra", {"seed", "negative_prompt"}),
        ("stable-image-core", "core", {"seed", "negative_prompt"}),
        ("sd3.5-large", "sd3", {"seed", "negative_prompt", "guidance_scale"}),
        ("sd3.5-large-turbo", "sd3", {"seed", "negative_prompt"}),
        ("sd3.5-medium", "sd3", {"seed", "negative_prompt", "guidance_scale"}),
    ],
)
def test_stability_gets_what_each_model_takes(
    services: LocalServices, there: Settings, model: str, generator: str, takes: set[str]
) -> None:
    """Ratio, seed, negative prompt and guidance, as a form; the rest is reported."""
    drawing = draw(
        stability(model, style_preset="anime", sampler="x"), there, seed=7, negative_prompt="snow",
        guidance_scale=20.0, num_inference_steps=9, num_images_per_prompt=2, width=1344, height=768,
    )  # fmt: skip
    assert services.requests[0].path == f"/v2beta/stable-image/generate/{generator}"
    assert [request.body["seed"] for request in services.requests] == ["7", "8"]
    body = services.requests[0].body
    assert (body["aspect_ratio"], body["negative_prompt"], body["style_preset"]) == ("16:9", "snow", "anime")
    assert body.get("model") == (model if generator == "sd3" else None)
    assert body.get("cfg_scale") == ("10.0" if "guidance_scale" in takes else None)
    assert services.requests[0].key == KEY
    # the service has sizes of its own near that
    assert [image.size for image in drawing.images] == [(1344, 768)] * 2
    asked = {"seed", "negative_prompt", "guidance_scale", "num_inference_steps", "sampler"}
    assert reasons(drawing).keys() == asked - takes


def test_stability_starts_from_a_picture(services: LocalServices, there: Settings) -> None:
    """With its strength, and without a ratio: the result has the shape of the picture."""
    draw(stability(), there, image=Image.new("RGB", (1024, 1024), "red"), strength=0.4)
    body = services.requests[0].body
    assert (body["mode"], body["strength"], "aspect_ratio" in body) == ("image-to-image", "0.4", False)
    assert len(services.requests[0].files["image"]) == 1
    assert get_backend("stability").tasks(stability("stable-image-core")) == {"text-to-image"}  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("seed", "sent"), [(0, 4_294_967_294), (4_294_967_294, 4_294_967_294), (2**40 + 5, 256 * 2 + 5)]
)
def test_seeds_stay_within_those_of_the_service(services: LocalServices, there: Settings, seed: int, sent: int) -> None:
    """0 would ask for a random one."""
    draw(stability(), there, seed=seed)
    assert services.requests[0].body["seed"] == str(sent)


@pytest.mark.parametrize(
    ("kind", "error", "billed"),
    [
        ("refusal", ContentRefusedError, False),
        ("filtered", ContentRefusedError, True),
        ("spoilt", DrawError, True),
        ("html", DrawError, True),
        ("status", ServiceError, False),
        ("closed", ServiceError, True),
    ],
)
def test_stability_fails_with_an_error_of_ours(
    services: LocalServices, there: Settings, kind: str, error: type[DrawError], billed: bool
) -> None:
    """A picture that is held back is a refusal."""
    services.fail(kind)
    refused(stability(), there, error, billed=billed)


@pytest.mark.parametrize("provider", PROVIDERS)
def test_a_provider_draws_through_the_client(router: LocalServices, there: Settings, provider: str) -> None:
    """The official client asks; pictures come in the answer, or from the provider, which does not get the token."""
    steps: dict[str, Any] = {"num_inference_steps": 4, "guidance_scale": 3.0, "negative_prompt": "snow", "seed": 7}
    drawing = draw(inference(provider, extra={"output_quality": 90}), there, num_images_per_prompt=2, **steps)
    assert len(drawing.images) == 2
    assert {request.path.split("/")[1] for request in router.requests} == {provider}
    assert router.requests[0].key == TOKEN
    said = json.dumps(dict(router.requests[0].body))
    assert '"output_quality": 90' in said
    assert ('"seed": 7' in said, '"seed": 8' in json.dumps(dict(router.requests[1].body))) == (True, True)
    assert TOKEN not in str(router.fetched)
    assert drawing.dropped == ()
    assert drawing.params["provider"] == provider


def test_an_endpoint_of_ones_own_is_an_address(services: LocalServices, there: Settings, tmp_path: Path) -> None:
    """Inference Endpoints answer with the picture itself; a zoo file names them, and gets only a key that is theirs."""
    who = inference("hf-inference", server=Server(url=f"{services.url}/endpoint"))
    assert draw(who, there).images[0].size == (512, 512)
    draw(who, settings_in(tmp_path, server_keys=f"{services.url.removeprefix('http://')}=for-this-one"))
    assert {request.path for request in services.requests} == {"/endpoint"}
    assert [request.key for request in services.requests] == ["none", "for-this-one"]
    services.fail("status", status=401)
    assert "DIFFUSIONGPT_SERVER_KEYS" in failure(who, there).hint


def test_a_server_of_ones_own_needs_no_token_of_the_hub(services: LocalServices, tmp_path: Path) -> None:
    """A studio without `HF_TOKEN` draws at the server that an entry names, and not at the providers."""
    server = Server(url=f"{services.url}/endpoint")
    size = CallSettings(width=512, height=512)
    own, theirs = (
        hosted(name, backend="hf-inference", server=at, settings=size)
        for name, at in (("own", server), ("theirs", None))
    )
    with studio_with(settings_in(tmp_path, hub_token=None), own, theirs) as studio:
        route = studio.route("a pixel art fox", max_price=1)
        readiness = {one.expert: one.readiness for one in route.candidates}
        assert (readiness["own"], readiness["theirs"]) == ("loaded", "needs_key")
        assert studio.route_and_generate("a pixel art fox", expert="own", max_price=1).drawn_by == "own"


@pytest.mark.parametrize(
    ("kind", "error", "words", "billed"),
    [
        ("elsewhere", DrawError, "example.com", True),
        ("gone", DrawError, "", True),
        ("spoilt", DrawError, "", True),
        ("html", DrawError, "", True),
        ("refusal", ContentRefusedError, "refuses", False),
        ("status", ServiceError, "500", False),
        ("closed", ServiceError, "", True),
    ],
)
def test_a_provider_fails_with_an_error_of_ours(
    router: LocalServices, there: Settings, kind: str, error: type[DrawError], words: str, billed: bool
) -> None:
    """The client follows any address, so its requests are held to the provider's own hosts."""
    router.fail(kind)
    refused(inference(), there, error, billed=billed, words=words)


def test_the_hub_client_is_as_before_after_a_drawing(router: LocalServices, there: Settings) -> None:
    """Hosts and bytes are bounded in the thread and for the time of a drawing, and not for pulls."""
    from huggingface_hub.utils import get_session  # type: ignore[attr-defined]  # exported lazily

    draw(inference(), there)
    assert get_session().get(f"{router.url}/api/images/0").status_code == 200
    assert len(get_session().event_hooks["request"]) == len(set(get_session().event_hooks["request"]))


def test_a_token_of_another_kind_is_not_sent(router: LocalServices, there: Settings, tmp_path: Path) -> None:
    """The client would take it for a key of the provider, and send it there."""
    for token in (None, "sk-other"):
        settings = settings_in(tmp_path, hub_token=token)
        assert isinstance(failure(inference(), settings), NeedsKeyError)
    assert "fal-ai" in failure(inference("nobody"), there).hint
    assert router.requests == []


@pytest.mark.parametrize("who", [ideogram(), stability()], ids=["ideogram", "stability"])
def test_without_a_key_or_network_nothing_is_asked(services: LocalServices, tmp_path: Path, who: Expert) -> None:
    """The variable is named."""
    bare = settings_in(tmp_path, ideogram_base_url=services.url, stability_base_url=services.url)
    assert "_API_KEY" in failure(who, bare).hint
    offline = settings_in(tmp_path, offline=True, ideogram_api_key=KEY, stability_api_key=KEY)
    assert isinstance(failure(who, offline), ServiceError)
    assert services.requests == []


@pytest.mark.parametrize(
    ("limits", "words"),
    [(Limits(answer_bytes=2_000), "larger than any picture"), (Limits(pixels=64), "pixels")],
    ids=["bytes", "pixels"],
)
@pytest.mark.parametrize("who", [ideogram(), stability(), inference()], ids=["ideogram", "stability", "hf"])
def test_an_answer_is_read_within_limits(
    router: LocalServices, there: Settings, who: Expert, limits: Limits, words: str
) -> None:
    """Whatever a service sends, memory stays bounded; the picture may be on the bill."""
    assert router.url
    found = failure(who, there, limits=limits)
    assert isinstance(found, DrawError)
    assert words in str(found)
    assert not found.unbilled


@pytest.mark.parametrize("who", [ideogram(), stability(), inference()], ids=["ideogram", "stability", "hf"])
def test_the_whole_way(router: LocalServices, there: Settings, tmp_path: Path, who: Expert) -> None:
    """Each draws for a request that allows its price, within the limits, and its file says so."""
    assert router.url
    with studio_with(there, who) as studio:
        result = studio.route_and_generate("a pixel art fox", max_price=0.04, num_images_per_prompt=2, expert=who.id)
        assert (result.drawn_by, len(result.images)) == (who.id, 2)
        [first, _] = result.save(tmp_path / "out")
    assert KEY.encode() not in first.read_bytes()
    assert Spending(there).today() == pytest.approx(0.08)
