"""One component in one file, in diffusers' names or in those of the original code: whether it is what it should be."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from diffusiongpt.backends.diffusers.quiet import quiet_construction
from diffusiongpt.backends.diffusers.whole import difference
from diffusiongpt.errors import LoadError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from diffusiongpt.backends.single_file import Shapes

_ANOTHER = "Choose a file that was made from the repository of the expert, or another repository."


def loads_one_file(library: str, kind: str) -> bool:
    """Whether diffusers loads a class from one file."""
    with quiet_construction():
        import diffusers

        return library == "diffusers" and _loadable(getattr(diffusers, kind, object)) is not None


def _loadable(cls: type) -> str | None:
    """The name that diffusers knows a class by where it loads one file; others have the method and refuse the call."""
    from diffusers.loaders.single_file_model import SINGLE_FILE_LOADABLE_CLASSES

    return next((one.__name__ for one in cls.__mro__ if one.__name__ in SINGLE_FILE_LOADABLE_CLASSES), None)


def check_tensors(name: str, kind: str, config: Mapping[str, Any], shapes: Shapes) -> None:
    """Refuse a file that does not have just the tensors of a component, by its header alone.

    The names and shapes go through diffusers' own conversion as tensors without memory.

    Args:
        name: Name of the file, for messages.
        kind: Class of the component.
        config: Its configuration.
        shapes: Tensor -> shape.

    Raises:
        LoadError: If it has others, or lacks some.
    """
    with quiet_construction():
        import torch
        from diffusers.loaders.single_file_utils import SingleFileComponentError

        try:
            with torch.device("meta"):
                wanted, found = _tensors(kind, config, shapes)
        # what the conversions of diffusers raise where a tensor is not there or has another shape
        except (LookupError, ValueError, TypeError, AttributeError, RuntimeError, SingleFileComponentError) as error:
            reason = f"{type(error).__name__}: {str(error)[:200]}"
            raise LoadError(f"{name} does not fit {kind} in this configuration ({reason})", hint=_ANOTHER) from error
    wrong = difference(wanted, found)
    if wrong:
        raise LoadError(f"{name} does not fit {kind} in this configuration: {wrong}", hint=_ANOTHER)


def _tensors(kind: str, config: Mapping[str, Any], shapes: Shapes) -> tuple[Shapes, Shapes]:
    """Tensor -> shape of a model as its configuration has it, and as a file has it after conversion."""
    import diffusers
    import torch
    from diffusers.loaders.single_file_model import SINGLE_FILE_LOADABLE_CLASSES

    cls = getattr(diffusers, kind)
    wanted = {key: tuple(tensor.shape) for key, tensor in cls.from_config(dict(config)).state_dict().items()}
    tensors = {key: torch.empty(shape) for key, shape in shapes.items()}
    if wanted.keys() != tensors.keys():
        loadable = SINGLE_FILE_LOADABLE_CLASSES[str(_loadable(cls))]
        convert: Any = loadable["checkpoint_mapping_fn"]  # type: ignore[index]  # upstream types its table too narrowly
        tensors = convert(config=dict(config), checkpoint=tensors)
    return wanted, {key: tuple(tensor.shape) for key, tensor in tensors.items()}
