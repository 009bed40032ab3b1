"""What the hub says about repositories: a new zoo entry, or whether the repository of an expert is available."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

from diffusiongpt.backends import Listing, is_hosted
from diffusiongpt.backends.diffusers import INDEX, architectures, choose_files, is_weights
from diffusiongpt.bounded import parse_json
from diffusiongpt.curation.address import HubPlace, read_address
from diffusiongpt.curation.files import SAFE, describe_file, facts_of, gigabytes, local_file
from diffusiongpt.curation.gguf import GgufFile, base_of, component_of, described, gguf_in
from diffusiongpt.errors import (
    GatedRepoError,
    HubUnreachableError,
    PullError,
    RepoMissingError,
    RequestError,
    UnsafeFilesError,
)
from diffusiongpt.hub import (
    TIMEOUT_S,
    USUAL_NAME,
    Patience,
    RepoListing,
    read_on_disk,
    read_on_hub,
    repo_info,
    shapes_on_hub,
    small_reader,
)
from diffusiongpt.zoo import GGUF, Expert, Zoo

if TYPE_CHECKING:
    from diffusiongpt.settings import Settings


_SD15_TEXT_WIDTH = 768
"""Width of the text encoder of Stable Diffusion 1.x; 2.x has the same pipeline class and a width of 1024."""

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
    """The zoo file entry for a repository or a file: what the hub and its tensors say about it, and nothing else.

    Args:
        repo: `owner/name`, or the address of its page, of a folder at a revision, or of a file of weights; or the path
            of a `.safetensors` or `.gguf` file on this machine.
        settings: Settings with the hub's endpoint and token.
        expert_id: Id of the expert; derived from the repository's name by default.
        subjects: Subjects it is good at drawing, which the hub does not know.
        styles: Styles of its pictures, which the hub does not know either.
        zoo: A zoo that may have the base of an adapter, and so know its architecture.
        base: Base of an adapter, or what a GGUF file was made from, needed only if the hub does not name it.
        weight_name: File of an adapter, or that is a whole checkpoint, needed only if the repository has several.

    Raises:
        RequestError: If `repo` names no repository of the hub, or a required fact is neither given nor on the hub.
        PullError: If the hub cannot be reached or does not have the repository, if its terms must be accepted
            first, or if it has no usable weights.
        LoadError: If its pipeline is not supported.
    """
    file = local_file(repo)
    if file is None:
        facts = _hub_facts(read_address(repo, settings), settings, zoo=zoo, base=base, weight_name=weight_name)
    elif weight_name:
        raise RequestError(f"{file} is one file", hint="Leave out --weight-name.")
    elif file.name.endswith(GGUF):
        whole = base_of(file, None, base)
        found = GgufFile(name=file.name, source={"repo": str(file)}, header=read_on_disk(file))
        facts = {**_gguf_facts(found, whole, settings), "id": _id_from(file.stem)}
    else:
        facts = {**describe_file(file, base=base, zoo=zoo), "id": _id_from(file.stem)}
    facts["id"] = expert_id or facts["id"]
    facts["tags"] = {key: [*nodes] for key, nodes in (("subjects", subjects), ("styles", styles)) if nodes}
    return {key: facts[key] for key in Expert.model_fields if facts.get(key) not in (None, [], {})}


def _hub_facts(
    place: HubPlace, settings: Settings, *, zoo: Zoo | None, base: str | None, weight_name: str | None
) -> dict[str, Any]:
    repo, weight_name = place.repo, weight_name or place.weight_name
    check_online(settings)
    info = repo_info(settings, repo, place.revision)
    sizes = info.sizes
    name = repo
    if gguf := gguf_in(repo, sizes, weight_name or place.file):
        header = read_on_hub(settings, repo, info.commit, gguf, sizes[gguf])
        source = {"repo": repo, "revision": place.revision, "file": gguf, "license": _card_facts(info)["license"]}
        facts = _gguf_facts(GgufFile(name=gguf, source=source, header=header), base_of(repo, info, base), settings)
        page = f"{settings.hub_endpoint}/{repo}/tree/{info.commit}"
        return {**facts, "id": _id_from(gguf.removesuffix(GGUF)), "sources": [*facts["sources"], page]}
    if INDEX not in sizes and _is_adapter(info):
        particular = _adapter_facts(repo, info, sizes, base=base, weight_name=weight_name, zoo=zoo)
    elif file := _single_file(repo, sizes, weight_name or place.file):
        shapes = shapes_on_hub(settings, repo, info.commit, file, sizes[file])
        found = facts_of(file, shapes, base=base, zoo=zoo)
        own = {"settings": {"weight_name": file}} if "kind" in found else {"file": file}
        particular, name = {**found, **own}, file.removesuffix(SAFE)
    elif base:
        raise RequestError(f"{repo} is not an adapter", hint="Leave out --base.")
    else:
        particular = _checkpoint_facts(repo, small_reader(settings, repo, info.commit, sizes), sizes)
    return {
        "id": _id_from(name),
        "repo": repo,
        "revision": place.revision,
        "sources": [f"{settings.hub_endpoint}/{repo}/tree/{info.commit}"],
        **particular,
        **_card_facts(info),
    }


def _gguf_facts(file: GgufFile, base: str, settings: Settings) -> dict[str, Any]:
    """The facts of the checkpoint that a GGUF file was made from, with the component that it holds from the file."""
    check_online(settings)
    info = repo_info(settings, base, None)
    sizes = info.sizes
    read = small_reader(settings, base, info.commit, sizes)
    if INDEX not in sizes:
        raise RequestError(
            f"{base} has no {INDEX}, so it is not a checkpoint in diffusers' layout",
            hint="Name the repository in that layout with --base.",
        )
    component = component_of(file, Listing(names=tuple(sizes), read=read))
    facts = _checkpoint_facts(base, read, sizes, without=(component,))
    return {
        **described(file, component, facts),
        "repo": base,
        "sources": [f"{settings.hub_endpoint}/{base}/tree/{info.commit}"],
        **_card_facts(info),
    }


def _single_file(repo: str, sizes: Mapping[str, int], wanted: str | None) -> str | None:
    """The file that is named, or the only one of a repository in no other layout; `None` where that is not meant.

    Raises:
        RequestError: If there are several and none is named, or the named one is not there.
    """
    if wanted:
        if wanted not in sizes:
            raise RequestError(f"{repo} has no file {wanted}", hint="Copy the name of the file from its page.")
        return wanted
    files = [name for name in sizes if name.endswith(SAFE) and "/" not in name]
    if INDEX in sizes or not files:
        return None
    if len(files) > 1:
        raise RequestError(
            f"{repo} has {len(files)} files that could be the checkpoint",
            hint=f"Name one with --weight-name: {', '.join(files[:8])}.",
        )
    return files[0]


def check_online(settings: Settings) -> None:
    """Refuse to go on if the settings forbid the network.

    Raises:
        HubUnreachableError: If they do.
    """
    if settings.offline:
        raise HubUnreachableError(
            "could not ask the hub: the network is switched off",
            hint="Unset HF_HUB_OFFLINE and DIFFUSIONGPT_OFFLINE, or write the entry by hand.",
        )


def _checkpoint_facts(
    repo: str, read: Callable[[str], bytes], sizes: Mapping[str, int], without: Sequence[str] = ()
) -> dict[str, Any]:
    """Architecture and parts, of the plain or the half-precision files, whichever are smaller to download.

    Files are as large as what they hold, but for some kilobytes; where they are of more than 16 bits, so are the sizes.
    """
    found: dict[str | None, dict[str, int]] = {}
    problems: list[PullError] = []
    for variant in (None, "fp16") if any(".fp16." in name for name in sizes) else (None,):
        try:
            found[variant] = _parts(choose_files(tuple(sizes), read, variant=variant, without=without), sizes)
        except (GatedRepoError, HubUnreachableError):
            raise
        except PullError as error:
            problems.append(error)
    if not found:
        raise type(problems[0])(f"{repo}: {problems[0]}", hint=problems[0].hint) from problems[0]
    variant = min(found, key=lambda name: sum(found[name].values()))
    parts = found[variant]
    return {
        "architecture": _architecture(read, sizes),
        "components": {name: gigabytes(size) for name, size in parts.items()},
        "size_gb": gigabytes(sum(parts.values())),
        "settings": {} if variant is None else {"dtype": "float16", "variant": variant},
    }


def _parts(chosen: Sequence[str], sizes: Mapping[str, int]) -> dict[str, int]:
    """Bytes of the weights in each folder of the files that were chosen, which is a component of the pipeline."""
    parts: dict[str, int] = {}
    for name in filter(is_weights, chosen):
        component = name.partition("/")[0]
        parts[component] = parts.get(component, 0) + sizes[name]
    return {component: size for component, size in parts.items() if size}


def _architecture(read: Callable[[str], bytes], sizes: Mapping[str, int]) -> str | None:
    """The family whose pipeline the index names; Stable Diffusion 1 and 2 share one and differ in the text width."""
    name = parse_json(read(INDEX))["_class_name"]
    families = {entry.family or key for key, entry in architectures().items() if entry.pipeline == name}
    if len(families) < 2:
        return next(iter(families), None)
    config = "unet/config.json"
    try:
        width = parse_json(read(config)).get("cross_attention_dim") if config in sizes else None
    except (ValueError, AttributeError):
        return None
    return "sd15" if width == _SD15_TEXT_WIDTH else None


def _is_adapter(info: RepoListing) -> bool:
    return any(tag == "lora" or tag.startswith(_ADAPTER_TAG) for tag in info.tags)


def _adapter_facts(
    repo: str,
    info: RepoListing,
    sizes: Mapping[str, int],
    *,
    base: str | None,
    weight_name: str | None,
    zoo: Zoo | None,
) -> dict[str, Any]:
    file = _weight_file(repo, sizes, weight_name)
    base = base or _base(repo, info)
    known = next((one.architecture for one in (zoo or {}).values() if one.repo == base), None)
    return {
        "kind": "adapter",
        "base": base,
        "architecture": known,
        "size_gb": gigabytes(sizes[file]),
        "settings": {"weight_name": file},
        "trigger_words": [*info.card.instance_prompt],
    }


def _weight_file(repo: str, sizes: Mapping[str, int], wanted: str | None) -> str:
    files = [name for name in sizes if name.endswith(".safetensors") and "/" not in name]
    if not files:
        raise UnsafeFilesError(
            f"{repo} has no safetensors file in its top folder",
            hint="Other formats can run code when opened; choose an adapter that has safetensors.",
        )
    for name in (wanted, *([] if wanted else [USUAL_NAME, *(files if len(files) == 1 else [])])):
        if name in files:
            return str(name)
    problem = f"has no file {wanted}" if wanted else f"has {len(files)} files that could be the adapter"
    raise RequestError(f"{repo} {problem}", hint=f"Name one with --weight-name: {', '.join(files[:8])}.")


def _base(repo: str, info: RepoListing) -> str:
    tagged = {tag.removeprefix(_ADAPTER_TAG) for tag in info.tags if tag.startswith(_ADAPTER_TAG)}
    bases = tagged or {*info.card.base_model}
    if len(bases) != 1:
        raise RequestError(
            f"{repo} names {len(bases) or 'no'} base checkpoints, and an adapter needs exactly one",
            hint="Name the repository of the checkpoint with --base owner/name.",
        )
    return bases.pop()


def _card_facts(info: RepoListing) -> dict[str, Any]:
    return {
        "license": _license(info.card.license, info.card.license_name),
        "gated": None if info.gated is None else bool(info.gated),
        "languages": [tag for tag in info.card.language if _LANGUAGE.fullmatch(tag)],
    }


def _license(ids: Sequence[str], names: Sequence[str]) -> dict[str, str] | None:
    """The licence, and whether it allows commercial use if all experts of the shipped zoo that have it agree."""
    found = next(iter(names if "other" in ids[:1] else ids), "unknown")
    if found in ("other", "unknown"):
        return None
    shipped = Zoo.load("default").values()
    verdicts = {one.license.commercial for one in shipped if one.license and one.license.id == found}
    return {"id": found} | ({"commercial": verdicts.pop()} if len(verdicts) == 1 else {})


def _id_from(repo: str) -> str:
    name = re.sub(r"[^a-z0-9._-]+|(?<=[._-])[._-]+", "", repo.rpartition("/")[2].casefold())[:80].strip("._-")
    if not name:
        raise RequestError(f"could not derive an id from {repo}", hint="Choose one with --id.")
    return name


_AT_ONCE = 8
"""Concurrent requests; the hub allows a few hundred a minute without a token."""

_LONGEST_S = 90.0
"""Seconds for all experts together, after which those that are left count as unreachable."""


@dataclass(frozen=True, kw_only=True)
class Presence:
    """What the hub says about one repository of an expert.

    Attributes:
        expert: Id of the expert.
        component: Its component that comes from there; `None` for its own repository.
        repo: The repository that was looked up.
        state: `ok`; `gated` if its terms must be accepted, even if the token in use has done so; `missing`; or
            `unreachable` if the hub gave no answer.
        revision: Revision in the zoo file; `None` if it names none.
        commit: Commit that this revision is at now; `None` if unknown.
        error: The error, with its hint; `None` if there was none.
    """

    expert: str
    repo: str
    state: Literal["ok", "gated", "missing", "unreachable"]
    revision: str | None
    commit: str | None = None
    error: PullError | None = None
    component: str | None = None


def find_presence(experts: Sequence[Expert], settings: Settings) -> tuple[Presence, ...]:
    """Ask the hub about each repository of the experts, except for local folders and hosted experts.

    Raises:
        PullError: If the settings forbid the network, or the hub answers about none of them.
    """
    check_online(settings)
    drawn_here = [expert for expert in experts if not is_hosted(expert.backend)]
    parts = [(expert.id, part) for expert in drawn_here for part in (expert, *expert.elsewhere)]
    remote = [(name, part) for name, part in parts if not part.is_local]
    patience = Patience(_LONGEST_S)
    with ThreadPoolExecutor(max_workers=_AT_ONCE) as pool:
        found = tuple(pool.map(lambda one: _presence(one[0], one[1], settings, patience), remote))
    errors = [one.error for one in found if one.error is not None and one.state == "unreachable"]
    if errors and len(errors) == len(found):
        raise errors[0]
    return found


def _presence(name: str, part: Expert, settings: Settings, patience: Patience) -> Presence:
    component = part.component.name if part.component else None
    unknown = Presence(expert=name, repo=part.repo, state="unreachable", revision=part.revision, component=component)
    try:
        timeout_s = patience.left(TIMEOUT_S)
        info = repo_info(settings, part.repo, part.revision, timeout_s=timeout_s)
    except PullError as error:
        if isinstance(error, RepoMissingError):
            return replace(unknown, state="missing", error=error)
        return replace(unknown, state="gated" if isinstance(error, GatedRepoError) else "unreachable", error=error)
    return replace(unknown, state="gated" if info.gated else "ok", commit=info.commit)
