"""The Images API in all its dialects, against a double that refuses what each kind of server refuses."""

from __future__ import annotations

import base64
import json
from io import BytesIO
from typing import TYPE_CHECKING, Any

import pytest
from fixtures_hosted import KEY, ask, draw, hosted, settings_for, studio_with
from fixtures_routing import settings_in
from PIL import Image

from diffusiongpt.backends.hosted import ImagesServerBackend, Limits, dialects
from diffusiongpt.drawing import Spending
from diffusiongpt.errors import ContentRefusedError, DrawError, NeedsKeyError, SettingsError, SpendLimitError, ZooError
from diffusiongpt.flow import Call, read_image
from diffusiongpt.testing import LocalImages
from diffusiongpt.testing._images_schemas import ORDERS, SCHEMAS
from diffusiongpt.zoo import CallSettings, Capabilities, Expert, Price, Server, TokenPrices, parse_zoo_text

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from diffusiongpt.flow import Drawing
    from diffusiongpt.settings import Settings

CAN_ALL = Capabilities(image_editing=True, inpaint=True, img2img=True, transparent_background=True)
TOKENS = TokenPrices(text=5, image=8, output=30)
SERVERS = [name for name in dialects() if name != "openai"]
BACKEND = ImagesServerBackend(Limits(timeout_s=20))


@pytest.fixture
def images() -> Iterator[LocalImages]:
    """A double of OpenAI's own service."""
    with LocalImages(dialect="openai", counts=True) as running:
        yield running


@pytest.fixture
def there(images: LocalImages, tmp_path: Path) -> Settings:
    """Settings that point to it."""
    return settings_for(images, tmp_path)


def served(images: LocalImages, dialect: str, **fields: Any) -> Expert:
    """An expert at a server of some kind."""
    wanted: dict[str, Any] = {
        "backend": "images-api",
        "repo": "here/some-model",
        "server": Server(url=images.url, dialect=dialect),
        "settings": CallSettings(),
        "capabilities": CAN_ALL,
        **fields,
    }
    return hosted("mine", **wanted)


def at_server(images: LocalImages, dialect: str, folder: Path, *, extra: Any = None, **asked: Any) -> Drawing:
    """A drawing by a server of some kind."""
    who = served(images, dialect, settings=CallSettings(extra=extra or {}))
    keys = f"{images.url.split('/')[2]}=for-this-one" if dialects()[dialect].needs_key else None
    return BACKEND.draw(ask(who=who, **asked), settings_in(folder, openai_api_key=KEY, server_keys=keys))


def picture(size: tuple[int, int] = (64, 64), colour: str = "red") -> Image.Image:
    """A picture that goes in."""
    return Image.new("RGB", size, colour)


def noise() -> str:
    """A picture in base64."""
    held = BytesIO()
    Image.effect_noise((64, 64), 50).save(held, format="PNG")
    return base64.b64encode(held.getvalue()).decode()


def reasons(drawing: Drawing) -> dict[str, str]:
    """What was dropped, and why."""
    return {one.name: one.reason for one in drawing.dropped}


def test_each_dialect_says_where_it_is_from_and_has_a_double() -> None:
    """A row of the table that no test holds would be a guess."""
    assert {name for name, one in dialects().items() if one.sources and one.title} == set(SCHEMAS)
    for name, one in dialects().items():
        orders = tuple((order.method, order.path) for order in (one.sleep, one.wake) if order)
        assert orders == ORDERS.get(name, ())


@pytest.mark.parametrize("dialect", SERVERS)
def test_a_server_gets_what_it_takes_under_its_own_names(tmp_path: Path, dialect: str) -> None:
    """Size, seeds, steps, guidance and negative prompt arrive, or are reported; no field is sent that it refuses."""
    size = {"width": 1024, "height": 1024}
    with LocalImages(dialect=dialect) as images:
        drawing = at_server(
            images, dialect, tmp_path, prompt="a fox | an owl", negative_prompt="snow", seed=7,
            num_inference_steps=9, guidance_scale=3.0, num_images_per_prompt=2, **size,
        )  # fmt: skip
        bodies = [request.body for request in images.requests]
    known = dialects()[dialect]
    assert [image.size for image in drawing.images] == [(1024, 1024)] * 2
    assert all(body["size"] == "1024x1024" for body in bodies)
    assert all(body["model"] == "some-model" for body in bodies)
    taken = {*known.arguments, *(["negative_prompt"] if known.negative_after else [])}
    asked = {"seed", "negative_prompt", "num_inference_steps", "guidance_scale"}
    assert reasons(drawing).keys() == asked - taken
    if "seed" in taken and not known.seeds_count_up:
        # picture `i` is that of `seed + i` alone
        assert len(bodies) == 2
        assert drawing.images[0].tobytes() != drawing.images[1].tobytes()


def test_seeds_that_count_up_take_one_request(tmp_path: Path) -> None:
    """Our own server draws picture `i` of `seed + i` itself."""
    with LocalImages(dialect="diffusiongpt") as images:
        at_server(images, "diffusiongpt", tmp_path, seed=7, num_images_per_prompt=4)
        assert [(one.body["seed"], one.body["n"]) for one in images.requests] == [(7, 4)]


def test_a_limit_of_a_server_is_kept_and_reported(tmp_path: Path) -> None:
    """vLLM-Omni takes at most two hundred steps."""
    with LocalImages(dialect="vllm-omni") as images:
        drawing = at_server(images, "vllm-omni", tmp_path, num_inference_steps=300)
        assert images.requests[0].body["num_inference_steps"] == 200
    assert "at most 200" in reasons(drawing)["num_inference_steps"]
    assert drawing.params["num_inference_steps"] == 200


def test_dall_e_3_is_asked_for_one_picture_at_a_time(tmp_path: Path) -> None:
    """Its quality and style are its own, and pictures come in the answer, although addresses are its default."""
    extra = {"quality": "hd", "style": "natural", "background": "transparent"}
    with LocalImages(dialect="dall-e-3") as images:
        drawing = at_server(images, "dall-e-3", tmp_path, extra=extra, num_images_per_prompt=3, width=1792, height=1024)
        assert [one.body["n"] for one in images.requests] == [1, 1, 1]
        body = images.requests[0].body
    assert (body["quality"], body["style"], body["response_format"]) == ("hd", "natural", "b64_json")
    assert [image.size for image in drawing.images] == [(1792, 1024)] * 3
    assert reasons(drawing).keys() == {"background"}


def test_native_arguments_go_into_the_prompt(tmp_path: Path) -> None:
    """stable-diffusion.cpp reads them there; a prompt that brings the mark itself loses it."""
    with LocalImages(dialect="sd-cpp") as images:
        prompt = 'a fox<sd_cpp_extra_args>{"seed": 1, "lora": ["/etc"]}</sd_cpp_extra_args>'
        drawing = at_server(images, "sd-cpp", tmp_path, prompt=prompt, seed=9, num_inference_steps=4)
        said = images.requests[0].body["prompt"]
    assert said.count("<sd_cpp_extra_args>") == 1
    sent = json.loads(said.partition("<sd_cpp_extra_args>")[2].partition("</")[0])
    assert sent == {"seed": 9, "sample_params": {"sample_steps": 4}}
    assert drawing.params["num_inference_steps"] == 4


def test_a_negative_prompt_behind_a_line_is_the_only_one(tmp_path: Path) -> None:
    """LocalAI splits the prompt at "|", so that of the user's own text is a comma."""
    with LocalImages(dialect="localai") as images:
        at_server(images, "localai", tmp_path, prompt="a | b", negative_prompt="snow")
        assert images.requests[0].body["prompt"] == "a , b|snow"


@pytest.mark.parametrize("dialect", [name for name, one in dialects().items() if one.edits and name != "openai"])
def test_pictures_go_to_servers_that_edit(tmp_path: Path, dialect: str) -> None:
    """One picture or several, and a mask where it is known how it is read."""
    with LocalImages(dialect=dialect) as images:
        drawing = at_server(images, dialect, tmp_path, image=[picture(), picture(colour="blue")], edit=True, seed=3)
        assert images.requests[0].path == "/v1/images/edits"
        assert len(images.requests[0].pictures) == 2
        mask = Image.new("L", (64, 64))
        mask.paste(255, (0, 0, 32, 64))
        at_server(images, dialect, tmp_path, image=picture(), mask_image=mask)
        edits = dialects()[dialect].edits
        assert len(images.requests[-1].files.get("mask", ())) == bool(edits and edits.mask)
        assert "x".join(map(str, drawing.images[0].size)) == images.requests[0].body["size"]


def test_sixteen_pictures_and_a_mask_are_edited(images: LocalImages, there: Settings) -> None:
    """Of a mask, the transparent part is painted, and it has the size of the first picture."""
    mask = Image.new("L", (32, 32))
    mask.paste(255, (0, 0, 16, 32))
    many = [picture(colour=colour) for colour in ("red", "green", "blue", "white") for _ in range(4)]
    who = hosted(capabilities=CAN_ALL)
    draw(there, ask("give it a hat", who, image=many, mask_image=mask))
    [request] = images.requests
    assert request.path == "/v1/images/edits"
    assert request.body == {"model": "cloud", "prompt": "give it a hat", "size": "64x64", "n": "1", "quality": "low"}
    assert len(request.pictures) == 16
    sent = Image.open(BytesIO(request.files["mask"][0]))
    assert (sent.mode, sent.size) == ("RGBA", (64, 64))
    assert [sent.getpixel((x, 0))[3] for x in (0, 31, 32, 63)] == [0, 0, 255, 255]  # type: ignore[index]


def test_too_many_pictures_are_reported(images: LocalImages, there: Settings) -> None:
    """The service takes sixteen; a call with more, which no request makes, leaves the others out."""
    inputs = tuple(read_image(picture((8 + index, 8))) for index in range(18))
    call = Call(expert=hosted(), task="edit", prompt="a fox", negative_prompt="", seeds=(1,), inputs=inputs)
    drawing = draw(there, call)
    assert len(images.requests[0].pictures) == 16
    assert [one.name for one in drawing.dropped] == ["image", "image"]


def test_an_edit_finds_an_expert_that_edits(images: LocalImages, there: Settings) -> None:
    """The whole way: an instruction with a picture goes to the service, and the file records what went in."""
    who = hosted(capabilities=CAN_ALL, settings=CallSettings(width=64, height=64, sizes=("64x64",)))
    with studio_with(there, who) as studio:
        result = studio.route_and_generate("give the fox a red hat", image=[picture(), picture()], max_price=0.04)
        assert result.drawn_by == "cloud"
        assert result.records[0].task == "edit"
        assert len(result.records[0].inputs) == 2
        mask = Image.new("L", (64, 64))
        mask.paste(255, (0, 0, 32, 64))
        painted = studio.route_and_generate("a hat", image=picture(), mask_image=mask, max_price=0.04, expert="cloud")
    assert painted.image.convert("RGB").crop((32, 0, 64, 64)).getcolors() == [(32 * 64, (255, 0, 0))]
    assert images.requests[-1].files["mask"]


@pytest.mark.parametrize(
    ("extra", "sent", "dropped"),
    [
        (
            {"output_format": "jpeg", "output_compression": 80},
            {"output_format": "jpeg", "output_compression": 80},
            set(),
        ),
        ({"output_format": "webp"}, {"output_format": "webp"}, set()),
        ({"output_format": "gif"}, {}, {"output_format"}),
        ({"output_format": "svg"}, {}, {"output_format"}),
        ({"quality": "max", "moderation": "low"}, {"quality": "max", "moderation": "low"}, set()),
        ({"frame_count": 3}, {}, {"frame_count"}),
    ],
)
def test_formats_and_quality(
    images: LocalImages, there: Settings, extra: dict[str, Any], sent: dict[str, Any], dropped: set[str]
) -> None:
    """What is a picture is asked for; animations, drawings of lines and unknown settings are reported."""
    drawing = draw(there, ask(who=hosted(settings=CallSettings(extra=extra))))
    body = images.requests[0].body
    assert {name: body[name] for name in body if name not in ("model", "prompt", "n")} == sent
    assert reasons(drawing).keys() == dropped


@pytest.mark.parametrize(("wanted", "given"), [("jpeg", "png"), ("webp", "webp"), (None, None)])
def test_a_transparent_picture_has_a_format_for_it(
    images: LocalImages, there: Settings, wanted: str | None, given: str | None
) -> None:
    """JPEG has no transparency."""
    settings = CallSettings(width=64, height=64, extra={"output_format": wanted} if wanted else {})
    drawing = draw(there, ask(transparent_background=True, who=hosted(settings=settings)))
    assert images.requests[0].body.get("output_format") == given
    assert drawing.images[0].mode == "RGBA"


@pytest.mark.parametrize("edit", [False, True])
def test_unfinished_pictures_reach_the_callback(images: LocalImages, there: Settings, edit: bool) -> None:
    """`partial_images` of an expert streams: each comes as `image`, the last is the result, with its usage."""
    seen: list[tuple[int, int]] = []

    def callback(_pipe: Any, _step: int, _time: int, kwargs: dict[str, Any]) -> None:
        seen.append(kwargs["image"].size)

    who = hosted(settings=CallSettings(width=64, height=64, extra={"partial_images": 2}), capabilities=CAN_ALL)
    pictures: dict[str, Any] = {"image": [picture(), picture()], "edit": True} if edit else {}
    drawing = draw(there, ask(who=who, callback_on_step_end=callback, num_images_per_prompt=2, **pictures))
    assert seen == [(64, 64)] * 4
    assert [request.body["n"] for request in images.requests] == ["1", "1"] if edit else [1, 1]
    assert len(drawing.images) == 2
    assert drawing.params["usage"]["output_tokens"] == 2 * 1200
    assert drawing.dropped == ()


def test_without_partial_images_the_callback_is_reported(there: Settings) -> None:
    """An unfinished picture is billed, so the zoo must ask for it."""
    drawing = draw(there, ask(callback_on_step_end=lambda *_: None))
    assert "partial_images" in reasons(drawing)["callback_on_step_end"]


def test_an_error_of_a_callback_reaches_the_caller(there: Settings) -> None:
    """It is the caller's own, and not a failure of the service."""

    def stop(*_: Any) -> None:
        raise KeyError("mine")

    who = hosted(settings=CallSettings(extra={"partial_images": 1}))
    with studio_with(there, who) as studio, pytest.raises(KeyError, match="mine"):
        studio.route_and_generate("a pixel art fox", max_price=0.04, expert="cloud", callback_on_step_end=stop)


@pytest.mark.parametrize(
    ("kind", "error"),
    [("refused late", ContentRefusedError), ("cut short", DrawError), ("closed", DrawError), ("status", DrawError)],
)
def test_a_stream_that_fails_is_an_error(
    images: LocalImages, there: Settings, monkeypatch: pytest.MonkeyPatch, kind: str, error: type[DrawError]
) -> None:
    """A refusal after unfinished pictures is one; a stream without its picture is none."""
    monkeypatch.setattr("time.sleep", lambda _: None)
    images.fail(kind)
    with pytest.raises(error):
        draw(there, ask(who=hosted(settings=CallSettings(extra={"partial_images": 1}))))


def test_a_server_that_does_not_stream_is_read_all_the_same(there: Settings, images: LocalImages) -> None:
    """Some gateways answer with the picture at once."""
    encoded = noise()
    images.fail("custom", answer=lambda one: one.send_json({"data": [{"b64_json": encoded}]}))
    drawing = draw(there, ask(who=hosted(settings=CallSettings(extra={"partial_images": 1}))))
    assert len(drawing.images) == 1


def test_what_a_picture_cost_follows_from_its_tokens(there: Settings, tmp_path: Path) -> None:
    """The price is set aside, and what the service counted is spent in its place; both are in the record."""
    who = hosted(price=Price(usd=0.04, tokens=TOKENS), capabilities=CAN_ALL)
    spent = (2 * 5 + 200 * 8 + 1000 * 30) / 1e6
    with studio_with(there, who) as studio:
        result = studio.route_and_generate("better now", image=picture(), max_price=0.04, expert="cloud")
    assert result.params["cost_usd"] == pytest.approx(spent)
    assert result.params["usage"] == {
        "input_tokens": 202, "output_tokens": 1000, "total_tokens": 1202, "input_text_tokens": 2,
        "input_image_tokens": 200,
    }  # fmt: skip
    assert Spending(there).today() == pytest.approx(spent)
    [path] = result.save(tmp_path / "fox.png")
    assert path.exists()


def test_a_dear_picture_counts_as_what_it_cost(tmp_path: Path) -> None:
    """A limit is kept against what was charged, and not against what was expected."""
    with LocalImages(counts=True) as images:
        settings = settings_for(images, tmp_path, spend_per_day=0.1)
        who = hosted(price=Price(usd=0.04, tokens=TokenPrices(text=5, image=8, output=90)))
        with studio_with(settings, who) as studio:
            studio.route_and_generate("a pixel art fox", max_price=0.04, expert="cloud")
            with pytest.raises(SpendLimitError, match="limit of a day"):
                studio.route_and_generate("a pixel art fox", max_price=0.04, expert="cloud")
    assert Spending(settings).today() == pytest.approx(0.09, abs=1e-3)


@pytest.mark.parametrize(
    "usage",
    [None, 7, [], {"output_tokens": -5}, {"output_tokens": True}, {"output_tokens": 1e300}, {"output_tokens": "many"},
     {"output_tokens": 10**30, "input_tokens_details": "x"}],
)  # fmt: skip
def test_counts_that_are_none_are_left_out(images: LocalImages, there: Settings, usage: Any) -> None:
    """A service may say anything; the price of the zoo is what counts then."""
    encoded = noise()
    images.fail("custom", answer=lambda one: one.send_json({"data": [{"b64_json": encoded}], "usage": usage}))
    who = hosted(price=Price(usd=0.04, tokens=TOKENS))
    with studio_with(there, who) as studio:
        result = studio.route_and_generate("a pixel art fox", max_price=0.04, expert="cloud")
    assert "cost_usd" not in result.params
    assert Spending(there).today() == pytest.approx(0.04)


def test_a_server_of_a_zoo_file_gets_no_key_of_the_user(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It may be a stranger's: neither OpenAI's key nor what the environment says of an account is sent there."""
    for name in ("OPENAI_API_KEY", "OPENAI_ADMIN_KEY", "OPENAI_ORG_ID", "OPENAI_PROJECT_ID"):
        monkeypatch.setenv(name, KEY)
    with LocalImages(dialect="vllm-omni") as images:
        at_server(images, "vllm-omni", tmp_path)
        assert images.requests[0].key == "none"
        assert KEY not in str(images.requests[0].headers)


def test_a_key_goes_to_its_own_server(tmp_path: Path) -> None:
    """Each of several servers gets its own, and one that wants a key and has none is named."""
    with LocalImages(dialect="dall-e-3") as images, LocalImages(dialect="dall-e-3") as other:
        host, port = images.url.split("/")[2].split(":")
        settings = settings_in(tmp_path, server_keys=f"elsewhere=abc,{host}:{port}=sesame")
        assert BACKEND.draw(ask(who=served(images, "dall-e-3"), width=1024, height=1024), settings).images
        assert images.requests[0].key == "sesame"
        with pytest.raises(NeedsKeyError, match="no key is set for") as error:
            BACKEND.draw(ask(who=served(other, "dall-e-3")), settings)
        assert "DIFFUSIONGPT_SERVER_KEYS" in error.value.hint
        assert other.requests == []
    assert "sesame" not in repr(settings) + settings.model_dump_json()


def test_a_server_that_wants_a_key_and_has_none_shows_that(images: LocalImages, tmp_path: Path) -> None:
    """A route knows it before anything is drawn; another server needs no key."""
    who = [served(images, dialect).model_copy(update={"id": dialect}) for dialect in ("dall-e-3", "vllm-omni")]
    with studio_with(settings_in(tmp_path), *who) as studio:
        route = studio.route("a pixel art fox", max_price=1)
    readiness = {one.expert: one.readiness for one in route.candidates}
    assert (readiness["dall-e-3"], readiness["vllm-omni"]) == ("needs_key", "loaded")


@pytest.mark.parametrize("keys", ["sesame", "host=", "=sesame", "a/b=c"])
def test_keys_of_servers_have_a_form(tmp_path: Path, keys: str) -> None:
    """What is none is refused when it is read, without being shown."""
    with pytest.raises(SettingsError, match="server_keys") as error:
        settings_in(tmp_path, server_keys=keys)
    assert "sesame" not in str(error.value)


def test_an_address_on_the_server_itself_is_fetched(tmp_path: Path) -> None:
    """Some servers answer with one, whatever they are asked for; any other host is not asked."""
    with LocalImages(dialect="localai") as images, LocalImages() as other:
        for server in (images, other):
            server.hold(base64.b64decode(noise()))

        def names(address: str) -> None:
            images.fail("custom", times=1, answer=lambda one: one.send_json({"data": [{"url": address}]}))

        for address in ("/v1/images/0/content", f"{images.url}/images/0/content"):
            names(address)
            assert at_server(images, "localai", tmp_path).images[0].size == (64, 64)
        host = images.url.split("/")[2]
        for address in (
            f"{other.url}/images/0/content", f"http://u:p@{host}/v1/images/0/content", "//127.0.0.1:9/x",
            "file:///etc/passwd", "http://[::1", "/v1/images/7/content",
        ):  # fmt: skip
            names(address)
            with pytest.raises(DrawError):
                at_server(images, "localai", tmp_path)


@pytest.mark.parametrize("dialect", list(ORDERS))
def test_a_server_sleeps_and_wakes(tmp_path: Path, dialect: str) -> None:
    """Its memory is given back and brought back by its own requests; one without them says so."""
    with LocalImages(dialect=dialect) as images:
        who, settings = served(images, dialect), settings_in(tmp_path)
        assert BACKEND.sleep(who, settings)
        assert images.asleep is (dialect != "llama-swap")
        assert BACKEND.wake(who, settings) is (dialect != "llama-swap")
        assert not images.asleep
        assert BACKEND.draw(ask(who=who), settings).images
        assert images.orders == [path for _, path in ORDERS[dialect]]
        assert not BACKEND.sleep(served(images, "localai"), settings)


def test_an_order_that_fails_is_an_error(tmp_path: Path) -> None:
    """A server of another kind does not have the path."""
    with LocalImages(dialect="localai") as images, pytest.raises(DrawError, match="404"):
        BACKEND.sleep(served(images, "sglang"), settings_in(tmp_path))


def test_a_dialect_that_is_none_names_the_nearest(tmp_path: Path) -> None:
    """A slip is reported before anything is sent."""
    with LocalImages() as images:
        with pytest.raises(DrawError, match="not a dialect") as error:
            BACKEND.draw(ask(who=served(images, "vlm-omni")), settings_in(tmp_path))
        assert "vllm-omni" in error.value.hint
        with pytest.raises(DrawError, match="names no server"):
            BACKEND.draw(ask(who=served(images, "sglang", server=None)), settings_in(tmp_path))
        assert images.requests == []


@pytest.mark.parametrize("url", ["ftp://host", "host:8000", "http://user:secret@host/v1", "http://host/v1?key=secret"])
def test_the_address_of_a_server_only_says_where(tmp_path: Path, url: str) -> None:
    """Keys are not written into zoo files."""
    text = f"experts:\n  - {{id: a, backend: images-api, repo: a/b, server: {{url: '{url}'}}}}\n"
    with pytest.raises(ZooError) as error:
        parse_zoo_text(text, tmp_path / "zoo.yaml")
    assert "secret" not in str(error.value)
