"""What the hub says about repositories: described as zoo entries, or checked to be there."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from diffusiongpt.backends.diffusers.architectures import architectures
from diffusiongpt.backends.diffusers.files import INDEX, choose_files
from diffusiongpt.backends.registry import is_hosted
from diffusiongpt.errors import (
    GatedRepoError,
    HubUnreachableError,
    PullError,
    RepoMissingError,
    RequestError,
    UnsafeFilesError,
)
from diffusiongpt.hub.client import TIMEOUT_S, hub_api, hub_errors, small_reader
from diffusiongpt.hub.files import USUAL_NAME
from diffusiongpt.zoo.zoo import Zoo

if TYPE_CHECKING:
    from huggingface_hub import ModelInfo

    from diffusiongpt.settings import Settings
    from diffusiongpt.zoo.expert import Expert


_SD15_TEXT_WIDTH = 768
"""Width of the text encoder of Stable Diffusion 1.x; that of 2.x, with the same pipeline class, is 1024."""

_LANGUAGE = re.compile(r"[a-z]{2,3}(-[A-Za-z]{4})?(-[A-Z]{2})?")
_ADAPTER_TAG = "base_model:adapter:"


def describe_repo(
    repo: str,
    settings: Settings,
    *,
    expert_id: str | None = None,
    subjects: Sequence[str] = (),
    styles: Sequence[str] = (),
    zoo: Zoo | None = None,
    base: str | None = None,
    weight_name: str | None = None,
) -> dict[str, Any]:
    """The entry of a zoo file for a repository, with what its hub says and nothing else.

    Args:
        repo: `owner/name`.
        settings: Endpoint and token.
        expert_id: Id of the expert; made from the repository's name if absent.
        subjects: What it is good at drawing; nobody but people can say.
        styles: How its pictures look.
        zoo: Where the base of an adapter may be known.
        base: Base of an adapter, where the hub does not say it.
        weight_name: File of an adapter, where the repository has several.

    Raises:
        RequestError: If the repository's name is none, or the hub leaves open what has to be known.
        PullError: If the hub cannot be reached or knows no such repository, if its terms have to be accepted
            first, or if it holds nothing that can be drawn with.
        LoadError: If it cannot be drawn with here.
    """
    if not re.fullmatch(r"[\w-][\w.-]*/[\w-][\w.-]*", repo, re.ASCII):
        raise RequestError(f"{repo!r} is no repository", hint="Write it as owner/name, as its page on the hub does.")
    check_online(settings)
    with hub_errors(repo, settings):
        info = hub_api(settings).model_info(repo, files_metadata=True, timeout=TIMEOUT_S)
    sizes = {item.rfilename: item.size or 0 for item in info.siblings or ()}
    if INDEX not in sizes and _is_adapter(info):
        particular = _adapter_facts(info, sizes, base=base, weight_name=weight_name, zoo=zoo)
    elif base or weight_name:
        raise RequestError(f"{repo} is no adapter", hint="Leave out the base and the file of an adapter.")
    else:
        particular = _checkpoint_facts(repo, small_reader(settings, repo, str(info.sha), sizes), sizes)
    facts = {"id": expert_id or _id_from(repo), "repo": repo, **particular, **_card_facts(info)}
    facts["tags"] = {key: [*nodes] for key, nodes in (("subjects", subjects), ("styles", styles)) if nodes}
    facts["sources"] = [f"{settings.hub_endpoint}/{repo}/tree/{info.sha}"]
    return {key: facts[key] for key in _ORDER if facts.get(key) not in (None, [], {})}


_ORDER = (
    "id",
    "repo",
    "architecture",
    "kind",
    "base",
    "tags",
    "license",
    "gated",
    "size_gb",
    "settings",
    "languages",
    "trigger_words",
    "sources",
)


def check_online(settings: Settings) -> None:
    """Refuse to go on where the settings forbid the network.

    Raises:
        HubUnreachableError: If they do.
    """
    if settings.offline:
        raise HubUnreachableError(
            "the hub cannot be asked: the network is switched off",
            hint="Unset HF_HUB_OFFLINE and DIFFUSIONGPT_OFFLINE, or write the entry by hand.",
        )


def _checkpoint_facts(repo: str, read: Callable[[str], bytes], sizes: Mapping[str, int]) -> dict[str, Any]:
    """Architecture and size; of plain and half-precision files those of which a pull would bring less."""
    found: dict[str | None, int] = {}
    problems: list[PullError] = []
    for variant in (None, "fp16") if any(".fp16." in name for name in sizes) else (None,):
        try:
            found[variant] = sum(sizes[name] for name in choose_files(tuple(sizes), read, variant=variant))
        except (GatedRepoError, HubUnreachableError):
            raise
        except PullError as error:
            problems.append(error)
    if not found:
        raise type(problems[0])(f"{repo}: {problems[0]}", hint=problems[0].hint) from problems[0]
    variant = min(found, key=lambda name: found[name])
    return {
        "architecture": _architecture(read, sizes),
        "size_gb": _gigabytes(found[variant]),
        "settings": {} if variant is None else {"dtype": "float16", "variant": variant},
    }


def _architecture(read: Callable[[str], bytes], sizes: Mapping[str, int]) -> str | None:
    """The family whose pipeline the index names; of Stable Diffusion 1 and 2, that share one, by what tells them."""
    name = json.loads(read(INDEX))["_class_name"]
    families = {entry.family or key for key, entry in architectures().items() if entry.pipeline == name}
    if len(families) < 2:
        return next(iter(families), None)
    config = "unet/config.json"
    try:
        width = json.loads(read(config)).get("cross_attention_dim") if config in sizes else None
    except (ValueError, AttributeError):
        return None
    return "sd15" if width == _SD15_TEXT_WIDTH else None


def _is_adapter(info: ModelInfo) -> bool:
    return any(tag == "lora" or tag.startswith(_ADAPTER_TAG) for tag in info.tags or ())


def _adapter_facts(
    info: ModelInfo, sizes: Mapping[str, int], *, base: str | None, weight_name: str | None, zoo: Zoo | None
) -> dict[str, Any]:
    file = _weight_file(info.id, sizes, weight_name)
    base = base or _base(info)
    known = next((one.architecture for one in (zoo or {}).values() if one.repo == base), None)
    return {
        "kind": "adapter",
        "base": base,
        "architecture": known,
        "size_gb": _gigabytes(sizes[file]),
        "settings": {"weight_name": file},
        "trigger_words": _texts(getattr(info.card_data, "instance_prompt", None)),
    }


def _weight_file(repo: str, sizes: Mapping[str, int], wanted: str | None) -> str:
    files = [name for name in sizes if name.endswith(".safetensors") and "/" not in name]
    if not files:
        raise UnsafeFilesError(
            f"{repo} has no safetensors file at its top",
            hint="Other formats can run code when opened; choose an adapter with safetensors.",
        )
    for name in (wanted, *([] if wanted else [USUAL_NAME, *(files if len(files) == 1 else [])])):
        if name in files:
            return str(name)
    problem = f"has no file {wanted}" if wanted else f"has {len(files)} files that could be the adapter"
    raise RequestError(f"{repo} {problem}", hint=f"Name one with --weight-name: {', '.join(files[:8])}.")


def _base(info: ModelInfo) -> str:
    tagged = {tag.removeprefix(_ADAPTER_TAG) for tag in info.tags or () if tag.startswith(_ADAPTER_TAG)}
    bases = tagged or {*_texts(getattr(info.card_data, "base_model", None))}
    if len(bases) != 1:
        raise RequestError(
            f"{info.id} names {len(bases) or 'no'} checkpoints that it goes on, and an adapter needs one",
            hint="Name the repository of the checkpoint with --base owner/name.",
        )
    return bases.pop()


def _card_facts(info: ModelInfo) -> dict[str, Any]:
    card = info.card_data
    return {
        "license": _license(getattr(card, "license", None), getattr(card, "license_name", None)),
        "gated": None if info.gated is None else bool(info.gated),
        "languages": [said for said in _texts(getattr(card, "language", None)) if _LANGUAGE.fullmatch(said)],
    }


def _license(said: object, name: object) -> dict[str, str] | None:
    """The licence, and what it says of commercial use if all experts of the shipped zoo that have it agree."""
    found = next(iter(_texts(name if said == "other" else said)), "unknown")
    if found in ("other", "unknown"):
        return None
    shipped = Zoo.load("default").values()
    verdicts = {one.license.commercial for one in shipped if one.license and one.license.id == found}
    return {"id": found} | ({"commercial": verdicts.pop()} if len(verdicts) == 1 else {})


def _texts(said: object) -> list[str]:
    """What a field of a model card says, be it one text or several; what could not be shown on a line is left out."""
    texts = said if isinstance(said, list) else [said]
    return [text.strip() for text in texts if isinstance(text, str) and text.strip() and text.isprintable()]


def _id_from(repo: str) -> str:
    name = re.sub(r"[^a-z0-9._-]+|(?<=[._-])[._-]+", "", repo.rpartition("/")[2].casefold())[:80].strip("._-")
    if not name:
        raise RequestError(f"the name of {repo} makes no id", hint="Give it one with --id.")
    return name


def _gigabytes(size: int) -> float | None:
    """To four digits, as many as a person would write; nothing for nothing."""
    return float(f"{size / 1e9:.4g}") or None


_AT_ONCE = 8
"""Requests in flight; the hub allows a visitor some hundreds a minute."""


@dataclass(frozen=True, kw_only=True)
class Presence:
    """What the hub says of one expert's repository.

    Attributes:
        expert: Id.
        repo: Repository.
        state: `ok`; `gated` if terms have to be accepted, which the token in use may have; `missing`; or
            `unreachable` if nobody knows.
        revision: What the zoo file asks for.
        commit: What that is at the moment; `None` if unknown.
        error: What went wrong, with its hint; `None` if nothing did.
    """

    expert: str
    repo: str
    state: Literal["ok", "gated", "missing", "unreachable"]
    revision: str | None
    commit: str | None = None
    error: PullError | None = None


def find_presence(experts: Sequence[Expert], settings: Settings) -> tuple[Presence, ...]:
    """Ask the hub about each expert; local folders and hosted experts are passed over.

    Raises:
        PullError: If the settings forbid the network, or the hub answers about none of them.
    """
    check_online(settings)
    remote = [expert for expert in experts if not (expert.is_local or is_hosted(expert.backend))]
    with ThreadPoolExecutor(max_workers=_AT_ONCE) as pool:
        found = tuple(pool.map(lambda expert: _presence(expert, settings), remote))
    errors = [one.error for one in found if one.error is not None and one.state == "unreachable"]
    if errors and len(errors) == len(found):
        raise errors[0]
    return found


def _presence(expert: Expert, settings: Settings) -> Presence:
    try:
        with hub_errors(expert.repo, settings):
            info = hub_api(settings).model_info(expert.repo, revision=expert.revision, timeout=TIMEOUT_S)
    except PullError as error:
        state: Literal["gated", "missing", "unreachable"] = "unreachable"
        if isinstance(error, RepoMissingError | GatedRepoError):
            state = "missing" if isinstance(error, RepoMissingError) else "gated"
        return Presence(expert=expert.id, repo=expert.repo, state=state, revision=expert.revision, error=error)
    return Presence(
        expert=expert.id,
        repo=expert.repo,
        state="gated" if info.gated else "ok",
        revision=expert.revision,
        commit=str(info.sha),
    )
