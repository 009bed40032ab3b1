"""The address of a server, as settings and zoo files have it."""

from __future__ import annotations

from typing import Annotated
from urllib.parse import urlsplit

from pydantic import BeforeValidator

from diffusiongpt.safe_text import keep_url_secrets


def check_address(value: object) -> object:
    """The address of a server without blanks around it, and without a slash at its end.

    Raises:
        ValueError: If it is not an http(s) address.
    """
    if not isinstance(value, str):
        return value
    text = value.strip().rstrip("/")
    try:
        parts = urlsplit(text)
        known = parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port or 1) > 0
    except ValueError:
        known = False
    if not known or not (text.isascii() and text.isprintable()) or set(text) & set(' \\<>"{}|^`'):
        raise ValueError("it is not an address such as https://host or http://host:8000")
    return text


def read_own_address(value: object) -> object:
    """The same of an address in the user's own settings, whose secrets no text shows from now on; see `safe_text`.

    Raises:
        ValueError: If it is not an http(s) address.
    """
    if isinstance(value, str):
        keep_url_secrets(value.strip())
    return check_address(value)


Address = Annotated[str, BeforeValidator(read_own_address)]
"""The address of a server as a setting: `https://host`, `http://host:8000/v1`."""

StrangersAddress = Annotated[str, BeforeValidator(check_address)]
"""The same in a file of somebody else, which must not say what counts as a secret here: it could be any word."""
