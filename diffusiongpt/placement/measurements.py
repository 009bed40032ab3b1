"""What drawing took on this machine, kept on disk, and how it corrects what is estimated."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from statistics import median
from typing import Final

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from diffusiongpt.files import replace_file
from diffusiongpt.flow import PlacementKind
from diffusiongpt.placement.job import Measured
from diffusiongpt.safe_text import logger

log = logger("diffusiongpt")

FEWEST: Final = 3
"""Pictures before anything is corrected: the median of three is what two of them agree on. Stated, not measured."""

LATEST: Final = 9
"""Pictures that count for a correction, the latest: drivers and libraries change. Stated, not measured."""

SLOWER: Final = 4.0
"""Largest correction of seconds, either way: what is listed for devices is that wrong at worst. Stated."""

LARGER: Final = 2.0
"""Largest correction of activations, either way: reported peaks of one architecture differ by 1.7. Stated."""

KEPT: Final = 1000
"""Lines that a file keeps when it is tidied, and after twice as many it is. A line has about 250 bytes."""


class Measurement(BaseModel):
    """What one picture took.

    Attributes:
        hardware: The device that drew it, by the name that its driver gives it.
        architecture: Of the expert.
        width: Pixels.
        height: Pixels.
        steps: Denoising steps.
        kind: How it was placed.
        tiled: Whether it was decoded in tiles.
        seconds: Seconds of drawing, without loading; `None` if something else happened meanwhile.
        expected_seconds: The same, as estimated without corrections.
        work_bytes: Memory of the device beyond what was there before; `None` if it was not counted.
        expected_work_bytes: The same, as estimated without corrections.
    """

    model_config = ConfigDict(frozen=True, extra="ignore")

    hardware: str
    architecture: str
    width: int = Field(gt=0)
    height: int = Field(gt=0)
    steps: int = Field(gt=0)
    kind: PlacementKind
    tiled: bool = False
    seconds: float | None = Field(default=None, gt=0, allow_inf_nan=False)
    expected_seconds: float | None = Field(default=None, gt=0, allow_inf_nan=False)
    work_bytes: int | None = Field(default=None, gt=0)
    expected_work_bytes: int | None = Field(default=None, gt=0)


class Measurements:
    """The measurements in a file, a line of JSON each.

    Corrections come from what the file held when it was first needed, so plans do not change while a process runs: the
    same machine with the same measurements has the same routes. What is added counts from the next start on.

    Args:
        path: The file; it need not exist.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._rows: tuple[Measurement, ...] | None = None
        self._known: dict[tuple[str, str], Measured] = {}
        self._failed = False

    def of(self, architecture: str, hardware: str) -> Measured:
        """The correction for an architecture on a device: the median of the latest, within bounds; 1 for few."""
        key = architecture, hardware
        if key not in self._known:
            if self._rows is None:
                self._rows = self._read()
            rows = [row for row in self._rows if (row.architecture, row.hardware) == key]
            self._known[key] = Measured(
                seconds=_factor(((row.seconds, row.expected_seconds) for row in rows), SLOWER),
                activations=_factor(((row.work_bytes, row.expected_work_bytes) for row in rows), LARGER),
            )
        return self._known[key]

    def add(self, row: Measurement) -> None:
        """Keep a measurement for the next start; a folder that cannot be written is a warning, once."""
        line = row.model_dump_json(exclude_none=True) + "\n"
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            # one write to a file that is only appended to: lines of other processes stay whole
            with self._path.open("ab", buffering=0) as stream:
                stream.write(line.encode())
        except OSError as error:
            if not self._failed:
                log.warning("what drawing took could not be kept in %s: %s", self._path, error)
            self._failed = True

    def _read(self) -> tuple[Measurement, ...]:
        try:
            lines = self._path.read_bytes().splitlines()
        except FileNotFoundError:
            return ()
        except OSError as error:
            log.warning("what drawing took could not be read from %s: %s", self._path, error)
            return ()
        try:
            rows = tuple(Measurement.model_validate_json(line) for line in lines)
        except ValidationError as error:
            self._set_aside(error)
            return ()
        if len(rows) > 2 * KEPT:
            self._tidy(lines[-KEPT:])
        return rows

    def _set_aside(self, error: ValidationError) -> None:
        aside = self._path.with_name(f"{self._path.name}.damaged")
        try:
            self._path.replace(aside)
        except OSError:
            log.warning("%s is damaged and is not used (%s)", self._path, error.errors()[0]["msg"])
        else:
            log.warning("%s is damaged (%s); it is set aside as %s", self._path, error.errors()[0]["msg"], aside.name)

    def _tidy(self, lines: list[bytes]) -> None:
        try:
            replace_file(self._path, b"".join(line + b"\n" for line in lines))
        except OSError as error:
            log.info("%s could not be tidied: %s", self._path, error)


def _factor(pairs: Iterable[tuple[float | None, float | None]], bound: float) -> float:
    """Median of what was measured over what was expected, of the latest pairs that have both."""
    ratios = [found / expected for found, expected in pairs if found and expected]
    if len(ratios) < FEWEST:
        return 1.0
    return min(bound, max(1 / bound, median(ratios[-LATEST:])))
