"""Everything said to the Hugging Face Hub, and what came of it on disk."""

from __future__ import annotations

from diffusiongpt.hub.answers import Patience
from diffusiongpt.hub.client import TIMEOUT_S, read_small, repo_info, small_reader
from diffusiongpt.hub.content import ContentIds, find_damage, hash_file, is_sha256
from diffusiongpt.hub.disk import DiskRow
from diffusiongpt.hub.listing import RepoListing
from diffusiongpt.hub.needed_files import USUAL_NAME, adapter_file, files_of, names_in, needs_unsafe
from diffusiongpt.hub.plan import (
    BYTES_OF,
    Agree,
    PullPlan,
    component_sizes,
    header_bytes,
    readable,
    sizes_on_disk,
    sizes_on_hub,
    total,
)
from diffusiongpt.hub.pull import Puller
from diffusiongpt.hub.records import PullKey, PullRecord, key_of
from diffusiongpt.hub.refusals import AbandonedError
from diffusiongpt.hub.single_file import read_on_disk, read_on_hub, shapes_of, shapes_on_disk, shapes_on_hub
from diffusiongpt.hub.snapshot import Snapshot, check_local, look_at, missing_parts, why_missing
from diffusiongpt.hub.tensors import Header

__all__ = [
    "BYTES_OF",
    "TIMEOUT_S",
    "USUAL_NAME",
    "AbandonedError",
    "Agree",
    "ContentIds",
    "DiskRow",
    "Header",
    "Patience",
    "PullKey",
    "PullPlan",
    "PullRecord",
    "Puller",
    "RepoListing",
    "Snapshot",
    "adapter_file",
    "check_local",
    "component_sizes",
    "files_of",
    "find_damage",
    "hash_file",
    "header_bytes",
    "is_sha256",
    "key_of",
    "look_at",
    "missing_parts",
    "names_in",
    "needs_unsafe",
    "read_on_disk",
    "read_on_hub",
    "read_small",
    "readable",
    "repo_info",
    "shapes_of",
    "shapes_on_disk",
    "shapes_on_hub",
    "sizes_on_disk",
    "sizes_on_hub",
    "small_reader",
    "total",
    "why_missing",
]
