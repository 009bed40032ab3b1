"""An adapter file as layers, whoever wrote it: diffusers, peft, kohya's scripts, LyCORIS; nothing in it is guessed.

Every key has to be one of the known spellings, every layer has to be whole, and every number finite: a half that is
missing would otherwise be filled with whatever was in that memory, and drawn as noise.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal, TypeGuard

from diffusiongpt.backends.base import PEFT_CONFIG
from diffusiongpt.errors import LoadError

if TYPE_CHECKING:
    from pathlib import Path


Kind = Literal["lora", "loha", "lokr"]
"""How the change of a layer is written: as a product of two matrices, a Hadamard or a Kronecker product of them."""

_NAME = r"(?:\.(?!weight$|bias$)[\w-]+)?"
"""The name of an adapter that peft writes between a matrix and `weight`: `lora_A.default.weight`."""

_SPELLINGS: tuple[tuple[str, str], ...] = (
    (rf"[._]lora(?:_linear_layer)?[._](?:A|down){_NAME}(?:\.weight)?", "down"),
    (rf"[._]lora(?:_linear_layer)?[._](?:B|up){_NAME}(?:\.weight)?", "up"),
    (rf"[._]lora_mid{_NAME}(?:\.weight)?", "mid"),
    (rf"\.lora_B{_NAME}\.bias", "bias"),
    (rf"\.(?:lora_magnitude_vector|dora_scale){_NAME}(?:\.weight)?", "magnitude"),
    (rf"\.hada_(?P<hada>w1_a|w1_b|w2_a|w2_b|t1|t2){_NAME}(?:\.weight)?", "hada"),
    (rf"\.lokr_(?P<lokr>w1|w1_a|w1_b|w2|w2_a|w2_b|t2){_NAME}(?:\.weight)?", "lokr"),
    (r"(?:\.lora(?:_linear_layer)?)?\.(?:network_)?alpha", "alpha"),
)
_KEYS = tuple((re.compile(rf"(?P<module>.+?){pattern}"), role) for pattern, role in _SPELLINGS)

_PROCESSOR = re.compile(r"\.processor(?=\.to_\w+$)")
"""Where diffusers kept adapters before 2024: `attn1.processor.to_q_lora.down`, meaning the layer `attn1.to_q`."""

_WHOLE: Mapping[Kind, tuple[frozenset[str], ...]] = {
    "lora": (frozenset({"down", "up"}), frozenset({"down", "up", "mid"})),
    "loha": (
        frozenset({"w1_a", "w1_b", "w2_a", "w2_b"}),
        frozenset({"w1_a", "w1_b", "w2_a", "w2_b", "t1", "t2"}),
    ),
    "lokr": tuple(
        frozenset({*first, *second})
        for first in (("w1",), ("w1_a", "w1_b"))
        for second in (("w2",), ("w2_a", "w2_b"), ("w2_a", "w2_b", "t2"))
    ),
}
"""The matrices that a layer has to have, of which one set must be complete."""

_NOT_AN_ADAPTER = "Set 'weight_name' to the right file, or list a whole checkpoint without 'kind: adapter'."
_INCOMPLETE = "Get a complete copy of the file; it was cut, or saved by a tool that is not supported."

_MAX_NOTES = 1 << 20

MAX_RANK = 1 << 14
"""Highest rank of an adapter; published ones have up to a few hundred, those of LoHa count as their square."""


@dataclass(frozen=True, kw_only=True)
class Layer:
    """What an adapter changes at one layer.

    Attributes:
        module: The layer, as the file names it.
        kind: How the change is written.
        tensors: Role -> matrix: `down` and `up` of LoRA; `w1_a`, `w2`, ... of LoHa and LoKr.
        alpha: The scale times the rank; `None` for a scale of 1.
        bias: What is added after `up`, if anything.
        magnitude: Length of each row of the changed weight (DoRA); `None` without it.
    """

    module: str
    kind: Kind
    tensors: Mapping[str, Any]
    alpha: float | None = None
    bias: Any = None
    magnitude: Any = None

    @property
    def rank(self) -> int:
        """Its rank, by which `alpha` is divided."""
        found = self.tensors
        if self.kind == "lora":
            return int(found["down"].shape[0])
        if self.kind == "loha":
            return int(found["w1_b"].shape[0])
        factors = [found[name] for name in ("w1_b", "w2_b") if name in found]
        # LyCORIS scales by alpha only where a factor is itself a product; whole factors carry their scale
        return int(factors[-1].shape[0]) if factors else 1

    @property
    def scale(self) -> float:
        """By what the product of its matrices is multiplied."""
        whole = self.kind == "lokr" and not any(name.endswith("_b") for name in self.tensors)
        # scripts write 0 for "the rank"
        return 1.0 if whole or not self.alpha else self.alpha / self.rank


@dataclass
class _Pieces:
    tensors: dict[str, Any] = field(default_factory=dict)
    kinds: set[Kind] = field(default_factory=set)
    alpha: float | None = None
    bias: Any = None
    magnitude: Any = None


def read_tensors(file: Path) -> tuple[dict[str, Any], dict[str, str]]:
    """All tensors of a safetensors file, and its own notes."""
    from safetensors import safe_open

    with safe_open(file, framework="pt") as content:
        tensors = {key: content.get_tensor(key) for key in content.keys()}  # noqa: SIM118  # not a mapping
        notes = dict(content.metadata() or {})
    beside = file.with_name(PEFT_CONFIG)
    if beside.is_file() and beside.stat().st_size <= _MAX_NOTES:
        notes[PEFT_CONFIG] = beside.read_text(encoding="utf-8", errors="replace")
    return tensors, notes


def is_adapter(names: Iterable[str]) -> bool:
    """Whether the names of all tensors in a file are those of an adapter."""
    there = [*names]
    return bool(there) and all(any(pattern.fullmatch(name) for pattern, _ in _KEYS) for name in there)


def layers_in(tensors: Mapping[str, Any], notes: Mapping[str, str], name: str) -> list[Layer]:
    """The layers of an adapter.

    Args:
        tensors: All tensors of the file.
        notes: What the file says of itself; peft's alphas are there.
        name: Name of the file, for messages.

    Raises:
        LoadError: If a key is unknown, a layer incomplete, or a number not finite; it names the first of them.
    """
    if not tensors:
        raise LoadError(f"{name} is not a LoRA adapter: it is empty", hint=_NOT_AN_ADAPTER)
    pieces: dict[str, _Pieces] = {}
    strange = [key for key, tensor in tensors.items() if not _sort(key, tensor, pieces, name)]
    if strange:
        # such weights would replace those of the base, with which other requests draw
        more = f" and {len(strange) - 1} other weights that are not of one" if len(strange) > 1 else ""
        raise LoadError(f"{name} is not a LoRA adapter: it holds {strange[0]}{more}", hint=_NOT_AN_ADAPTER)
    alphas = _Alphas.in_notes(notes)
    return [_whole_layer(module, piece, alphas, name) for module, piece in pieces.items()]


def _sort(key: str, tensor: Any, pieces: dict[str, _Pieces], name: str) -> bool:
    """Put a tensor where it belongs; `False` if its name is not one of an adapter."""
    found = next(((match, role) for pattern, role in _KEYS if (match := pattern.fullmatch(key))), None)
    if found is None:
        return False
    match, role = found
    _check_finite(key, tensor, name)
    piece = pieces.setdefault(_module(match["module"], key), _Pieces())
    if role == "alpha":
        piece.alpha = _scalar(key, tensor, name)
        return True
    if role in ("bias", "magnitude"):
        taken, value = getattr(piece, role), tensor
        setattr(piece, role, value)
    else:
        kind: Kind = "loha" if role == "hada" else "lokr" if role == "lokr" else "lora"
        place = match[role] if role in ("hada", "lokr") else role
        piece.kinds.add(kind)
        taken = piece.tensors.get(place)
        piece.tensors[place] = tensor
    if taken is not None:
        raise LoadError(f"{name} has two weights for {match['module']}: {key}", hint=_INCOMPLETE)
    return True


def _module(module: str, key: str) -> str:
    plain = _PROCESSOR.sub("", module)
    if plain != module and "_lora." in key and plain.endswith(".to_out"):
        return f"{plain}.0"
    return plain


def _check_finite(key: str, tensor: Any, name: str) -> None:
    if not tensor.is_floating_point():
        if tensor.numel() == 1:  # an alpha, which some scripts write as a whole number
            return
        raise LoadError(f"{name}: {key} is not a matrix of floating-point numbers", hint=_INCOMPLETE)
    if not bool(tensor.isfinite().all()):
        raise LoadError(f"{name}: {key} holds numbers that are not finite", hint=_INCOMPLETE)


def _scalar(key: str, tensor: Any, name: str) -> float:
    if tensor.numel() != 1:
        raise LoadError(f"{name}: {key} is not one number", hint=_INCOMPLETE)
    return float(tensor.item())


def _whole_layer(module: str, piece: _Pieces, alphas: _Alphas, name: str) -> Layer:
    if len(piece.kinds) != 1:
        what = "has no matrices" if not piece.kinds else f"is written as {' and '.join(sorted(piece.kinds))} at once"
        raise LoadError(f"{name} is incomplete: {module} {what}", hint=_INCOMPLETE)
    (kind,) = piece.kinds
    there = frozenset(piece.tensors)
    if there not in _WHOLE[kind]:
        wanted = min(_WHOLE[kind], key=lambda one: (len(one ^ there), len(one)))
        lacks = ", ".join(sorted(wanted - there)) or "nothing"
        raise LoadError(f"{name} is incomplete: {module} has {', '.join(sorted(there))} and lacks {lacks}",
                        hint=_INCOMPLETE)  # fmt: skip
    layer = Layer(module=module, kind=kind, tensors=piece.tensors, bias=piece.bias, magnitude=piece.magnitude)
    if kind != "lora" and (piece.bias is not None or piece.magnitude is not None):
        raise LoadError(
            f"{name}: {module} has a magnitude or a bias as well as {kind}, which neither diffusers nor peft supports",
            hint="Choose an adapter without weight decomposition, or one that is a plain LoRA.",
        )
    checked = _checked(_without_middle(layer) if "mid" in there else layer, name)
    alpha = piece.alpha if piece.alpha is not None else alphas.of(module, checked.rank)
    return replace(checked, alpha=alpha)


def _without_middle(layer: Layer) -> Layer:
    """A convolution in three steps as one in two: the middle and the first one are one after the other, and linear."""
    import torch

    mid, down = layer.tensors["mid"].float(), layer.tensors["down"].float()
    if mid.ndim < 3 or mid.shape[1] != down.shape[0]:  # channels, channels, size
        return layer
    joined = torch.einsum("oj...,ji->oi...", mid, down.flatten(1)).to(layer.tensors["up"].dtype)
    return replace(layer, tensors={"down": joined, "up": layer.tensors["up"]})


def _checked(layer: Layer, name: str) -> Layer:
    """The layer, if its matrices can be multiplied with each other."""
    found = layer.tensors
    pairs = {
        "lora": [("up", "down")],
        "loha": [("w1_a", "w1_b"), ("w2_a", "w2_b")] if "t1" not in found else [],
        "lokr": [] if "t2" in found else [("w1_a", "w1_b"), ("w2_a", "w2_b")],
    }[layer.kind]
    if any(tensor.ndim < 2 for tensor in found.values()):  # a matrix
        raise LoadError(f"{name}: a weight of {layer.module} is not a matrix", hint=_INCOMPLETE)
    for left, right in pairs:
        if left in found and found[left].shape[1] != found[right].shape[0]:
            raise LoadError(
                f"{name}: {left} and {right} of {layer.module} do not belong together "
                f"({_size(found[left])} and {_size(found[right])})",
                hint=_INCOMPLETE,
            )
    if layer.rank > MAX_RANK or layer.rank < 1:
        raise LoadError(f"{name}: {layer.module} has a rank of {layer.rank}", hint=_INCOMPLETE)
    return layer


def _size(tensor: Any) -> str:
    return "x".join(map(str, tensor.shape))


@dataclass(frozen=True)
class _Alphas:
    """The alphas that peft and diffusers state outside the weights.

    Nothing else of their notes is used: they come from a stranger, and peft would act on all of them.
    """

    said: Mapping[str, Any]

    @classmethod
    def in_notes(cls, notes: Mapping[str, str]) -> _Alphas:
        """From the header of a file that diffusers wrote, or from the `adapter_config.json` of peft."""
        try:
            said = json.loads(notes.get("lora_adapter_metadata") or notes.get(PEFT_CONFIG) or "{}")
        except (ValueError, RecursionError):
            said = {}
        return cls(said if isinstance(said, dict) else {})

    def of(self, module: str, rank: int) -> float | None:
        """The alpha of a layer, or `None` where none is stated."""
        component = module.partition(".")[0]
        prefix = f"{component}." if f"{component}.lora_alpha" in self.said else ""
        patterns = self.said.get(f"{prefix}alpha_pattern")
        named = patterns.items() if isinstance(patterns, dict) else ()
        own = (alpha for name, alpha in named if f".{module}".endswith(f".{name}") and _is_number(alpha))
        alpha = next(own, self.said.get(f"{prefix}lora_alpha", self.said.get(f"{prefix}alpha")))
        if not _is_number(alpha):
            return None
        # rank-stabilised LoRA divides by the root of the rank
        return float(alpha) * (rank**0.5 if self.said.get(f"{prefix}use_rslora") is True else 1.0)


def _is_number(value: object) -> TypeGuard[float]:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 < value < MAX_RANK * MAX_RANK
