"""Numbers as they are written: in digits, in Chinese characters, and in English words."""

from __future__ import annotations

import re

CARDINALS = ("one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve")
"""English words for the numbers from one."""

_DIGITS_ZH = {digit: number for number, digit in enumerate("一二三四五六七八九", 1)} | {"两": 2, "俩": 2}
_WRITTEN = re.compile(
    "(?:(?P<hundreds>[一二两三四五六七八九]?)百)?(?:(?P<tens>[一二三四五六七八九]?)十)?(?P<ones>[一二两俩三四五六七八九])?"
)


def written_number(written: str) -> int:
    """A number in digits or in Chinese; 0 for what is none, such as 五六, which means a few."""
    if written.isdecimal() and written.isascii():
        return int(written)
    match = _WRITTEN.fullmatch(written)
    if match is None:
        return 0
    hundreds, tens, ones = match["hundreds"], match["tens"], match["ones"]
    return (
        (_DIGITS_ZH.get(hundreds, 1) * 100 if hundreds is not None else 0)
        + ((_DIGITS_ZH.get(tens, 1) * 10) if tens is not None else 0)
        + (_DIGITS_ZH[ones] if ones else 0)
    )
