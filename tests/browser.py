"""A real headless Chromium with its driver, as a person's browser: what is shown, said in its console, and fetched."""

from __future__ import annotations

import base64
import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self
from urllib.parse import urlsplit

from selenium import webdriver
from selenium.common.exceptions import TimeoutException
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.actions.action_builder import ActionBuilder
from selenium.webdriver.common.actions.pointer_input import PointerInput
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.ui import WebDriverWait

if TYPE_CHECKING:
    from selenium.webdriver.remote.webelement import WebElement

CHROMIUM, DRIVER = (shutil.which(name) for name in ("chromium", "chromedriver"))
MISSING = "no browser here (chromium and chromedriver): apt-get install chromium chromium-driver"
SCREENSHOTS = Path(__file__).parents[1] / "runs" / "page"
"""Where pictures of the page are kept, for people to look at; git ignores them."""

PHONE, DESK = 390, 1280
_HEIGHT, _LONGEST = 850, 4000
_WAIT_S = 60

_FLAGS = (
    "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync", "--hide-scrollbars",
)  # fmt: skip

_CONTRASTS = (Path(__file__).parent / "contrasts.js").read_text(encoding="utf-8")


class Browser:
    """One window; as a context manager, it is closed at the end.

    Args:
        language: What the person's browser prefers, `en` or `zh`.
        width: Pixels from left to right.
    """

    def __init__(self, language: str, width: int) -> None:
        options = webdriver.ChromeOptions()
        options.binary_location = str(CHROMIUM)
        for flag in (*_FLAGS, f"--lang={language}"):
            options.add_argument(flag)
        options.add_experimental_option("prefs", {"intl.accept_languages": language})
        options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
        self.driver = webdriver.Chrome(options, Service(str(DRIVER)))
        self.resize(width)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.driver.quit()

    def resize(self, width: int, *, dark: bool = False) -> None:
        """Show the page in another width, in light or dark colours."""
        size = {"width": width, "height": _HEIGHT, "deviceScaleFactor": 1, "mobile": width < 500}
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [scheme]})

    def at(self, selector: str) -> WebElement:
        """The first part of the page that a CSS selector fits."""
        return self.driver.find_element(By.CSS_SELECTOR, selector)

    def fill(self, selector: str, text: str) -> None:
        """Type into a field."""
        self.at(selector).send_keys(text)

    def click(self, selector: str) -> None:
        """Click on a part of the page."""
        self.driver.execute_script("arguments[0].scrollIntoView({block: 'center'})", self.at(selector))
        self.at(selector).click()

    def press(self, *keys: str) -> None:
        """Press keys, wherever the focus is."""
        self.driver.switch_to.active_element.send_keys(*keys)

    def drag(self, selector: str, start: tuple[float, float], end: tuple[float, float], *, kind: str) -> None:
        """Drag a finger (`touch`) or the `mouse` over a part of the page, between two places given as shares of it."""
        part = self.at(selector)
        self.driver.execute_script("arguments[0].scrollIntoView({block: 'center'})", part)
        box = self.js("const b = arguments[0].getBoundingClientRect(); return [b.left, b.top, b.width, b.height]", part)
        spots = [(round(box[0] + x * box[2]), round(box[1] + y * box[3])) for x, y in (start, end)]
        actions = ActionBuilder(self.driver, mouse=PointerInput(kind, kind), duration=50)
        actions.pointer_action.move_to_location(*spots[0]).pointer_down().move_to_location(*spots[1]).pointer_up()
        actions.perform()
        actions.clear_actions()

    def js(self, script: str, *arguments: Any) -> Any:
        """What a script returns."""
        return self.driver.execute_script(script, *arguments)

    def until(self, condition: str) -> None:
        """Wait until an expression in JavaScript holds."""
        try:
            WebDriverWait(self.driver, _WAIT_S, 0.05).until(lambda _: self.js(f"return Boolean({condition})"))
        except TimeoutException:
            said = self.js("return document.getElementById('alert')?.textContent")
            raise AssertionError(f"{condition} did not come about; the page says {said!r}") from None

    def shoot(self, name: str) -> None:
        """Keep a picture of the whole page."""
        width, height = self.js("return [innerWidth, document.documentElement.scrollHeight]")
        clip = {"x": 0, "y": 0, "width": width, "height": min(height, _LONGEST), "scale": 1}
        shot = self.driver.execute_cdp_cmd("Page.captureScreenshot", {"captureBeyondViewport": True, "clip": clip})
        SCREENSHOTS.mkdir(parents=True, exist_ok=True)
        (SCREENSHOTS / f"{name}.png").write_bytes(base64.b64decode(shot["data"]))

    @property
    def too_wide(self) -> bool:
        """Whether a person has to scroll sideways."""
        return bool(self.js("return document.documentElement.scrollWidth > innerWidth"))

    def pale(self) -> list[str]:
        """Texts in sight that stand out too little from what is behind them, by the rule of WCAG 2.2 AA."""
        found: list[str] = self.js(_CONTRASTS)
        return found

    def console(self) -> list[str]:
        """What the console says, of whatever level, since it was asked last."""
        return [one["message"] for one in self.driver.get_log("browser")]

    def hosts(self) -> set[str]:
        """Hosts that the page has asked for anything, since it was asked last."""
        events = [json.loads(one["message"])["message"] for one in self.driver.get_log("performance")]
        asked = [e["params"]["request"]["url"] for e in events if e["method"] == "Network.requestWillBeSent"]
        return {urlsplit(url).netloc for url in asked if not url.startswith(("data:", "blob:"))}


__all__ = ["CHROMIUM", "DESK", "DRIVER", "MISSING", "PHONE", "SCREENSHOTS", "Browser", "Keys"]
