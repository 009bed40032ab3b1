"""What can draw: experts, zoo files and their taxonomy, and the tiny zoo that always works."""

from __future__ import annotations

from diffusiongpt.zoo.call_settings import CallSettings, Scheduler
from diffusiongpt.zoo.expert import (
    EDITING,
    ROOT,
    Capabilities,
    Component,
    Expert,
    ExpertId,
    Tags,
    is_editing,
)
from diffusiongpt.zoo.places import GGUF, GGUF_REMEDY, Guest, License, Source
from diffusiongpt.zoo.service import Price, Server, TokenPrices
from diffusiongpt.zoo.taxonomy import Node, NodeKind, Taxonomy, shipped_edits, shipped_needs
from diffusiongpt.zoo.zoo_file import (
    SHIPPED,
    Zoo,
    ZooFile,
    ZooSource,
    on_their_bases,
    parse_zoo_text,
    read_zoo_file,
    shipped_zoo,
)

__all__ = [
    "EDITING",
    "GGUF",
    "GGUF_REMEDY",
    "ROOT",
    "SHIPPED",
    "CallSettings",
    "Capabilities",
    "Component",
    "Expert",
    "ExpertId",
    "Guest",
    "License",
    "Node",
    "NodeKind",
    "Price",
    "Scheduler",
    "Server",
    "Source",
    "Tags",
    "Taxonomy",
    "TokenPrices",
    "Zoo",
    "ZooFile",
    "ZooSource",
    "is_editing",
    "on_their_bases",
    "parse_zoo_text",
    "read_zoo_file",
    "shipped_edits",
    "shipped_needs",
    "shipped_zoo",
]
