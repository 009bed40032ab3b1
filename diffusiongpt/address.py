"""The address of a server, as settings and zoo files have it."""

from __future__ import annotations

from typing import Annotated
from urllib.parse import urlsplit

from pydantic import BeforeValidator

from diffusiongpt.safe_text import keep_url_secrets


def read_address(value: object) -> object:
    """The address of a server without blanks around it, and without a slash at its end.

    Raises:
        ValueError: If it is not an http(s) address.
    """
    if not isinstance(value, str):
        return value
    text = value.strip().rstrip("/")
    keep_url_secrets(text)
    try:
        parts = urlsplit(text)
        known = parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port or 1) > 0
    except ValueError:
        known = False
    if not known or not (text.isascii() and text.isprintable()) or set(text) & set(' \\<>"{}|^`'):
        raise ValueError("it is not an address such as https://host or http://host:8000")
    return text


Address = Annotated[str, BeforeValidator(read_address)]
"""The address of a server as a setting: `https://host`, `http://host:8000/v1`."""
