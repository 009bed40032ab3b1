"""What an adapter needs of the hub: its one file and its base, announced together, each pulled once."""

from __future__ import annotations

import shutil
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest
from fixtures_adapters import adapter, family
from fixtures_cache import BACKEND, SD, Counting, touch
from fixtures_diffusers import ask, pixels

from diffusiongpt.cache import ModelCache
from diffusiongpt.errors import (
    GatedRepoError,
    HubUnreachableError,
    LoadError,
    PullError,
    PullTooLargeError,
    RepoMissingError,
    UnsafeFilesError,
)
from diffusiongpt.hub import USUAL_NAME, Puller, PullPlan, adapter_file

if TYPE_CHECKING:
    from pathlib import Path

    from diffusiongpt.settings import Settings
    from diffusiongpt.testing import LocalHub
    from diffusiongpt.zoo import Expert

PLAIN, INK, TOY = family("t/sd", "t/ink", "t/toy")
LONE = adapter("lone", "t/ink", "t/sd")
"""The same for a zoo without the base."""


@pytest.fixture
def hub(hub: LocalHub, loras: Path) -> LocalHub:
    """The hub, with both adapters."""
    for name in ("ink", "toy"):
        hub.add(f"t/{name}", loras / name)
    return hub


def picture(cache: ModelCache, who: Any) -> list[bytes]:
    """What an expert draws."""
    with cache.lease(who, BACKEND, device="cpu") as loaded:
        return pixels(BACKEND.draw(loaded, ask(who)))


def weights_asked(hub: LocalHub) -> list[str]:
    """Weight files that were downloaded, in order, by repository."""
    names = [path for method, path in hub.requests if method == "GET" and path.endswith(".safetensors")]
    return list(dict.fromkeys("/".join(path.split("/")[1:3]) for path in names))


def test_both_repositories_are_told_and_pulled(hub: LocalHub, online: Settings) -> None:
    """Before the download both are named with their total; then the base is pulled once, whichever expert needs it."""
    told: list[tuple[str, tuple[str, ...]]] = []
    puller = Puller(online, on_pull=lambda plan: told.append((str(plan), tuple(hub.downloads.get("t/sd", ())))))
    cache, backend = ModelCache(online, puller=puller), Counting()
    touch(cache, backend, INK, PLAIN, TOY)
    assert weights_asked(hub) == ["t/sd", "t/ink", "t/toy"]
    first, *others = [text for text, _ in told]
    assert first.startswith("pulling t/sd (0.4 MB) and t/ink (0.0 MB) for ink: 0.4 MB, licence Apache-2.0 and MIT")
    assert not any(name.endswith(".safetensors") for name in told[0][1])
    assert [text.partition(":")[0] for text in others] == ["pulling t/ink for ink", "pulling t/toy for toy"]
    assert backend.loads == ["plain"]
    assert [record.repo for record in puller.pulled()] == ["t/sd", "t/ink", "t/toy"]
    assert [record.ours for record in puller.pulled()][1:] == [(USUAL_NAME,)] * 2


def test_the_notes_of_peft_come_with_an_adapter(hub: LocalHub, online: Settings, loras: Path, tmp_path: Path) -> None:
    """Its strength is in `adapter_config.json`: without it, the same file would be used with another one."""
    folder = shutil.copytree(loras / "ink", tmp_path / "noted")
    (folder / "adapter_config.json").write_text('{"lora_alpha": 2}', encoding="utf-8")
    (folder / "notes.json").write_text("{}", encoding="utf-8")
    hub.add("t/noted", folder)
    noted, puller = adapter("noted", "t/noted", "t/sd"), Puller(online)
    puller.ensure(noted, BACKEND)
    found = puller.find(noted, BACKEND)
    assert found is not None
    assert set(found.files) == {USUAL_NAME, "adapter_config.json"}
    assert (found.folder / "adapter_config.json").read_text(encoding="utf-8") == '{"lora_alpha": 2}'


def test_two_cold_adapters_pull_their_base_once(hub: LocalHub, online: Settings) -> None:
    """However many request base and adapters at once, each file is downloaded once, and the base is loaded once."""
    cache, backend = ModelCache(online), Counting()
    start = threading.Barrier(9)

    def work(who: Expert) -> None:
        start.wait()
        touch(cache, backend, who)

    with ThreadPoolExecutor(9) as pool:
        list(pool.map(work, [INK, TOY, PLAIN] * 3))
    gets = [path for method, path in hub.requests if method == "GET" and path.endswith(".safetensors")]
    assert sorted(gets) == sorted(set(gets))
    assert len(gets) == 3 + 2
    assert backend.loads == ["plain"]


def test_a_base_outside_the_zoo_is_pulled_too(hub: LocalHub, online: Settings) -> None:
    """An adapter draws the same whether or not the zoo has its base, and shares the base with other experts."""
    cache, backend = ModelCache(online), Counting()
    assert hub.requests == []
    assert picture(cache, LONE) == picture(cache, INK)
    touch(cache, backend, SD)
    assert backend.loads == []
    assert {row.experts for row in cache.explain().on("host")} == {("ink", "lone"), ("lone", "plain", "sd")}


def test_the_limit_is_for_the_sum(hub: LocalHub, online: Settings) -> None:
    """Base and adapter together may not exceed the limit for pulls without asking; the question shows both."""
    puller = Puller(online)
    plan = puller.plan(INK, BACKEND)
    largest = max(part.bytes_to_pull for part in plan.parts)
    assert plan.bytes_missing == plan.bytes_total == sum(part.bytes_to_pull for part in plan.parts) > largest
    small = Puller(online.model_copy(update={"max_download_gb": (largest + 1) / 1e9}))
    with pytest.raises(PullTooLargeError, match="t/sd and t/ink"):
        small.ensure(INK, BACKEND)
    asked: list[PullPlan] = []
    folder = small.ensure(INK, BACKEND, agree=lambda plan: not asked.append(plan))
    assert [part.repo for part in asked[0].parts] == ["t/sd", "t/ink"]
    assert small.on_disk(INK) == folder
    assert small.plan(INK, BACKEND).bytes_missing == 0
    # the base is on disk by now
    assert Puller(small.settings).ensure(TOY, BACKEND).is_dir()
    assert "t/klein" not in hub.downloads


def test_without_a_network_what_is_on_disk_draws(hub: LocalHub, online: Settings) -> None:
    """If both parts were pulled, there is no request. The base alone is not enough, nor is the adapter alone."""
    wanted = picture(ModelCache(online), INK)
    asked = len(hub.requests)
    off = online.model_copy(update={"offline": True})
    assert picture(ModelCache(off), INK) == wanted
    assert len(hub.requests) == asked
    puller = Puller(off)
    assert puller.find_offline(INK, BACKEND)
    assert not puller.find_offline(TOY, BACKEND)
    with pytest.raises(HubUnreachableError, match="t/toy"):
        puller.ensure(TOY, BACKEND)
    puller.clear(("t/sd",))
    assert puller.on_disk(INK) is None
    with pytest.raises(HubUnreachableError, match="t/sd"):
        puller.ensure(INK, BACKEND)


def test_what_another_program_left_is_adopted(hub: LocalHub, online: Settings) -> None:
    """If other programs pulled base and adapter completely, they draw without a network, and never count as ours."""
    from huggingface_hub import snapshot_download

    for repo in ("t/sd", "t/ink"):
        snapshot_download(repo, cache_dir=online.hub_cache, endpoint=hub.url)
    puller = Puller(online.model_copy(update={"offline": True}))
    assert puller.find_offline(INK, BACKEND)
    assert puller.ensure(INK, BACKEND) == puller.on_disk(INK)
    assert puller.clear() == 0


@pytest.mark.usefixtures("hub")
def test_clearing_takes_one_and_leaves_the_other(online: Settings) -> None:
    """An adapter is cleared without its base, and can be pulled again alone."""
    puller = Puller(online)
    puller.ensure(INK, BACKEND)
    size = puller.pulled()[1].bytes
    assert 0 < puller.clear(("t/ink",)) <= size
    assert puller.on_disk(PLAIN) is not None
    assert puller.on_disk(INK) is None
    assert [part.repo for part in puller.plan(INK, BACKEND).parts if part.missing] == ["t/ink"]


def test_a_gated_base_is_named(hub: LocalHub, online: Settings) -> None:
    """The terms are those of the base, and nothing of the adapter is pulled before they are accepted."""
    hub.gate("t/sd")
    with pytest.raises(GatedRepoError, match="t/sd") as caught:
        touch(ModelCache(online), BACKEND, INK)
    assert "t/sd" in caught.value.hint
    assert "t/ink" not in hub.downloads


def test_a_missing_base_is_named(hub: LocalHub, online: Settings, loras: Path) -> None:
    """A base may be on the hub, or a folder next to the zoo file."""
    with pytest.raises(RepoMissingError, match="t/none"):
        touch(ModelCache(online), BACKEND, adapter("a", "t/ink", "t/none"))
    with pytest.raises(PullError, match="nowhere"):
        touch(ModelCache(online), BACKEND, adapter("a", loras / "ink", loras / "nowhere"))
    assert "t/ink" not in hub.downloads


@pytest.mark.usefixtures("hub")
def test_a_base_that_is_no_checkpoint_is_named(online: Settings, loras: Path) -> None:
    """A repository or folder with an adapter in it is not a base."""
    with pytest.raises(PullError, match=r"t/toy: no model_index\.json"):
        touch(ModelCache(online), BACKEND, adapter("a", "t/ink", "t/toy"))
    with pytest.raises(PullError, match=r"no model_index\.json"):
        touch(ModelCache(online), BACKEND, adapter("a", "t/ink", loras / "toy"))


@pytest.mark.usefixtures("hub")
def test_local_and_remote_mix(online: Settings, tiny_sd: Path, loras: Path) -> None:
    """Adapter and base may each be a folder or on the hub; the pictures are the same."""
    cache = ModelCache(online)
    wanted = picture(cache, INK)
    for who in (
        adapter("a", loras / "ink", "t/sd"),
        adapter("b", "t/ink", tiny_sd),
        family(tiny_sd, loras / "ink", "t/toy")[1],
    ):
        assert picture(cache, who) == wanted
    assert Puller(online).ensure(adapter("c", loras / "toy", "t/sd"), BACKEND) == loras / "toy"


@pytest.fixture
def crowd(loras: Path, tmp_path: Path) -> Path:
    """A folder with two adapters, neither under the usual name."""
    folder = tmp_path / "crowd"
    folder.mkdir()
    shutil.copy(loras / "ink" / USUAL_NAME, folder / "ink.safetensors")
    shutil.copy(loras / "toy" / USUAL_NAME, folder / "toy.safetensors")
    return folder


def test_of_several_files_one_is_named(hub: LocalHub, online: Settings, crowd: Path) -> None:
    """Two adapters of one repository are two pulls of one file each, at one commit; in memory, content decides."""
    hub.add("t/crowd", crowd)
    first, second = (adapter(name, "t/crowd", "t/sd", weight_name=f"{name}.safetensors") for name in ("ink", "toy"))
    cache = ModelCache(online)
    assert picture(cache, first) == picture(cache, INK)
    assert set(hub.downloads["t/crowd"]) == {"ink.safetensors"}
    assert picture(cache, second) == picture(cache, adapter("full", "t/toy", "t/sd"))
    records = [record for record in cache.puller.pulled() if record.repo == "t/crowd"]
    assert [record.weight_name for record in records] == ["ink.safetensors", "toy.safetensors"]
    assert len({record.commit for record in records}) == 1
    assert len(cache.explain().on("host")) == 3 + 2
    cache.clear()
    assert [row.tier for row in cache.explain().residents] == ["disk"] * len(cache.puller.pulled())


@pytest.mark.parametrize(
    ("names", "wanted", "kind", "told"),
    [
        (["b.safetensors", "a.safetensors"], None, PullError, "a.safetensors, b.safetensors"),
        (["a.safetensors"], "b.safetensors", PullError, "it has: a.safetensors"),
        (["README.md"], "b.safetensors", PullError, "another repository"),
        (["README.md"], None, PullError, "no adapter file"),
        (["unet/a.safetensors"], None, PullError, "no adapter file"),
        (["pytorch_lora_weights.bin", "old.pt"], None, UnsafeFilesError, "old.pt, pytorch_lora_weights.bin"),
        ([f"{at}.safetensors" for at in range(8)], None, PullError, "and 3 more"),
    ],
)
def test_which_file_is_meant_is_never_guessed(
    names: list[str], wanted: str | None, kind: type[PullError], told: str
) -> None:
    """Without a name, several files are an error that lists them; formats that can contain code are refused."""
    with pytest.raises(kind) as caught:
        adapter_file(names, adapter("a", "t/a", "t/sd", weight_name=wanted))
    assert told in f"{caught.value} {caught.value.hint}"


def test_the_usual_file_needs_no_name() -> None:
    """The only file is used, or the one that diffusers itself writes."""
    who = adapter("a", "t/a", "t/sd")
    assert adapter_file(["README.md", "only.safetensors"], who) == "only.safetensors"
    assert adapter_file(["a.safetensors", USUAL_NAME], who) == USUAL_NAME


def test_a_folder_without_the_file_is_an_error(online: Settings, tiny_sd: Path, crowd: Path, loras: Path) -> None:
    """The same holds for a folder: several files without a name, or a missing file, are errors."""
    cache = ModelCache(online)
    with pytest.raises(PullError, match="does not name one"):
        touch(cache, BACKEND, adapter("a", crowd, tiny_sd))
    with pytest.raises(PullError, match=r"no file x\.safetensors"):
        touch(cache, BACKEND, adapter("a", loras / "ink", tiny_sd, weight_name="x.safetensors"))
    assert cache.puller.on_disk(adapter("a", crowd, tiny_sd)) is None


def test_a_backend_without_adapters_says_so(settings: Settings, tiny_sd: Path, loras: Path) -> None:
    """A backend of a third party may not support adapters."""

    class Plain:
        """Draws with checkpoints alone."""

        load, draw, components, files, prepare = (
            getattr(BACKEND, name) for name in ("load", "draw", "components", "files", "prepare")
        )

    with pytest.raises(LoadError, match="takes none"):
        touch(ModelCache(settings), Plain(), adapter("a", loras / "ink", tiny_sd))
