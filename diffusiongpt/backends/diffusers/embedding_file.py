"""Textual inversions: words that a text encoder learnt, in a file, and active for one drawing."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from diffusiongpt.errors import LoadError

if TYPE_CHECKING:
    from pathlib import Path


_KEYS: Mapping[str, str] = {
    "emb_params": "text_encoder",
    "clip_l": "text_encoder",
    "clip_g": "text_encoder_2",
}
"""Names of tensors in files of AUTOMATIC1111 and of SDXL -> the encoder that they are for."""

_MOST_VECTORS = 75
"""Tokens that CLIP reads of a prompt."""

_MOST_CHARACTERS = 100
"""Characters of the longest word; names of files in use have up to forty."""

_RENAME = "Rename the file, or the tensor in it: its name is the word that stands for it in a prompt."
_ELSEWHERE = "Check 'base' in the zoo file: the embedding was made for another checkpoint."
_DAMAGED = "Get a complete copy of the file, or choose another."


@dataclass(frozen=True, kw_only=True)
class Embedding:
    """The words that one file adds, with their vectors.

    Attributes:
        word: The word in a prompt that stands for it.
        vectors: Text encoder -> one row for each token.
    """

    word: str
    vectors: Mapping[str, Any]

    @property
    def nbytes(self) -> int:
        """Bytes of the vectors."""
        return sum(rows.nbytes for rows in self.vectors.values())


def is_embedding(names: Iterable[str]) -> bool:
    """Whether a file is a textual inversion, by the names of its tensors: known ones, or one of a word alone."""
    there = set(names)
    return bool(there) and (there <= set(_KEYS) or (len(there) == 1 and "." not in next(iter(there))))


def embedding_in(file: Path, pipe: Any) -> Embedding | None:
    """The embedding in a file for a pipeline; `None` if the file is something else.

    It goes by the name that the file has inside, as diffusers writes it, or else by that of the file.

    Raises:
        LoadError: If it is damaged, or not for this pipeline.
    """
    from safetensors import safe_open

    with safe_open(file, framework="pt") as content:
        names = [*content.keys()]
        if not is_embedding(names):
            return None
        known = set(names) <= set(_KEYS)
        places = {name: _KEYS[name] if known else "text_encoder" for name in names}
        # before they are read: a header may promise gigabytes
        shapes = {places[name]: _shape(content.get_slice(name).get_shape(), file) for name in names}
        word = file.stem if known else names[0]
        _check_fits(shapes, word, pipe, file)
        vectors = {places[name]: _rows(content.get_tensor(name), file) for name in names}
    return Embedding(word=word, vectors=vectors)


def _check_fits(shapes: Mapping[str, tuple[int, int]], word: str, pipe: Any, file: Path) -> None:
    """Refuse what is not for the encoders of a pipeline, or for a word that prompts have anyway."""
    for component, (_, width_of_file) in shapes.items():
        encoder, tokenizer = getattr(pipe, component, None), getattr(pipe, _tokenizer_of(component), None)
        if encoder is None or tokenizer is None or not hasattr(encoder, "get_input_embeddings"):
            raise LoadError(f"{file.name} is for a {component}, and {type(pipe).__name__} has none", hint=_ELSEWHERE)
        width = encoder.get_input_embeddings().weight.shape[1]
        if width_of_file != width:
            raise LoadError(
                f"{file.name} was made for a text encoder of another width: {width_of_file}, and it is {width} in "
                f"{type(pipe).__name__}",
                hint=_ELSEWHERE,
            )
        _check_word(word, tokenizer, file)
    missing = {name for name in _encoders(pipe) if name not in shapes}
    if missing and "text_encoder_2" in _encoders(pipe):
        raise LoadError(
            f"{file.name} is for one text encoder, and {type(pipe).__name__} has {len(_encoders(pipe))}",
            hint=_ELSEWHERE,
        )


def _check_word(word: str, tokenizer: Any, file: Path) -> None:
    """Refuse a word that no prompt can have, or that many have and mean what they say."""
    parts = word.split()
    if not parts or len(word) > _MOST_CHARACTERS or not word.isprintable():
        raise LoadError(f"{file.name} is for {word[:20]!r}, which is not a word", hint=_RENAME)
    if word in tokenizer.get_vocab() or all(len(tokenizer.tokenize(part)) == 1 for part in parts):
        raise LoadError(f"{file.name} is for {word!r}, which the text encoder knows already", hint=_RENAME)


@contextmanager
def worded(pipe: Any, embeddings: Sequence[Embedding]) -> Iterator[None]:
    """Let the text encoders of a pipeline know more words within the block; the caller holds the slot of the device.

    Args:
        pipe: A copy of the pipeline that belongs to the caller; its modules may be shared.
        embeddings: What they learn.
    """
    with ExitStack() as undo:
        for component in dict.fromkeys(name for one in embeddings for name in one.vectors):
            name, encoder = _tokenizer_of(component), getattr(pipe, component)
            known, table = getattr(pipe, name), encoder.get_input_embeddings()
            # other requests count tokens with it
            pipe.__dict__[name] = tokenizer = copy.deepcopy(known)
            undo.callback(pipe.__dict__.__setitem__, name, known)
            rows = [one.vectors[component] for one in embeddings if component in one.vectors]
            for one in embeddings:
                # diffusers reads `word` as `word word_1 word_2` where these are known
                tokenizer.add_tokens([one.word, *(f"{one.word}_{at}" for at in range(1, len(one.vectors[component])))])
            encoder.set_input_embeddings(_longer(table, rows))
            undo.callback(encoder.set_input_embeddings, table)
        yield


def _longer(table: Any, rows: Sequence[Any]) -> Any:
    """A table of embeddings with further rows at its end, without a copy of the first ones."""
    import torch

    first = table.num_embeddings
    more = torch.cat([part.to(device=table.weight.device, dtype=table.weight.dtype) for part in rows])

    class Longer(torch.nn.Module):
        """Looks numbers up in the table, or in what follows it."""

        num_embeddings = first + len(more)
        weight = table.weight

        def forward(self, numbers: Any) -> Any:
            """See `torch.nn.Embedding`."""
            found = table(numbers.clamp(max=first - 1))
            return torch.where((numbers >= first)[..., None], more[(numbers - first).clamp(min=0)], found)

    return Longer()


def _shape(shape: Sequence[int], file: Path) -> tuple[int, int]:
    """Rows and columns of a tensor by the header of its file."""
    rows, width = (1, *shape)[-2:] if len(shape) in (1, 2) else (0, 0)
    if not 1 <= rows <= _MOST_VECTORS or not width:
        raise LoadError(f"{file.name} is not a textual inversion: its tensor is not a list of vectors", hint=_DAMAGED)
    return rows, width


def _rows(rows: Any, file: Path) -> Any:
    if not rows.is_floating_point() or not bool(rows.isfinite().all()):
        raise LoadError(f"{file.name} holds numbers that are not finite", hint=_DAMAGED)
    return rows[None] if rows.ndim == 1 else rows


def _encoders(pipe: Any) -> list[str]:
    return [name for name, part in pipe.components.items() if name.startswith("text_encoder") and part is not None]


def _tokenizer_of(component: str) -> str:
    return component.replace("text_encoder", "tokenizer")
