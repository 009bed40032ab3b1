"""What a model name means: an expert, a policy under a name, or the router's own choice."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, cast

from diffusiongpt.errors import RequestError, SettingsError
from diffusiongpt.flow import Policy

if TYPE_CHECKING:
    from diffusiongpt.settings import Settings
    from diffusiongpt.zoo import Zoo

AUTO = "auto"

OURS: Mapping[str, Mapping[str, Any]] = {
    AUTO: {},
    "auto-fast": {"prefer": "fast"},
    "auto-free": {"local_only": True, "max_price": 0.0},
}
"""Profiles that every server has, in the order in which they are listed."""

_SHOWN = 80
"""Characters of an unknown name that a notice shows."""


@dataclass(frozen=True)
class Meaning:
    """What a model name means.

    Attributes:
        options: The arguments of a request that it stands for.
        notice: What the client should know about it; `None` if it means what it says.
    """

    options: Mapping[str, Any] = field(default_factory=dict)
    notice: str | None = None


class Profiles:
    """The model names that a server knows.

    Args:
        zoo: The experts.
        settings: Has the profiles of the user's own, which may replace `auto` itself.

    Raises:
        SettingsError: If a profile is not a policy, or has the name of an expert.
    """

    def __init__(self, zoo: Zoo, settings: Settings) -> None:
        self._zoo = zoo
        self._policies = {**OURS, **settings.profiles}
        for name, policy in settings.profiles.items():
            if name in zoo:
                raise SettingsError(
                    f"the profile {name!r} has the name of an expert",
                    hint="Rename it in DIFFUSIONGPT_PROFILES.",
                )
            try:
                Policy(**cast(dict[str, Any], policy))
            except RequestError as error:
                raise SettingsError(f"profile {name!r}: {error}", hint=error.hint) from error

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the profiles, `auto` first."""
        return tuple(self._policies)

    def meaning(self, name: str | None) -> Meaning:
        """What a client means by a model name; one that is not known here means `auto`."""
        known = (name or "").strip() or AUTO
        if known in self._policies:
            return Meaning(self._policies[known])
        if known in self._zoo:
            return Meaning({"expert": known})
        return Meaning(self._policies[AUTO], f"{known[:_SHOWN]!r} is not a model here, so the router chose")
