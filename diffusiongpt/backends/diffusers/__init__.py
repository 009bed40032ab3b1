"""Draws with diffusers pipelines."""

from __future__ import annotations

from diffusiongpt.backends.diffusers.adapter_file import is_adapter
from diffusiongpt.backends.diffusers.architectures import Architecture, architectures, check_needs, lacking, of_pipeline
from diffusiongpt.backends.diffusers.arguments import plan_call
from diffusiongpt.backends.diffusers.backend import SMALL_BYTES, DiffusersBackend, held, modules_of
from diffusiongpt.backends.diffusers.build import weight_type
from diffusiongpt.backends.diffusers.clip_vocabulary import clip_tokenizer
from diffusiongpt.backends.diffusers.elsewhere import Foreign, foreign_components
from diffusiongpt.backends.diffusers.embedding_file import is_embedding
from diffusiongpt.backends.diffusers.few_bits import FEW_BITS, can_quantise, type_of_bits
from diffusiongpt.backends.diffusers.finite import Finite
from diffusiongpt.backends.diffusers.lora import activated, attach, detach
from diffusiongpt.backends.diffusers.preflight import DAMAGED, read_object
from diffusiongpt.backends.diffusers.quiet import quiet_construction
from diffusiongpt.backends.diffusers.selection import INDEX, choose_files, is_weights
from diffusiongpt.backends.diffusers.whole import NOT_WHOLE, checked_loads, difference
from diffusiongpt.backends.diffusers.zoo_advice import advice

__all__ = [
    "DAMAGED",
    "FEW_BITS",
    "INDEX",
    "NOT_WHOLE",
    "SMALL_BYTES",
    "Architecture",
    "DiffusersBackend",
    "Finite",
    "Foreign",
    "activated",
    "advice",
    "architectures",
    "attach",
    "can_quantise",
    "check_needs",
    "checked_loads",
    "choose_files",
    "clip_tokenizer",
    "detach",
    "difference",
    "foreign_components",
    "held",
    "is_adapter",
    "is_embedding",
    "is_weights",
    "lacking",
    "modules_of",
    "of_pipeline",
    "plan_call",
    "quiet_construction",
    "read_object",
    "type_of_bits",
    "weight_type",
]
