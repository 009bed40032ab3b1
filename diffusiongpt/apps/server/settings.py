"""Settings of the server, read from the environment (`DIFFUSIONGPT_SERVE_...`)."""

from __future__ import annotations

from ipaddress import ip_address
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, BeforeValidator, Field, SecretStr, model_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from diffusiongpt.address import Address
from diffusiongpt.flow import ENOUGH_PIXELS
from diffusiongpt.settings import read_secret, read_settings


def _listed(value: object) -> object:
    return [part.strip() for part in value.split(",") if part.strip()] if isinstance(value, str) else value


def _checked(keys: tuple[SecretStr, ...]) -> tuple[SecretStr, ...]:
    read = [read_secret(key) for key in keys]
    return tuple(SecretStr(str(key)) for key in read if key)


Names = Annotated[tuple[str, ...], NoDecode, BeforeValidator(_listed)]
Keys = Annotated[tuple[SecretStr, ...], NoDecode, BeforeValidator(_listed), AfterValidator(_checked)]


class ServerSettings(BaseSettings):
    """How this machine is served to others. The limits guard it against mistakes and abuse; none is measured.

    Attributes:
        host: Address to listen on. Another one than loopback needs `api_keys` or `no_auth`.
        port: Port to listen on; 0 for any free one.
        api_keys: Keys that requests have to carry, as a bearer token or as a basic password; any will do.
        no_auth: Whether an address that others can reach is served without keys.
        hosts: Names that requests may be addressed to, without port; empty for any. `diffusiongpt serve` sets those
            of loopback where no key is asked for, so that no web page can reach it under a name of its own.
        origins: Web origins whose pages may call the API from a browser, such as `https://chat.example`.
        public_url: Address under which clients reach the server, if a proxy stands in between.
        max_body_mb: Largest request body, in MB.
        body_timeout_s: Seconds that a request body may take to arrive.
        max_pictures: Most pictures of one request.
        max_megapixels: Most pixels of one picture that is asked for, in millions.
        max_sent_megapixels: Most pixels of a picture that is sent, in millions, each of which takes 4 bytes. A larger
            JPEG is read at a part of its size.
        max_waiting: Most drawings that are under way or wait at a time; more are refused with 429. One client may
            take three quarters of them.
        timeout_s: Seconds after which a drawing ends with an error, its wait included.
        keep_s: Seconds for which a picture stays at its URL, a comparison may be voted on, and a conversation waits
            for its next turn.
        keep_mb: Most bytes of pictures that are kept for their URLs, in MB, and as many in memory for conversations;
            the oldest go first.
        shutdown_s: Seconds for which a server that is stopped waits for what is being drawn.
        log: What a request is logged as: a line of text, a line of JSON, or not at all.
        page: Whether there is a page for people at `/`.
    """

    model_config = SettingsConfigDict(
        env_prefix="DIFFUSIONGPT_SERVE_",
        env_ignore_empty=True,
        frozen=True,
        extra="ignore",
        hide_input_in_errors=True,  # an input may be a key
    )

    host: str = "127.0.0.1"
    port: int = Field(default=8000, ge=0, le=65_535)
    api_keys: Keys = ()
    no_auth: bool = False
    hosts: Names = ()
    origins: Names = ()
    public_url: Address | None = None
    max_body_mb: float = Field(default=100.0, gt=0)
    body_timeout_s: float = Field(default=60.0, gt=0)
    max_pictures: int = Field(default=10, ge=1)
    max_megapixels: float = Field(default=17.0, gt=0)
    max_sent_megapixels: float = Field(default=ENOUGH_PIXELS / 1e6, gt=0)
    max_waiting: int = Field(default=64, ge=1)
    timeout_s: float = Field(default=600.0, gt=0)
    keep_s: float = Field(default=3600.0, gt=0)
    keep_mb: float = Field(default=1000.0, gt=0)
    shutdown_s: float = Field(default=60.0, ge=0)
    log: Literal["text", "json", "off"] = "text"
    page: bool = True

    @model_validator(mode="after")
    def _is_guarded(self) -> Self:
        if self.no_auth and self.api_keys:
            raise ValueError("keys and no_auth contradict each other; give one of them")
        if not (self.api_keys or self.no_auth or is_loopback(self.host)):
            raise ValueError(
                f"others can reach {self.host}: give a key (--api-key, or DIFFUSIONGPT_SERVE_API_KEYS), or say that "
                "none is needed (--no-auth)"
            )
        return self

    @property
    def open(self) -> bool:
        """Whether requests need no key."""
        return not self.api_keys


LOOPBACK = ("localhost", "127.0.0.1", "::1")
"""Names of this machine that no other machine can have."""


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach an address."""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host.casefold() in LOOPBACK


def load_server_settings(**overrides: object) -> ServerSettings:
    """Read the environment; keyword arguments win over it.

    Raises:
        SettingsError: If a value cannot be used, or an address that others can reach has neither key nor `no_auth`.
    """
    return read_settings(ServerSettings, **overrides)
