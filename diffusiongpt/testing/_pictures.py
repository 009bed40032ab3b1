"""What the test servers of pictures share: forms with files, and pictures that an answer names by their addresses."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from email import message_from_bytes
from email.message import Message
from typing import Any, TypeVar

from diffusiongpt.testing._server import FaultT, LocalProvider, ProviderHandler, ProviderRequest


@dataclass(frozen=True, kw_only=True)
class PicturesRequest(ProviderRequest):
    """One request for pictures.

    Attributes:
        files: The files of a form by the names of their fields, as bytes.
        headers: The headers, by names in small letters.
    """

    files: Mapping[str, tuple[bytes, ...]] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)


PicturesRequestT = TypeVar("PicturesRequestT", bound=PicturesRequest)


class PicturesProvider(LocalProvider[PicturesRequestT, FaultT]):
    """A provider of pictures, whose answers may name them by their addresses.

    Attributes:
        held: Number -> picture that an answer names.
    """

    def __init__(self) -> None:
        super().__init__()
        self.held: dict[int, bytes] = {}

    def hold(self, picture: bytes) -> int:
        """Keep a picture that an answer names by its address; returns its number."""
        with self._lock:
            self.held[len(self.held)] = picture
            return len(self.held) - 1


class PicturesHandler(ProviderHandler):
    """One connection to a `PicturesProvider`, which is asked by JSON or by forms."""

    def read(self, raw: bytes) -> dict[str, Any]:
        """The fields that were sent, as JSON or as a form."""
        self._files: dict[str, tuple[bytes, ...]] = {}
        if not self.headers.get("Content-Type", "").startswith("multipart/"):
            return super().read(raw)
        fields, self._files = self._read_form(raw)
        return fields

    def noted(self, kind: type[PicturesRequestT], body: Mapping[str, Any]) -> PicturesRequestT:
        """The request, which the provider has recorded."""
        headers = {name.casefold(): value for name, value in self.headers.items()}
        request = kind(path=self.path, body=body, key=self.key, files=self._files, headers=headers)
        self.service.note(request)
        return request

    def _read_form(self, raw: bytes) -> tuple[dict[str, Any], dict[str, tuple[bytes, ...]]]:
        kind = self.headers.get("Content-Type", "")
        message = message_from_bytes(f"Content-Type: {kind}\r\n\r\n".encode() + raw)
        fields: dict[str, Any] = {}
        files: dict[str, tuple[bytes, ...]] = {}
        for part in message.get_payload() if message.is_multipart() else ():
            assert isinstance(part, Message)  # noqa: S101  # what a multipart message has
            name = str(part.get_param("name", header="content-disposition"))
            content = part.get_payload(decode=True)
            assert isinstance(content, bytes)  # noqa: S101  # it was decoded
            if part.get_filename() is None:
                fields[name] = content.decode()
            else:
                files[name] = (*files.get(name, ()), content)
        return fields, files
