"""What the zoo says of experts that draw elsewhere: their prices, and the servers that they are at."""

from __future__ import annotations

from typing import Annotated
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, field_validator

from diffusiongpt.address import StrangersAddress
from diffusiongpt.zoo.call_settings import Line


class _Entry(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


Dollars = Annotated[float, Field(ge=0, le=1e4, allow_inf_nan=False)]


class TokenPrices(_Entry):
    """What a provider that bills by tokens asks, in US dollars for a million.

    Attributes:
        text: Tokens of the prompt.
        image: Tokens of pictures that go in.
        output: Tokens that are drawn.
    """

    text: Dollars
    image: Dollars
    output: Dollars


class Price(_Entry):
    """What a hosted expert costs, according to its sources; providers may change it.

    Attributes:
        usd: Approximate price of a picture in US dollars, which is set aside before it is asked for.
        note: Size and quality that the price is for.
        tokens: Prices of tokens, from which a picture's cost follows once the service says how many it took.
    """

    usd: float = Field(ge=0, allow_inf_nan=False)
    note: Line = ""
    tokens: TokenPrices | None = None


class Server(_Entry):
    """The server that draws for a hosted expert, and how it speaks; see docs/hosted.md.

    Attributes:
        url: Its address, such as `http://localhost:8000/v1`.
        dialect: Which kind of server it is, such as `vllm-omni` or `sglang`.
    """

    url: Annotated[StrangersAddress, StringConstraints(max_length=500)]
    dialect: Annotated[str, StringConstraints(pattern=r"^[a-z0-9]+(-[a-z0-9]+)*$", max_length=40)] = "openai"

    @field_validator("url")
    @classmethod
    def _only_says_where(cls, url: str) -> str:
        parts = urlsplit(url)
        if parts.username or parts.password or parts.query or parts.fragment:
            raise ValueError("an address here has no user, password or query; keys are in DIFFUSIONGPT_SERVER_KEYS")
        return url
