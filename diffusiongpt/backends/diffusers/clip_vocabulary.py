"""The tokenizer of CLIP from the merges that come with the package: single-file checkpoints bring none."""

from __future__ import annotations

import gzip
from functools import cache
from importlib import resources
from typing import Any

TOKENS = 77
"""Tokens that CLIP reads, the two around the prompt included."""

_START, _END, _WORD = "<|startoftext|>", "<|endoftext|>", "</w>"


def clip_tokenizer(padding: str) -> Any:
    """A `CLIPTokenizer`.

    Args:
        padding: The token that fills up: the end of the text for the encoders of OpenAI, `!` for those of OpenCLIP.
    """
    from transformers import CLIPTokenizer

    vocabulary, merges = _words()
    pairs: Any = [*merges]  # its type says lines, and the library below takes pairs
    return CLIPTokenizer(vocab=dict(vocabulary), merges=pairs, pad_token=padding, model_max_length=TOKENS)


def vocabulary_size() -> int:
    """Tokens that it has: an encoder for another vocabulary has another number of rows."""
    return len(_words()[0])


@cache
def _words() -> tuple[dict[str, int], list[tuple[str, str]]]:
    """Token -> number, and the pairs that are merged, in order.

    The vocabulary follows from the merges: the bytes, the bytes at the end of a word, what each merge makes, and the
    two special tokens (Radford et al. 2021, https://github.com/openai/CLIP, `simple_tokenizer.py`).
    """
    file = resources.files("diffusiongpt.backends.diffusers").joinpath("clip_merges.txt.gz")
    lines = gzip.decompress(file.read_bytes()).decode("utf-8").splitlines()
    merges = [(left, right) for left, _, right in (line.partition(" ") for line in lines)]
    bytes_ = _printable_bytes()
    tokens = [*bytes_, *(one + _WORD for one in bytes_), *(left + right for left, right in merges), _START, _END]
    return {token: number for number, token in enumerate(tokens)}, merges


def _printable_bytes() -> list[str]:
    """A printable character for each byte, the bytes that are printable themselves first."""
    plain = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    others = [byte for byte in range(256) if byte not in plain]
    return [*map(chr, plain), *(chr(256 + number) for number in range(len(others)))]
