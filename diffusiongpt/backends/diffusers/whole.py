"""Whether a model was loaded whole: what its files lack would otherwise be noise, and differ each time."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import wraps
from typing import TYPE_CHECKING, Any

from diffusiongpt.errors import LoadError

if TYPE_CHECKING:
    from torch import nn

    from diffusiongpt.backends.single_file import Shapes


NOT_WHOLE = "Get a complete copy of the checkpoint, or choose another expert: its weights and its config.json differ."


@contextmanager
def checked_loads() -> Iterator[None]:
    """Within the block, every model that diffusers or transformers load is checked before it is used.

    Both only log what is missing, and give it random or uninitialised numbers. They report it when asked to, which
    pipelines do not do for their components. The caller holds the lock of construction.
    """
    from diffusers import ModelMixin
    from transformers import PreTrainedModel

    upstream = [(kind, kind.__dict__["from_pretrained"]) for kind in (ModelMixin, PreTrainedModel)]
    for kind, method in upstream:
        setattr(kind, "from_pretrained", _checking(method.__func__))  # noqa: B010  # mypy knows it as a method
    try:
        yield
    finally:
        for kind, method in upstream:
            setattr(kind, "from_pretrained", method)  # noqa: B010  # as above


def check_set(model: nn.Module, name: str) -> None:
    """Refuse a model of which some tensor has no memory.

    Raises:
        LoadError: With the first such tensor.
    """
    empty = [path for path, tensor in _tensors(model).items() if tensor.is_meta]
    if empty:
        raise LoadError(f"{name} has {len(empty)} weights that were not loaded, such as {empty[0]}", hint=NOT_WHOLE)


def difference(wanted: Shapes, found: Shapes) -> str:
    """How the tensors of files differ from those that a model takes, in words; empty if they do not.

    Args:
        wanted: Tensor of the model -> shape.
        found: Tensor of the files, in the names of the model -> shape.
    """
    lacks, strange = sorted(wanted.keys() - found.keys()), sorted(found.keys() - wanted.keys())
    if lacks:
        return f"it lacks {len(lacks)} of its weights, such as {lacks[0]}"
    if strange:
        return f"it has {strange[0]} as well"
    other = next((name for name in sorted(wanted) if wanted[name] != found[name]), None)
    return "" if other is None else f"{other} has the shape {found[other]} and not {wanted[other]}"


def _checking(load: Callable[..., Any]) -> Any:
    @wraps(load)
    def from_pretrained(cls: type[Any], *args: Any, **kwargs: Any) -> Any:
        if kwargs.get("output_loading_info"):
            return load(cls, *args, **kwargs)
        model, info = load(cls, *args, output_loading_info=True, **kwargs)
        _check(model, info)
        return model

    return classmethod(from_pretrained)


def _check(model: nn.Module, info: Mapping[str, Iterable[Any]]) -> None:
    kind = type(model).__name__
    missing = _lost(model, info.get("missing_keys", ()))
    if missing:
        raise LoadError(f"{kind} lacks {len(missing)} of its weights, such as {missing[0]}", hint=NOT_WHOLE)
    strange = _strange(model, info.get("unexpected_keys", ()))
    if strange:
        raise LoadError(f"{kind} has no place for {len(strange)} of the weights, such as {strange[0]}", hint=NOT_WHOLE)
    check_set(model, kind)


def _lost(model: nn.Module, missing: Iterable[str]) -> list[str]:
    """The tensors that nothing has set: weights, and the statistics of normalisation.

    Others that are not in the files are the same object as one that is, or were computed by the model's own code.
    """
    from torch.nn.modules.batchnorm import _NormBase

    names = frozenset(missing)
    tensors = _tensors(model)
    set_ones = {id(tensor) for name, tensor in tensors.items() if name not in names}
    parameters = {name for name, _ in model.named_parameters(remove_duplicate=False)}
    statistics = {
        f"{path}.{name}" if path else name
        for path, module in model.named_modules()
        if isinstance(module, _NormBase)
        for name in ("running_mean", "running_var")
    }
    wanted = names & (parameters | statistics)
    return sorted(name for name in wanted if name in tensors and id(tensors[name]) not in set_ones)


def _strange(model: nn.Module, unexpected: Iterable[str]) -> list[str]:
    """The weights that the model should have had a place for.

    A text encoder is often saved with the rest of its language model, and an old one with tables that are computed
    today: that is left out. A layer more than the configuration has is not, and in a model of diffusers nothing is.
    """
    from diffusers import ModelMixin

    names = sorted(unexpected)
    if isinstance(model, ModelMixin):
        return names
    modules = dict(model.named_modules())
    return [name for name in names if _is_one_more(modules, name)]


def _is_one_more(modules: Mapping[str, nn.Module], name: str) -> bool:
    from torch.nn import ModuleList

    path = name.split(".")
    for end in range(len(path), 0, -1):
        for start in (0, 1):  # some files name the model itself first
            found = modules.get(".".join(path[start:end]))
            if found is not None and end > start:
                return isinstance(found, ModuleList) and end < len(path) and path[end].isdecimal()
    return False


def _tensors(model: nn.Module) -> dict[str, Any]:
    named = (*model.named_parameters(remove_duplicate=False), *model.named_buffers(remove_duplicate=False))
    return dict(named)
