"""The guard: levels, checks of other packages, and a refusal that costs nothing."""

from __future__ import annotations

from importlib.metadata import EntryPoint
from typing import TYPE_CHECKING, Any

import pytest
from langchain_openai import ChatOpenAI

from diffusiongpt import CheckError, ContentPolicyError, DiffusionGPT, Generation
from diffusiongpt.plugins import Plugins
from diffusiongpt.safety import CHECKS, Asked, Finding, Guard, stricter
from diffusiongpt.testing import LocalChat
from diffusiongpt.zoo import Zoo

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from diffusiongpt.safety import Check
    from diffusiongpt.settings import Settings

REFUSED = "a nude child"
FINE = "a red heart"


class NoSquares:
    """A check of another package: refuses the word `square`, and any picture if it is set to."""

    flags = False

    def prompt(self, asked: Asked, level: str) -> Finding | None:
        """Refuse squares."""
        assert level in ("standard", "strict")
        return Finding("no-squares", "squares") if "square" in asked.prompt else None

    def images(self, images: Any, asked: Asked, level: str) -> Finding | None:  # noqa: ARG002  # of the protocol
        """Refuse what was drawn."""
        assert images
        return Finding("no-pictures", "pictures") if self.flags else None


class Broken:
    """A check that fails when it is asked."""

    def prompt(self, asked: Asked, level: str) -> None:  # noqa: ARG002  # of the protocol
        """Fail."""
        raise ZeroDivisionError

    images = prompt


def offered(name: str) -> Plugins[Check]:
    """The installed checks, and one that a package offers."""
    point = EntryPoint(name=name, value=f"{__name__}:{name}", group=CHECKS.group)

    def installed(*, group: str, name: str | None = None) -> tuple[EntryPoint, ...]:
        assert group == CHECKS.group
        return (point,) if name in (None, point.name) else ()

    return Plugins(CHECKS.group, CHECKS.what, CHECKS.ours, CHECKS.error, installed)


@pytest.fixture
def load_here(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let entry points of this file be loaded."""
    load = EntryPoint.load
    monkeypatch.setattr(
        EntryPoint, "load", lambda self: globals()[self.attr] if self.module == __name__ else load(self)
    )


@pytest.fixture
def open_studio(settings: Settings) -> Iterator[Callable[..., DiffusionGPT]]:
    """Opens studios with the tiny zoo."""
    opened = []

    def make(**options: Any) -> DiffusionGPT:
        chosen = settings.model_copy(update=options.pop("settings", {}))
        opened.append(DiffusionGPT(options.pop("zoo", "tiny"), device="cpu", settings=chosen, **options))
        return opened[-1]

    yield make
    for studio in opened:
        studio.close()


def test_the_stricter_level_holds() -> None:
    """A request may be stricter than the settings and not looser."""
    assert [Guard("standard").level(one) for one in ("off", "standard", "strict")] == ["standard", "standard", "strict"]
    assert Guard("off").level("off") == "off"
    assert stricter("strict", "standard") == "strict"


def test_every_way_to_ask_is_refused(open_studio: Callable[..., DiffusionGPT]) -> None:
    """Routing, drawing, comparing and a batch refuse alike, by a typed error that names the rule."""
    studio = open_studio()
    for ask in (studio.route, studio.route_and_generate, studio.compare):
        with pytest.raises(ContentPolicyError, match="minors") as caught:
            ask(REFUSED)
        assert caught.value.rule == "sexual-content-with-minors"
        assert caught.value.hint
    drawn = list(studio.generate_many([REFUSED, FINE], return_exceptions=True, num_inference_steps=1))
    assert isinstance(drawn[0], ContentPolicyError)
    assert isinstance(drawn[1], Generation)


def test_a_refusal_costs_nothing(open_studio: Callable[..., DiffusionGPT]) -> None:
    """No LLM reads what is refused, and nothing is loaded or sent."""
    with LocalChat() as chat:
        studio = open_studio(llm=ChatOpenAI(model="local", base_url=chat.url, api_key="any", max_retries=0))
        with pytest.raises(ContentPolicyError):
            studio.route_and_generate(REFUSED)
        assert not chat.requests
        assert studio.route(FINE).candidates[0].readiness == "on_disk"
        assert chat.requests


def test_off_refuses_nothing_unless_the_settings_do(open_studio: Callable[..., DiffusionGPT]) -> None:
    """`off` is the caller's word on their own machine; a floor in the settings is the word of who runs a service."""
    prompt = "a nude woman"
    assert open_studio().route(prompt).expert
    with pytest.raises(ContentPolicyError, match="nudity") as caught:
        open_studio(settings={"safety": "strict"}).route(prompt, safety="off")
    assert "DIFFUSIONGPT_SAFETY" in caught.value.hint
    assert open_studio().route("a celebrity without clothes", safety="off").expert


def test_the_level_is_recorded_and_holds_for_a_redraw(open_studio: Callable[..., DiffusionGPT], tmp_path: Path) -> None:
    """A saved picture says which level it was drawn with, and is drawn again with that one, or a stricter floor."""
    studio = open_studio()
    drawn = studio.route_and_generate("a nude heart", seed=1, num_inference_steps=1, safety="off")
    [path] = drawn.save(tmp_path / "heart.png")
    read = Generation.from_file(path)
    assert read.records[0].safety == "off"
    assert studio.redraw(read).image.tobytes() == drawn.image.tobytes()
    with pytest.raises(ContentPolicyError, match="nudity"):
        open_studio(settings={"safety": "strict"}).redraw(read)


@pytest.mark.usefixtures("load_here")
def test_checks_of_other_packages_are_asked(
    open_studio: Callable[..., DiffusionGPT], monkeypatch: pytest.MonkeyPatch
) -> None:
    """An installed check refuses prompts before routing and pictures before anyone sees them."""
    monkeypatch.setattr(Guard.__init__, "__defaults__", (offered("NoSquares"),))
    studio = open_studio()
    with pytest.raises(ContentPolicyError, match="squares"):
        studio.route("a red square")
    assert studio.route("a red square", safety="off").expert
    assert studio.route_and_generate(FINE, num_inference_steps=1).images
    monkeypatch.setattr(NoSquares, "flags", True)
    for ask in (studio.route_and_generate, studio.compare):
        with pytest.raises(ContentPolicyError, match="picture that was drawn was refused") as caught:
            ask(FINE, num_inference_steps=1)
        assert caught.value.rule == "no-pictures"


@pytest.mark.usefixtures("load_here")
def test_a_broken_check_lets_nothing_through() -> None:
    """What fails, or cannot be loaded, is named, and permits nothing; with `off` it is not asked."""
    for name, message in (("Broken", "'Broken' failed"), ("Missing", "could not be loaded")):
        guard = Guard("off", offered(name))
        with pytest.raises(CheckError, match=message):
            guard.check_prompt(Asked(prompt=FINE), "standard")
        guard.check_prompt(Asked(prompt=FINE), "off")


def test_what_an_expert_adds_is_checked_too(open_studio: Callable[..., DiffusionGPT]) -> None:
    """The exact prompt is checked before it is drawn: trigger words of an expert pass no policy by the back door."""
    tiny = Zoo.load("tiny")
    nude = tiny["tiny-oil"].model_copy(update={"id": "nudes", "trigger_words": ("nude",)})
    studio = open_studio(zoo=Zoo({"nudes": nude}, tiny.taxonomy.nodes, ("mine",)))
    assert studio.route("a red heart", safety="strict").expert == "nudes"
    with pytest.raises(ContentPolicyError, match="nudity"):
        studio.route_and_generate("a red heart", safety="strict", num_inference_steps=1)
