"""Components from other repositories: which of their files are used, whether they fit, and how they are loaded."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from diffusiongpt.backends.base import Component
from diffusiongpt.backends.diffusers.gguf_file import check_gguf, check_types, load_gguf, shapes_in
from diffusiongpt.backends.diffusers.one_file import check_tensors, loads_one_file
from diffusiongpt.backends.diffusers.preflight import Read, check_components, check_config, read_object
from diffusiongpt.backends.diffusers.selection import INDEX, choose_weights, is_weights, read_components, weight_variant
from diffusiongpt.backends.diffusers.whole import check_set
from diffusiongpt.bounded import parse_json, read_bounded
from diffusiongpt.errors import LoadError, PullError
from diffusiongpt.zoo import GGUF

if TYPE_CHECKING:
    from diffusiongpt.backends.composing import Listing, Place
    from diffusiongpt.backends.single_file import Shapes
    from diffusiongpt.zoo import Component as Taken
    from diffusiongpt.zoo import Expert


_CONFIG = "config.json"

_JOINTS = (
    "in_channels",
    "out_channels",
    "latent_channels",
    "cross_attention_dim",
    "joint_attention_dim",
    "pooled_projection_dim",
    "projection_dim",
    "hidden_size",
    "d_model",
    "vocab_size",
)
"""Values of a configuration that the other components of a pipeline rely on."""

_NOT_THERE = "Correct it under 'components' in the zoo file, or choose another repository."
_LISTED = 5


def component_files(
    taken: Taken, names: Sequence[str], read: Read, *, variant: str | None, allow_unsafe: bool = False
) -> tuple[str, ...]:
    """See `ComposingBackend.component_files`."""
    if taken.is_packed:
        check_gguf()
    if taken.file is not None:
        if taken.file not in names:
            others = [name for name in names if is_weights(name) or name.endswith(GGUF)][:_LISTED]
            hint = f"Correct 'file'; it has: {', '.join(others)}." if others else _NOT_THERE
            raise PullError(f"it has no file {taken.file}", hint=hint)
        return (taken.file,)
    folder = _folder_of(taken, names)
    inside = [name for name in names if name.rpartition("/")[0] == folder]
    config = f"{folder}/{_CONFIG}".removeprefix("/")
    kind = _class_in(config, read(config)) or ""
    check_components({folder: kind}, inside, read)
    weights = choose_weights(folder, inside, read, variant=variant, allow_unsafe=allow_unsafe)
    return tuple(sorted((config, *weights)))


def _folder_of(taken: Taken, names: Sequence[str]) -> str:
    """The folder of a component: the one that is named, else the top, else the one of its name."""
    folders = (taken.subfolder,) if taken.subfolder else ("", taken.name)
    for folder in folders:
        if f"{folder}/{_CONFIG}".removeprefix("/") in names:
            return str(folder)
    others = sorted({name.rpartition("/")[0] for name in names if name.endswith(f"/{_CONFIG}")})[:_LISTED]
    where = f"the folder {taken.subfolder}" if taken.subfolder else "its top folder"
    raise PullError(
        f"it has no {_CONFIG} in {where}, so that is not a component in diffusers' layout",
        hint=f"Name its folder with 'subfolder': {', '.join(others)}." if others else _NOT_THERE,
    )


def _class_in(name: str, raw: bytes) -> str | None:
    """The class of diffusers that a configuration is of; `None` for one of transformers."""
    kind = read_object(name, raw).get("_class_name")
    return kind if isinstance(kind, str) else None


def check_component(
    taken: Taken, whole: Listing, own: Listing, shapes: Shapes | None, types: Collection[str] = ()
) -> None:
    """See `ComposingBackend.check_component`."""
    if types:
        check_types(str(taken.file), types)
    if INDEX not in whole.names:
        return  # one file has no index; what it holds is known once it is there
    raw = whole.read(INDEX)
    kinds = read_components(raw, whole.names)
    if taken.name not in kinds:
        raise _no_component(taken.name, kinds)
    library, kind = parse_json(raw)[taken.name]
    config = f"{taken.name}/{_CONFIG}"
    known = whole.read(config) if config in whole.names else None
    if taken.file is not None:
        if known is None:
            raise _no_config(config, taken.file)
        check_config(taken.name, config, known)
        _check_file(taken.name, taken.file, library, kind, parse_json(known), shapes)
        return
    (name,) = (name for name in own.names if name.endswith(_CONFIG))
    _check_same(taken.name, library, kind, read_object(name, own.read(name)), parse_json(known) if known else {})


def _no_component(name: str, others: Iterable[str]) -> LoadError:
    hint = f"Correct the name under 'components' in the zoo file; it has: {', '.join(others)}."
    return LoadError(f"its pipeline has no component {name!r}", hint=hint)


def _no_config(config: str, file: str) -> LoadError:
    return LoadError(f"the repository of the expert has no {config}, which its file {file} needs", hint=_NOT_THERE)


def _check_same(name: str, library: str, kind: str, own: Mapping[str, Any], known: Mapping[str, Any]) -> None:
    """Refuse a component of another class, or of other widths than the components around it have."""
    if library == "diffusers":
        there, wanted = str(own.get("_class_name")), kind
    else:
        # a text encoder may be a part of the model that its repository holds, such as `clip_text_model` of `clip`
        there, wanted = str(own.get("model_type", "")), str(known.get("model_type", ""))
        if there.startswith(wanted) or wanted.startswith(there):
            there = wanted
    if there != wanted:
        raise LoadError(
            f"its class is {there[:60]}, and that of the component {name!r} is {wanted[:60]}", hint=_NOT_THERE
        )
    differ = [key for key in _JOINTS if key in own and key in known and own[key] != known[key]]
    if differ:
        values = ", ".join(f"{key} {str(own[key])[:20]} and not {str(known[key])[:20]}" for key in differ)
        raise LoadError(f"it does not fit the other components of the pipeline: it has {values}", hint=_NOT_THERE)


def _check_file(
    name: str, file: str, library: str, kind: str, config: Mapping[str, Any], shapes: Shapes | None
) -> None:
    """Refuse a file of a class that has no single files, or with other tensors."""
    if not loads_one_file(library, kind):
        raise LoadError(
            f"the class of {name!r}, {kind}, is not loaded from one file",
            hint="Leave 'file' out, and name a repository that has it as a folder with config.json.",
        )
    if shapes is not None:
        check_tensors(file, kind, config, shapes)


@dataclass(frozen=True, kw_only=True)
class Foreign:
    """A component from elsewhere, as it is to be loaded.

    Attributes:
        taken: Which component it is, and which folder or file of its repository.
        package: Where its class is: `diffusers` or `transformers`.
        kind: Name of its class.
        place: Where its files are.
        known: Its configuration in the checkpoint that it is taken for; empty if that has none.
    """

    taken: Taken
    package: str
    kind: str
    place: Place
    known: Mapping[str, Any]

    @property
    def facts(self) -> dict[str, Any] | None:
        """That configuration for one file, without what it says of the weights in the checkpoint's own repository."""
        if self.taken.file is None:
            return None
        kept = {key: value for key, value in self.known.items() if key != "quantization_config"}
        return {**kept, "_class_name": self.kind}

    @property
    def folder(self) -> Path:
        """The folder that it is loaded from."""
        return (self.place.folder / self._config).parent

    @property
    def _config(self) -> str:
        return next((name for name in self.place.files if name.endswith(_CONFIG)), "")

    def described(self, dtype: str) -> Component:
        """What the cache knows of it."""
        return Component(
            name=self.taken.name,
            kind=self.kind,
            config=None if self.taken.file else self._config,
            weights=self._weights,
            dtype=dtype,
            quantised="gguf" if self.taken.is_packed else "",
            facts=self.facts,
        )

    def weight_bytes(self) -> int:
        """Bytes of its weights on disk."""
        return sum((self.place.folder / name).stat().st_size for name in self._weights)

    @property
    def _weights(self) -> tuple[str, ...]:
        return tuple(name for name in self.place.files if is_weights(name) or name == self.taken.file)

    def load(self, dtype: Any, settings: Any) -> Any:
        """The module on the host; the caller holds the lock of construction.

        Args:
            dtype: Type of its weights.
            settings: Those of the expert: the variant, and whether other weights than safetensors are allowed.
        """
        import diffusers
        import transformers

        kind = getattr(diffusers if self.package == "diffusers" else transformers, self.kind)
        if self.taken.file is None:
            self._check_folder()
            return kind.from_pretrained(
                self.folder,
                dtype=dtype,
                variant=weight_variant(self.place.files, settings.variant),
                use_safetensors=None if settings.unsafe_weights else True,
                local_files_only=True,
            ).eval()
        return self._from_one_file(kind, dtype)

    def _check_folder(self) -> None:
        """Look at what lies in its folder now: others may have put more there than we, and no plan saw local ones."""
        names = [path.name for path in self.folder.iterdir() if path.is_file()]
        check_components({"": self.kind}, names, lambda name: read_bounded(self.folder / name))
        own = parse_json(read_bounded(self.place.folder / self._config))
        _check_same(self.taken.name, self.package, self.kind, own, self.known)

    def _from_one_file(self, kind: Any, dtype: Any) -> Any:
        path = self.place.folder / str(self.taken.file)
        shapes = shapes_in(path) if self.taken.is_packed else _shapes(path)
        _check_file(self.taken.name, path.name, self.package, self.kind, self.facts or {}, shapes)
        with TemporaryDirectory(prefix="diffusiongpt-") as place:
            (Path(place) / _CONFIG).write_text(json.dumps(self.facts), encoding="utf-8")
            if self.taken.is_packed:
                module = load_gguf(kind, path, place, dtype)
            else:
                module = kind.from_single_file(str(path), config=place, local_files_only=True, dtype=dtype)
        check_set(module, self.taken.name)
        return module.eval()


def _shapes(file: Path) -> Shapes:
    from safetensors import safe_open

    with safe_open(file, framework="pt") as content:
        return {name: tuple(content.get_slice(name).get_shape()) for name in content.keys()}  # noqa: SIM118  # no mapping


def foreign_components(
    expert: Expert, folder: Path, index: Mapping[str, Any], elsewhere: Mapping[str, Place] | None
) -> dict[str, Foreign]:
    """The components of a pipeline that come from elsewhere.

    Args:
        expert: The expert.
        folder: The folder of its own files.
        index: Component -> library and class, as in `model_index.json`, and its configuration where no file has it.
        elsewhere: Component -> where it is.

    Raises:
        LoadError: If one of them is not a component of the pipeline.
    """
    found = {}
    # of a part that it may have, and has not, an index says that it is null
    kinds = {
        name: said for name, said in index.items() if isinstance(said, list | tuple) and said[:1] not in ([], [None])
    }
    for part in expert.elsewhere:
        taken = part.component
        if taken is None or not elsewhere or taken.name not in elsewhere:
            continue
        if taken.name not in kinds:
            raise _no_component(taken.name, kinds)
        package, kind, *known = kinds[taken.name]
        config = f"{taken.name}/{_CONFIG}"
        if not known and (folder / config).is_file():
            known = [parse_json(read_bounded(folder / config))]
        if not known and taken.file is not None:
            raise _no_config(config, taken.file)
        found[taken.name] = Foreign(
            taken=taken,
            package=package,
            kind=kind,
            place=elsewhere[taken.name],
            known=known[0] if known else {},
        )
    return found
