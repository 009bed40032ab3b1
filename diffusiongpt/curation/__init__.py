"""Changing a zoo file: descriptions from the hub, edits, proposals."""

from __future__ import annotations

from diffusiongpt.curation.address import read_address
from diffusiongpt.curation.describe import Presence, describe_repo, find_presence
from diffusiongpt.curation.edit import Draft, ZooDraft, editable_layers
from diffusiongpt.curation.paper_files import PaperFile, PaperModel, read_paper_file
from diffusiongpt.curation.paper_zoo import Mapped, PaperMapping
from diffusiongpt.curation.propose import MAX_NODES, Proposed, propose_taxonomy, read_proposal
from diffusiongpt.curation.yaml_text import YamlEdit, YamlEditError, dump_yaml

__all__ = [
    "MAX_NODES",
    "Draft",
    "Mapped",
    "PaperFile",
    "PaperMapping",
    "PaperModel",
    "Presence",
    "Proposed",
    "YamlEdit",
    "YamlEditError",
    "ZooDraft",
    "describe_repo",
    "dump_yaml",
    "editable_layers",
    "find_presence",
    "propose_taxonomy",
    "read_address",
    "read_paper_file",
    "read_proposal",
]
