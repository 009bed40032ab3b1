"""Repositories as people name them: `owner/name`, or the address of a page, a folder or a file of the hub."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

from diffusiongpt.errors import RequestError
from diffusiongpt.zoo import GGUF

if TYPE_CHECKING:
    from diffusiongpt.settings import Settings

_HUB_HOSTS = frozenset({"huggingface.co", "www.huggingface.co", "hf.co"})
"""Hosts of the public hub, whose addresses people copy even where a mirror of it is set."""

_KINDS = frozenset({"datasets", "spaces", "collections", "papers", "docs", "blog", "posts", "models"})
"""First parts of a path on the hub that are not the owner of a model."""

_NAME = re.compile(r"[\w-][\w.-]*", re.ASCII)
_BELOW_LEAST = 4
"""Parts of a path that names something in a repository: owner, name, `tree` or the like, revision."""


@dataclass(frozen=True, kw_only=True)
class HubPlace:
    """What an address names.

    Attributes:
        repo: `owner/name`.
        revision: Branch, tag or commit that it names, if it is not the main branch.
        weight_name: File that it names, if that is one of weights in the top folder.
        file: The same in any folder, as a path in the repository.
    """

    repo: str
    revision: str | None = None
    weight_name: str | None = None
    file: str | None = None


def read_address(text: str, settings: Settings) -> HubPlace:
    """The repository that a text names; nothing is fetched.

    Args:
        text: `owner/name`, or an address such as `https://huggingface.co/owner/name/blob/main/file.safetensors`.
        settings: The endpoint, whose addresses count too.

    Raises:
        RequestError: If it is neither, or the address is not of a model on the hub.
    """
    text = text.strip()
    hosts = _HUB_HOSTS | {urlsplit(settings.hub_endpoint).netloc}
    if "://" not in text and text.partition("/")[0] not in hosts:
        if not re.fullmatch(f"{_NAME.pattern}/{_NAME.pattern}", text, re.ASCII):
            raise RequestError(f"{text!r} is not a repository", hint="Write it as owner/name, as on its hub page.")
        return HubPlace(repo=text)
    split = urlsplit(text if "://" in text else f"https://{text}")
    if split.netloc not in hosts or split.scheme not in ("http", "https"):
        raise RequestError(
            f"{text!r} is not an address on the hub", hint="Pass owner/name, or the address of a model's page there."
        )
    parts = [unquote(part) for part in split.path.split("/") if part]
    if len(parts) < 2 or parts[0] in _KINDS or not all(_NAME.fullmatch(part) for part in parts[:2]):
        raise RequestError(
            f"{text!r} is not the address of a model", hint="Open the page of the model and copy its address."
        )
    repo = "/".join(parts[:2])
    if len(parts) < _BELOW_LEAST or parts[2] not in ("tree", "blob", "resolve", "raw"):
        return HubPlace(repo=repo)
    revision, name = parts[3], parts[-1]
    is_weights = len(parts) > _BELOW_LEAST and name.endswith((".safetensors", GGUF))
    return HubPlace(
        repo=repo,
        revision=None if revision == "main" else revision,
        weight_name=name if is_weights and len(parts) == _BELOW_LEAST + 1 else None,
        file="/".join(parts[_BELOW_LEAST:]) if is_weights else None,
    )
