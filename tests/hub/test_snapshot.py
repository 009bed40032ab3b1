"""The files of a checkpoint are decided once, are not looked up again while unchanged, and are when they change."""

from __future__ import annotations

import os
import shutil
from typing import TYPE_CHECKING

import pytest
from fixtures_adapters import adapter
from fixtures_cache import BACKEND, SD, UNET
from miniature import expert

from diffusiongpt.errors import PullError
from diffusiongpt.hub import is_sha256

if TYPE_CHECKING:
    from pathlib import Path

    from diffusiongpt.hub import Puller
    from diffusiongpt.testing import LocalHub

HALF = "unet/diffusion_pytorch_model.fp16.safetensors"


@pytest.fixture
def folder(tiny_sd: Path, tmp_path: Path) -> Path:
    """A local checkpoint."""
    return shutil.copytree(tiny_sd, tmp_path / "sd")


def test_a_pulled_checkpoint_has_commit_sizes_and_hashes(hub: LocalHub, puller: Puller) -> None:
    """What the pull decided is found afterwards, also by another puller, with a modification time for each file."""
    assert puller.find(SD, BACKEND) is None
    place = puller.ensure(SD, BACKEND)
    found = puller.find(SD, BACKEND)
    assert found is not None
    assert (found.folder, found.commit, found.base) == (place, hub.commit("t/sd"), None)
    assert found.files == {name: (place / name).stat().st_size for name in found.files}
    assert is_sha256(found.content[UNET])
    assert found.changed.keys() == found.files.keys()
    assert puller.find(SD, BACKEND) == found


def test_a_local_folder_is_chosen_from_again_only_when_it_changes(folder: Path, puller: Puller) -> None:
    """A changed file, and one that is added and preferred, give another snapshot with another fingerprint."""
    who = expert(folder, variant="fp16")
    first = puller.find(who, BACKEND)
    assert first is not None
    assert (first.commit, first.content) == (None, {})
    assert puller.find(who, BACKEND) is first
    os.utime(folder / UNET, ns=(1, 1))
    second = puller.find(who, BACKEND)
    assert second is not None
    assert second != first
    assert second.fingerprint() == first.fingerprint()
    shutil.copy(folder / UNET, folder / HALF)
    third = puller.find(who, BACKEND)
    assert third is not None
    assert (UNET in third.files, HALF in third.files) == (False, True)
    assert third.fingerprint() != first.fingerprint()


def test_an_incomplete_folder_is_an_error_that_names_it(folder: Path, puller: Puller) -> None:
    """It does not count as on disk, and the error says which component lacks files."""
    (folder / UNET).unlink()
    with pytest.raises(PullError, match="unet") as caught:
        puller.find(expert(folder), BACKEND)
    assert str(folder) in str(caught.value)


def test_an_adapter_brings_its_base(hub: LocalHub, loras: Path, puller: Puller) -> None:
    """One call finds both, and the fingerprint of a drawing names both."""
    hub.add("t/ink", loras / "ink")
    ink = adapter("ink", "t/ink", "t/sd")
    puller.ensure(ink, BACKEND)
    found, base = puller.find(ink, BACKEND), puller.find(SD, BACKEND)
    assert found is not None
    assert base is not None
    assert found.base == base
    assert found.adapter.is_file()
    assert found.fingerprint().startswith(f"{base.fingerprint()}+")
