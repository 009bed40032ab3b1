"""What the author of a zoo may have got wrong, as far as that is known without the hub."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Iterator, Sequence
from difflib import get_close_matches
from pathlib import Path

from diffusiongpt.backends.diffusers.architectures import architectures, lacking
from diffusiongpt.backends.diffusers.quiet import quiet_construction
from diffusiongpt.backends.diffusers.selection import INDEX, read_components
from diffusiongpt.bounded import read_bounded
from diffusiongpt.errors import DiffusionGPTError
from diffusiongpt.zoo import Expert

TYPO_CUTOFF = 0.75
"""Similarity above which an unknown name counts as a misspelling: `sdlx` does, `my-own` does not."""


def advice(experts: Iterable[Expert]) -> list[str]:
    """Warnings for the author of a zoo, a line each.

    They are of misspelt architectures, of experts that cannot draw here, and of components from elsewhere that the
    pipeline does not have. An architecture that is not similar to any in the table is taken for one of the author's
    own.
    """
    ours = [expert for expert in experts if expert.backend == "diffusers"]
    return [f"{expert.id}: {warning}" for expert in ours for warning in _warnings(expert)]


def _warnings(expert: Expert) -> Iterator[str]:
    if expert.architecture and (warning := _of_architecture(expert.architecture)):
        yield warning
    known = _components_of(expert) if expert.places else ()
    for name in expert.places:
        if known and name not in known:
            near = get_close_matches(name, known, n=1, cutoff=TYPO_CUTOFF)
            instead = f"did you mean {near[0]!r}?" if near else f"it has: {', '.join(known)}"
            yield f"its pipeline has no component {name!r}; {instead}"


def _of_architecture(name: str) -> str | None:
    entries = [entry for key, entry in architectures().items() if name in (key, entry.family)]
    if not entries:
        near = get_close_matches(name.casefold(), architectures(), n=1, cutoff=TYPO_CUTOFF)
        return f"architecture {name!r} is not known here; did you mean {near[0]!r}?" if near else None
    missing = lacking(name)
    if not missing:
        return None
    return f"cannot draw here: {entries[0].title} needs {' and '.join(missing)} (pip install {' '.join(missing)})"


def _components_of(expert: Expert) -> Sequence[str]:
    """The components of its pipeline: those of its folder, or those that its architecture can have; empty if unknown.

    Which class a checkpoint on the hub is of is known once it is pulled, so a name may be of any class of the family.
    """
    if expert.folder and (expert.folder / INDEX).is_file():
        return _in_folder(expert.folder)
    name = expert.architecture
    pipelines = {entry.pipeline for key, entry in architectures().items() if name in (key, entry.family)}
    if not pipelines:
        return ()
    with quiet_construction():
        import diffusers

        kinds = [getattr(diffusers, one, None) for one in sorted(pipelines)]
        if not all(isinstance(kind, type) and issubclass(kind, diffusers.DiffusionPipeline) for kind in kinds):
            return ()  # an older diffusers, or one whose class needs a package that is not installed
        taken = [tuple(inspect.signature(kind).parameters.values()) for kind in kinds if kind]
    # what has a default of a plain type is an option, and not a component
    return tuple(dict.fromkeys(one.name for each in taken for one in each if one.default in (None, one.empty)))


def _in_folder(folder: Path) -> Sequence[str]:
    try:
        return tuple(read_components(read_bounded(folder / INDEX), ()))
    except (DiffusionGPTError, OSError, ValueError):
        return ()  # what is wrong with the folder is said when it is loaded
