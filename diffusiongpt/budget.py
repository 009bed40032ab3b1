"""How much of a memory may be taken: bytes, or a share of it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Annotated

from pydantic import BeforeValidator, ByteSize, PlainSerializer, TypeAdapter, ValidationError
from pydantic_settings import NoDecode

_PERCENT = re.compile(r"(?P<number>\d+(?:\.\d+)?)\s*%")
_BYTES = TypeAdapter(ByteSize)


@dataclass(frozen=True)
class Budget:
    """A number of bytes, or a share of what there is.

    Attributes:
        nbytes: Bytes; `None` if it is a share.
        share: From 0 to 1; `None` if it is bytes.
    """

    nbytes: int | None = None
    share: float | None = None

    @classmethod
    def parse(cls, text: object) -> Budget:
        """Read `"60%"`, `"12GB"`, `"8 GiB"`, or bytes as a number.

        Raises:
            ValueError: If it is none of these, or more than 100 %.
        """
        if isinstance(text, Budget):
            return text
        percent = _PERCENT.fullmatch(str(text).strip())
        share = float(percent["number"]) / 100 if percent else None
        try:
            if share is None:
                return cls(nbytes=int(_BYTES.validate_python(text)))
        except ValidationError:
            raise ValueError(f"{text!r} is no budget; write bytes such as 12GB, or a share such as 50%") from None
        if not 0 < share <= 1:
            raise ValueError(f"{text!r} is no share; it is above 0% and 100% at most")
        return cls(share=share)

    def __str__(self) -> str:
        """As it may be written in the settings."""
        return str(self.nbytes) if self.nbytes is not None else f"{(self.share or 0) * 100:g}%"

    def of(self, total: int) -> int:
        """Bytes of a memory of `total` bytes."""
        return self.nbytes if self.nbytes is not None else round(total * (self.share or 0))


BudgetSetting = Annotated[Budget, NoDecode, BeforeValidator(Budget.parse), PlainSerializer(str)]
"""A budget as a setting: `60%`, `12GB`."""
