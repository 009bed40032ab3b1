"""Plugins: what installed packages offer under an entry-point group, found by name and made when asked for."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from importlib.metadata import EntryPoint, entry_points
from typing import Any, Generic, TypeVar, cast

from diffusiongpt.errors import DiffusionGPTError
from diffusiongpt.safe_text import logger

log = logger("diffusiongpt.plugins")

T = TypeVar("T")


@dataclass(frozen=True)
class Plugins(Generic[T]):
    """Everything that can be made by name under one entry-point group.

    An entry point leads to a class or a function that makes the object when it is called without arguments.

    Attributes:
        group: The entry-point group, such as `diffusiongpt.backends`.
        what: What one of them is called in messages.
        ours: Name -> `module:attribute` of those in this package. They work in a checkout whose installed metadata
            is older than its code.
        error: The error for a name that cannot be made.
        installed: Lists the entry points of a group, as `importlib.metadata.entry_points` does.
    """

    group: str
    what: str
    ours: Mapping[str, str]
    error: type[DiffusionGPTError]
    installed: Callable[..., Any] = entry_points
    _reported: set[EntryPoint] = field(default_factory=set, init=False, repr=False, compare=False)

    def names(self) -> tuple[str, ...]:
        """All names, sorted; nothing is imported."""
        return tuple(sorted({*self.ours, *(point.name for point in self.installed(group=self.group))}))

    def make(self, name: str) -> T:
        """Make the object of that name.

        A plugin that cannot be imported or called is a warning that names its distribution, once in a process;
        another one of the same name is used instead.

        Raises:
            DiffusionGPTError: Of the type `error`, if no installed package offers the name, or all that do are broken.
        """
        problem, cause = "", None
        for point in self._offers(name):
            try:
                return cast("T", point.load()())
            except Exception as error:  # noqa: BLE001  # the module of a stranger may raise anything
                problem, cause = f"{self._describe(point)} could not be loaded: {type(error).__name__}: {error}", error
            if point not in self._reported:
                self._reported.add(point)
                log.warning("%s", problem)
        if cause is not None:
            raise self.error(problem, hint="Reinstall that package together with what it depends on.") from cause
        raise self.error(
            f"no {self.what} called {name!r} is installed",
            hint=f"Use one of {', '.join(self.names())}, or install a package that offers it under {self.group!r}.",
        )

    def _offers(self, name: str) -> Iterator[EntryPoint]:
        points: tuple[EntryPoint, ...] = tuple(self.installed(group=self.group, name=name))
        yield from points
        value = self.ours.get(name)
        if value and value not in {point.value for point in points}:
            yield EntryPoint(name=name, value=value, group=self.group)

    def _describe(self, point: EntryPoint) -> str:
        source = f"{point.dist.name} {point.dist.version}" if point.dist else "diffusiongpt"
        return f"the {self.what} {point.name!r} of {source} ({point.value})"
