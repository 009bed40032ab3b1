"""The page in a real browser: a person draws, compares blind and votes, and holds a conversation, on a phone too."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import browser
import pytest
from browser import DESK, PHONE, Browser, Keys
from fixtures_server import running
from PIL import Image

from diffusiongpt.settings import load_settings
from diffusiongpt.studio import DiffusionGPT

if TYPE_CHECKING:
    from fixtures_server import Running

pytestmark = pytest.mark.skipif(not (browser.CHROMIUM and browser.DRIVER), reason=browser.MISSING)

LANGUAGES = ("en", "zh")
RED = (255, 0, 0)
TURNS = {
    "en": ("a red heart on a white background", "but blue", "which seed?"),
    "zh": ("白色背景上的红色爱心", "换成蓝色", "种子是多少？"),
}
FIRST = {"en": "make the first one green", "zh": "把第一张换成绿色"}
SHAPES = {"en": "8-bit red heart", "zh": "8-bit 红色爱心"}
QUIET = "!document.querySelector('.main:disabled')"
COLOUR = """
  const picture = document.querySelector(arguments[0]), canvas = document.createElement("canvas");
  Object.assign(canvas, {width: picture.naturalWidth, height: picture.naturalHeight});
  canvas.getContext("2d").drawImage(picture, 0, 0);
  const [x, y] = [Math.floor(arguments[1] * canvas.width), Math.floor(arguments[2] * canvas.height)];
  return [...canvas.getContext("2d").getImageData(x, y, 1, 1).data];
"""


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """A server whose votes are of this file alone."""
    home = tmp_path_factory.mktemp("browsed")
    settings = load_settings(home=home / "home", hub_cache=home / "hub", stand_in=False)
    with DiffusionGPT("tiny", device="cpu", settings=settings) as studio, running(studio) as one:
        studio.route_and_generate("a red heart", num_inference_steps=1)  # imports what draws, which takes a while
        yield one


@pytest.fixture(params=[("en", PHONE), ("zh", DESK)], ids=["en-390", "zh-1280"])
def person(request: pytest.FixtureRequest, served: Running) -> Iterator[Person]:
    """Somebody with the page open; afterwards the console was silent, and no other host was asked for anything."""
    language, width = request.param
    with Browser(language, width) as window:
        window.driver.get(served.url)
        window.until("document.querySelectorAll('#model option').length > 3")
        yield Person(window, language, width)
        assert window.console() == []
        assert {f"http://{host}" for host in window.hosts()} == {served.url}


class Person:
    """A person in front of a browser."""

    def __init__(self, window: Browser, language: str, width: int) -> None:
        self.window, self.language, self.width = window, language, width

    def look(self, name: str) -> None:
        """Look at the page in both languages and widths, in light and dark: all fits, and all can be read."""
        for language in LANGUAGES:
            self.speak(language)
            for width in (PHONE, DESK):
                self.window.resize(width, dark=language == "zh")
                assert not self.window.too_wide, (name, language, width)
                assert self.window.pale() == [], (name, language, width)
                self.window.shoot(f"{self.language}-{self.width}-{name}-{language}-{width}")
        self.speak(self.language)
        self.window.resize(self.width)

    def speak(self, language: str) -> None:
        """Choose the language of the page."""
        self.window.js("language.value = arguments[0]; language.dispatchEvent(new Event('change'))", language)

    def marks(self, selector: str) -> None:
        """Mark a part of the picture in a mask editor, with keys."""
        self.window.click(f"{selector} summary")
        self.window.js(f"document.querySelector('{selector} canvas').focus()")
        self.window.press(Keys.SPACE, *[Keys.ARROW_LEFT] * 3)

    def says(self, selector: str) -> str:
        """The text of a part of the page."""
        text: str = self.window.at(selector).text
        return text

    def colour(self, selector: str, x: float, y: float) -> tuple[int, ...]:
        """The colour of a picture at a place, given as shares of its sides."""
        return tuple(self.window.js(COLOUR, selector, x, y)[:3])

    def count(self, selector: str, number: int) -> None:
        """Wait until there are so many of a kind, and nothing is under way."""
        self.window.until(f"document.querySelectorAll('{selector}').length === {number} && {QUIET}")


def test_a_person_draws_and_paints_over_a_part(person: Person, tmp_path: Path) -> None:
    """The route is explained; nothing outside what a finger or a mouse has marked changes."""
    window = person.window
    assert window.js("return document.documentElement.lang") == {"en": "en", "zh": "zh-Hans"}[person.language]
    window.fill("#prompt", SHAPES[person.language])
    window.press(Keys.CONTROL, Keys.ENTER)
    person.count("#history figure", 1)
    assert "tiny-" in person.says("#route strong")
    Image.new("RGB", (96, 64), RED).save(tmp_path / "red.png")
    window.at("#pictures").send_keys(str(tmp_path / "red.png"))
    window.until("!document.getElementById('draw-mask').hidden")
    window.click("#draw-mask summary")
    kind = "touch" if person.width == PHONE else "mouse"
    window.drag("#draw-mask canvas", (0.2, 0.3), (0.2, 0.7), kind=kind)
    person.look("draw")
    window.click("#draw-go")
    person.count("#history figure", 2)
    newest = "#history figure:first-child img"
    assert person.colour(newest, 0.6, 0.5) == person.colour(newest, 0.99, 0.01) == RED
    assert person.colour(newest, 0.2, 0.5) != RED


def test_a_person_compares_blind_and_votes(person: Person, served: Running) -> None:
    """By key; no name is seen before, and the store has the choice and how long it took."""
    window = person.window
    window.click("#tab-compare")
    window.fill("#compare-prompt", SHAPES[person.language])
    window.click("#compare-go")
    window.until("!document.getElementById('ballot').hidden")
    assert "tiny-" not in person.says("#compare")
    person.look("compare")
    window.js("document.getElementById('choices').focus()")
    window.press("2")
    window.until("!document.getElementById('verdict').hidden")
    vote = served.studio.preferences.store.all()[-1]
    assert str(vote.winner) in person.says("#verdict strong")
    assert all(expert in person.says("#blind") for expert in vote.experts)
    assert vote.seconds is not None
    assert 0 < vote.seconds < 60
    person.look("voted")


def test_a_person_holds_a_conversation(person: Person) -> None:
    """New, refined, asked about; a marked part is drawn again; turns are taken back. What is typed meanwhile stays.

    A mask with words that name another picture, or with a question, does not go without a word.
    """
    window = person.window
    window.click("#tab-talk")
    for number, text in enumerate(TURNS[person.language], start=1):
        window.fill("#say", text)
        window.press(Keys.ENTER)
        person.count("#turns > li", number)
    (seed,) = re.findall(r"\d{4,}", person.says("#turns > li:nth-child(3)"))
    assert seed in person.says("#turns > li:nth-child(2) figcaption")
    person.marks("#talk-mask")
    person.look("chat")
    corner = [person.colour("#turns > li:nth-child(2) img", *place) for place in ((0.01, 0.01), (0.99, 0.99))]
    window.fill("#say", SHAPES[person.language])
    window.js("document.getElementById('talk-go').click(); document.getElementById('say').value = 'typed meanwhile'")
    person.count("#turns > li", 4)
    assert window.js("return document.getElementById('say').value") == "typed meanwhile"
    painted = "#turns > li:nth-child(4) img"
    assert [person.colour(painted, *place) for place in ((0.01, 0.01), (0.99, 0.99))] == corner
    window.click("#talk-undo")
    person.count("#turns > li", 3)
    assert window.js("return document.getElementById('say').value") == SHAPES[person.language]
    window.js("document.getElementById('say').value = ''")
    for number, (text, says) in enumerate(
        ((FIRST[person.language], "1"), (TURNS[person.language][2], "mask_image")), 4
    ):
        person.marks("#talk-mask")
        window.fill("#say", text)
        window.press(Keys.ENTER)
        person.count("#turns > li", number)
        assert says in person.says(f"#turns > li:nth-child({number}) > p:nth-of-type({number - 3})")
    window.click("#talk-new")
    person.count("#turns > li", 0)


def test_a_person_reads_the_tables(person: Person) -> None:
    """By keyboard alone; they fit on a phone."""
    window = person.window
    window.js("document.getElementById('tab-compare').focus()")
    for tab in ("experts", "ranking", "machine"):
        window.press(Keys.ARROW_RIGHT)
        window.until(f"document.activeElement.id === 'tab-{tab}' && document.querySelector('#{tab} th, #{tab} dd')")
        person.look(tab)
