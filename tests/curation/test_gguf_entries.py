"""`zoo add` of a GGUF file: the checkpoint that it was made from, with the component that the file holds."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from fixtures_gguf import write_gguf
from miniatures import make_miniature
from safetensors.numpy import load_file

from diffusiongpt.curation import ZooDraft, describe_repo
from diffusiongpt.errors import LoadError, RequestError
from diffusiongpt.testing import LocalHub
from diffusiongpt.zoo import Zoo

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from diffusiongpt.settings import Settings

CARD = "---\nlicense: apache-2.0\nbase_model: t/flux\n---\n"
FILE = "flux1-mini-Q8_0.gguf"


@pytest.fixture(scope="module")
def flux(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The miniature of FLUX.1; do not write into it."""
    folder = make_miniature("flux1", tmp_path_factory.mktemp("flux") / "flux")
    (folder / "README.md").write_text("---\nlicense: mit\n---\n", encoding="utf-8")
    return folder


@pytest.fixture
def folder(flux: Path, tmp_path: Path) -> Path:
    """A repository of GGUF files, whose card names the checkpoint."""
    tensors = load_file(flux / "transformer" / "diffusion_pytorch_model.safetensors")
    write_gguf(tmp_path / "gguf" / FILE, tensors)
    (tmp_path / "gguf" / "README.md").write_text(CARD, encoding="utf-8")
    return tmp_path / "gguf"


@pytest.fixture
def online(settings: Settings, flux: Path, folder: Path) -> Iterator[Settings]:
    """Settings for a hub with both."""
    with LocalHub({"t/flux": flux, "t/gguf": folder}) as hub:
        yield settings.model_copy(update={"hub_endpoint": hub.url})


def written(entry: dict[str, Any], tmp_path: Path) -> Zoo:
    """The zoo file with an entry."""
    draft = ZooDraft(tmp_path / "zoo.yaml")
    draft.add(entry)
    (tmp_path / "zoo.yaml").write_text(draft.finish().after, encoding="utf-8")
    return Zoo.load(tmp_path / "zoo.yaml")


@pytest.mark.parametrize("named", ["t/gguf", "{url}/t/gguf/blob/main/flux1-mini-Q8_0.gguf"], ids=["repo", "address"])
def test_an_entry_names_the_checkpoint_and_the_file(online: Settings, tmp_path: Path, named: str) -> None:
    """Of each repository its licence and sizes; the entry is complete, and is not added twice."""
    entry = describe_repo(named.format(url=online.hub_endpoint), online)
    assert (entry["id"], entry["repo"], entry["architecture"]) == ("flux1-mini-q8_0", "t/flux", "flux1")
    source = entry["components"]["transformer"]
    assert (source["repo"], source["file"], source["license"]["id"]) == ("t/gguf", FILE, "apache-2.0")
    assert entry["license"]["id"] == "mit"
    assert set(entry["components"]) == {"transformer", "vae", "text_encoder", "text_encoder_2"}
    assert len(entry["sources"]) == 2
    who = written(entry, tmp_path)["flux1-mini-q8_0"]
    assert who.is_sized
    assert [part.repo for part in who.parts] == ["t/gguf", "t/flux"]
    with pytest.raises(Exception, match="already"):
        ZooDraft(tmp_path / "zoo.yaml").add(entry)


def test_a_local_file_takes_a_base(online: Settings, folder: Path, tmp_path: Path) -> None:
    """Which it does not name by itself."""
    with pytest.raises(RequestError, match="does not say of which") as caught:
        describe_repo(str(folder / FILE), online)
    assert "--base owner/name" in caught.value.hint
    entry = describe_repo(str(folder / FILE), online, base="t/flux")
    who = written(entry, tmp_path)["flux1-mini-q8_0"]
    assert (who.elsewhere[0].folder, who.elsewhere[0].weight_file) == (folder.resolve(), FILE)


def test_one_of_several_is_named(online: Settings, folder: Path) -> None:
    """A repository usually has one file for each number of bits."""
    (folder / "flux1-mini-Q4_0.gguf").write_bytes((folder / FILE).read_bytes())
    with pytest.raises(RequestError, match="2 GGUF files") as caught:
        describe_repo("t/gguf", online)
    assert FILE in caught.value.hint
    assert describe_repo("t/gguf", online, weight_name=FILE)["components"]["transformer"]["file"] == FILE


def test_another_checkpoint_is_refused(online: Settings, folder: Path) -> None:
    """A file that fits no component of the checkpoint that is named, with what was expected."""
    write_gguf(folder / FILE, {"blk.0.attn_q.weight": np.ones((32, 32), np.float32)})
    with pytest.raises(LoadError, match="does not fit FluxTransformer2DModel"):
        describe_repo("t/gguf", online)
    with pytest.raises(RequestError, match=r"has no model_index\.json"):
        describe_repo("t/gguf", online, base="t/gguf")
