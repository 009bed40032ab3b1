"""The guard: asks every installed check, and turns what one finds into a typed refusal."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Final

from diffusiongpt.errors import CheckError, ContentPolicyError, DiffusionGPTError
from diffusiongpt.flow import SafetyLevel
from diffusiongpt.safe_text import words_of
from diffusiongpt.safety.checks import CHECKS, Asked, Check, Finding

if TYPE_CHECKING:
    from PIL.Image import Image

    from diffusiongpt.plugins import Plugins

LEVELS: Final[tuple[SafetyLevel, ...]] = ("off", "standard", "strict")
"""From the loosest to the strictest."""


def stricter(first: SafetyLevel, second: SafetyLevel) -> SafetyLevel:
    """The stricter of two levels."""
    return max(first, second, key=LEVELS.index)


class Guard:
    """Refuses what the content policy does not allow.

    Args:
        floor: The loosest level that a request may choose.
        checks: Where checks are found.
    """

    def __init__(self, floor: SafetyLevel, checks: Plugins[Check] = CHECKS) -> None:
        self._floor = floor
        self._plugins = checks

    def level(self, asked: SafetyLevel) -> SafetyLevel:
        """The level that a request is held to: the one it chose, or the floor if that is stricter."""
        return stricter(self._floor, asked)

    def check_prompt(self, asked: Asked, level: SafetyLevel) -> None:
        """Refuse a prompt.

        Args:
            asked: What is asked for.
            level: The level that the request chose.

        Raises:
            ContentPolicyError: If a rule does not allow it.
            CheckError: If a check is broken or failed.
        """
        held = self.level(level)
        self._ask(held, lambda check: check.prompt(asked, held), "the prompt")

    def check_images(self, images: Sequence[Image], asked: Asked, level: SafetyLevel) -> None:
        """Refuse pictures that were drawn; errors as for `check_prompt`."""
        held = self.level(level)
        self._ask(held, lambda check: check.images(images, asked, held), "the picture that was drawn")

    @cached_property
    def _checks(self) -> dict[str, Check]:
        return {name: self._plugins.make(name) for name in self._plugins.names()}

    def _ask(self, level: SafetyLevel, question: Callable[[Check], Finding | None], what: str) -> None:
        if level == "off":
            return
        for name, check in self._checks.items():
            try:
                finding = question(check)
            except DiffusionGPTError:
                raise
            except Exception as error:  # the check is the code of another package, which may raise anything
                raise CheckError(
                    f"the check {name!r} failed, so nothing was drawn: {type(error).__name__}: {words_of(error)}",
                    hint="Repair or uninstall the package that offers it, or allow safety='off'.",
                ) from error
            if finding is not None:
                raise ContentPolicyError(
                    f"{what} was refused: the content policy does not allow {finding.means} "
                    f"(rule {finding.rule}, safety {level!r})",
                    rule=finding.rule,
                    hint=_hint(level, self._floor),
                )


def _hint(level: SafetyLevel, floor: SafetyLevel) -> str:
    if level == floor:
        return "Ask for something else; DIFFUSIONGPT_SAFETY sets this level for all requests."
    return "Ask for something else; if the rule is wrong about this, docs/safety.md says what safety= changes."
