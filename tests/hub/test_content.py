"""The same bytes have the same fingerprint wherever they are, and sizes are known to the byte before a download."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from fixtures_adapters import adapter
from fixtures_cache import BACKEND, SD, UNET
from huggingface_hub import snapshot_download
from safetensors.torch import save_file

from diffusiongpt.errors import PullError
from diffusiongpt.hub import BYTES_OF, ContentIds, Puller, hash_file, sizes_on_disk, sizes_on_hub, total
from diffusiongpt.testing import Fault

if TYPE_CHECKING:
    from diffusiongpt.settings import Settings
    from diffusiongpt.testing import LocalHub

VAE = "vae/diffusion_pytorch_model.safetensors"
NAMES = (UNET, VAE, "unet/config.json", "tokenizer/tokenizer.json")


def counted(home: Path) -> tuple[ContentIds, list[str]]:
    """As in a new process, with small files taken for large; the names of the files that it reads to hash them."""
    read: list[str] = []

    def counting(path: Path) -> str:
        read.append(path.name)
        return hash_file(path)

    return ContentIds(home, remembered_from=1000, hash_file=counting), read


def test_hub_and_folder_give_the_same_ids(repo: Path, puller: Puller, tmp_path: Path) -> None:
    """A snapshot and the folder it was made from have the same fingerprint."""
    ids = ContentIds(tmp_path / "a").of(puller.ensure(SD, BACKEND), NAMES)
    assert ids == ContentIds(tmp_path / "b").of(repo, NAMES)
    assert ids[UNET] == f"sha256:{hashlib.sha256((repo / UNET).read_bytes()).hexdigest()}"
    assert len(set(ids.values())) == len(NAMES)


def test_weights_of_a_pull_are_not_read_again(puller: Puller, tmp_path: Path) -> None:
    """The hub stated their hash, and the pull verified it."""
    folder = puller.ensure(SD, BACKEND)
    found = puller.find(SD, BACKEND)
    assert found is not None
    plain = shutil.copytree(folder, tmp_path / "plain")
    contents, read = counted(tmp_path)
    assert contents.of(folder, (UNET, VAE), found.content) == contents.of(plain, (UNET, VAE), found.content)
    assert read == []


def test_the_name_of_a_blob_proves_nothing(puller: Puller, tmp_path: Path) -> None:
    """It is what some server said, so without the word of a pull the bytes are read."""
    folder = puller.ensure(SD, BACKEND)
    blob = (folder / UNET).resolve()
    data = bytearray(blob.read_bytes())
    data[-1] ^= 1
    blob.write_bytes(data)
    contents, read = counted(tmp_path)
    assert contents.of(folder, (UNET,)) == {UNET: f"sha256:{hashlib.sha256(data).hexdigest()}"}
    assert read == [blob.name]


def test_a_large_local_file_is_read_once_and_again_when_it_changes(repo: Path, tmp_path: Path) -> None:
    """A hash is stored by path, size and time between processes; a damaged record only costs another read."""
    contents, read = counted(tmp_path)
    first = contents.of(repo, (UNET,))
    assert contents.of(repo, (UNET,)) == first
    assert len(read) == 1
    contents, read = counted(tmp_path)
    assert contents.of(repo, (UNET,)) == first
    assert read == []
    data = bytearray((repo / UNET).read_bytes())
    data[-1] ^= 1
    (repo / UNET).write_bytes(data)
    os.utime(repo / UNET, ns=(1, 1))
    assert contents.of(repo, (UNET,)) != first
    assert len(read) == 1
    assert len(json.loads((tmp_path / "hashes.json").read_text())) == 1
    for broken in ("no json", "[]", "{}"):
        (tmp_path / "hashes.json").write_text(broken)
        contents, read = counted(tmp_path)
        assert set(contents.of(repo, (UNET,))) == {UNET}
        assert len(read) == 1


def test_a_home_that_cannot_be_written_costs_nothing_but_time(repo: Path, tmp_path: Path) -> None:
    """A file stands where the folder should be: the ids are the same."""
    blocked = tmp_path / "blocked"
    blocked.write_text("")
    assert counted(blocked)[0].of(repo, NAMES) == counted(tmp_path / "home")[0].of(repo, NAMES)


def test_bytes_in_memory_are_exact_before_any_download(hub: LocalHub, puller: Puller) -> None:
    """The size in a plan, from ranged reads of headers, is that of the loaded pipeline, less buffers without a file."""
    plan = puller.plan(SD, BACKEND)
    hub.downloads.clear()
    said = {dtype: plan.memory_bytes(dtype) for dtype in BYTES_OF}
    assert all(size < 120_000 for size in hub.downloads["t/sd"].values())
    assert not plan.folder.exists()
    asked = len(hub.requests)
    assert plan.memory_bytes("float16") == said["float16"] == said["bfloat16"]
    assert len(hub.requests) == asked
    import torch
    from diffusers import DiffusionPipeline

    pipe = DiffusionPipeline.from_pretrained(puller.ensure(SD, BACKEND), dtype=torch.float32)  # type: ignore[no-untyped-call]
    modules = [part for part in pipe.components.values() if isinstance(part, torch.nn.Module)]
    assert said["float32"] == sum(one.nbytes for part in modules for one in part.state_dict().values())
    # and from the disk afterwards, without a request
    hub.stop()
    again = Puller(puller.settings).plan(SD, BACKEND)
    assert {dtype: again.memory_bytes(dtype) for dtype in BYTES_OF} == said


def test_only_floating_numbers_change_their_type(tmp_path: Path) -> None:
    """A model with many integers stays as large as it is stored, whatever type is requested."""
    import torch

    tensors = {
        "w": torch.zeros(3, 5),
        "half": torch.zeros(7, dtype=torch.float16),
        "ids": torch.zeros(11, dtype=torch.int64),
    }
    save_file(tensors, tmp_path / "model.safetensors")
    (sizes,) = sizes_on_disk(tmp_path, ["model.safetensors", "config.json"]).values()
    assert dict(sizes.elements) == {"F32": 15, "F16": 7, "I64": 11}
    assert [sizes.memory_bytes(dtype) for dtype in ("float32", "float16")] == [22 * 4 + 88, 22 * 2 + 88]


def test_a_header_larger_than_the_first_read_is_read_whole(
    hub: LocalHub, repo: Path, puller: Puller, online: Settings
) -> None:
    """Headers of any length give the same sizes from the hub as from the folder."""
    import torch

    many = {f"a.tensor.with.a.rather.long.name.{number}": torch.zeros(1) for number in range(2000)}
    save_file(many, repo / VAE)
    assert (repo / VAE).stat().st_size > 150_000
    there = sizes_on_hub(online, "t/sd", hub.commit("t/sd"), (UNET, VAE, "unet/config.json"))
    here = sizes_on_disk(hub.repo("t/sd").folder, (UNET, VAE))  # type: ignore[union-attr]
    assert there == here
    assert total(there.values()).memory_bytes("float16") > 0
    assert puller.plan(SD, BACKEND).memory_bytes("float32") is not None


@pytest.mark.parametrize(
    "fault",
    [Fault(match=UNET, status=500), Fault(match=UNET, garble=True), Fault(match=UNET, status=404)],
    ids=["busy", "garbled", "gone"],
)
def test_headers_that_cannot_be_read_are_unknown_and_no_error(hub: LocalHub, puller: Puller, fault: Fault) -> None:
    """In a plan an unknown size is `None`; asking for the size itself is an error that says why."""
    hub.fail(fault)
    plan = puller.plan(SD, BACKEND)
    assert plan.memory_bytes("float16") is None
    with pytest.raises(PullError):
        sizes_on_hub(puller.settings, "t/sd", plan.commit, (UNET,))


def test_an_adapter_weighs_with_its_base(hub: LocalHub, loras: Path, puller: Puller) -> None:
    """The size of an adapter is the sum over both repositories, like all sums of a plan."""
    hub.add("t/ink", loras / "ink")
    base = puller.plan(SD, BACKEND).memory_bytes("float16")
    both = puller.plan(adapter("ink", "t/ink", "t/sd"), BACKEND).memory_bytes("float16")
    assert base is not None
    assert both is not None
    assert 0 < both - base < base / 2


def test_what_another_program_pulled_is_known_by_its_blobs(hub: LocalHub, puller: Puller, online: Settings) -> None:
    """Adopted without a network, its record still names the weights."""
    folder = snapshot_download("t/sd", endpoint=hub.url, cache_dir=online.hub_cache)
    hub.stop()
    puller.ensure(SD, BACKEND)
    (record,) = puller.pulled()
    ids = ContentIds(online.home).of(Path(folder), (UNET, VAE))
    assert {name: f"sha256:{record.hashes[name]}" for name in (UNET, VAE)} == ids


def test_a_copied_snapshot_is_hashed_by_content(puller: Puller, tmp_path: Path) -> None:
    """Plain files, as on a system without links: the same ids, by reading."""
    folder = puller.ensure(SD, BACKEND)
    plain = tmp_path / "plain"
    shutil.copytree(folder, plain)
    contents, read = counted(tmp_path)
    assert contents.of(plain, NAMES) == contents.of(folder, NAMES)
    assert "diffusion_pytorch_model.safetensors" in read
