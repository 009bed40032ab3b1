"""Several adapters at once with their weights, and words that a text encoder learns; none leaves a trace."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import torch
from fixtures_adapters import adapter, family
from fixtures_cache import Counting
from fixtures_diffusers import BACKEND, ask, pixels
from safetensors.torch import save_file

from diffusiongpt.cache import ModelCache
from diffusiongpt.errors import LoadError, ZooError
from diffusiongpt.hub import USUAL_NAME, Puller
from diffusiongpt.testing import LocalHub
from diffusiongpt.zoo import Expert, Guest, parse_zoo_text

if TYPE_CHECKING:
    from diffusiongpt.settings import Settings

WIDTH = 16
"""Width of the text encoder of the miniature."""


def drawn(cache: ModelCache, who: Expert, backend: Any = BACKEND, **asked: Any) -> bytes:
    """What an expert draws when leased from a cache."""
    with cache.lease(who, backend, device="cpu") as loaded:
        return pixels(BACKEND.draw(loaded, ask(who, **asked)))[0]


def directly(base: Path, scales: dict[Path, float]) -> bytes:
    """What diffusers draws with the same adapters at the same strengths."""
    from diffusers import StableDiffusionPipeline

    from diffusiongpt.backends.diffusers import quiet_construction

    with quiet_construction():
        pipe = StableDiffusionPipeline.from_pretrained(base, use_safetensors=True)
        names = [f"a{at}" for at in range(len(scales))]
        for name, folder in zip(names, scales, strict=True):
            pipe.load_lora_weights(folder, adapter_name=name, weight_name=USUAL_NAME)
        pipe.set_adapters(names, [*scales.values()])
    pipe.set_progress_bar_config(disable=True)
    call = ask(adapter("x", base, base))
    made = pipe(call.prompt, generator=torch.Generator().manual_seed(7), **call.arguments)
    return bytes(made.images[0].tobytes())


@pytest.mark.parametrize(("first", "second"), [(1.0, 1.0), (0.5, -0.75), (-1.0, 0.25)])
def test_two_draw_together(settings: Settings, tiny_sd: Path, loras: Path, first: float, second: float) -> None:
    """The picture is that of diffusers with both at their strengths, also below zero, whatever drew before."""
    both = adapter(
        "both", loras / "ink", tiny_sd, scale=first, adapters=(Guest(repo=str(loras / "toy"), scale=second),)
    )
    plain, ink, toy = family(tiny_sd, loras / "ink", loras / "toy")
    cache, backend = ModelCache(settings), Counting()
    alone = [drawn(cache, who, backend) for who in (plain, ink, toy)]
    picture = drawn(cache, both, backend)
    assert picture == directly(tiny_sd, {loras / "toy": second, loras / "ink": first})
    assert picture not in alone
    assert [drawn(cache, who, backend) for who in (plain, ink, toy)] == alone
    assert drawn(cache, both, backend) == picture
    assert backend.loads == ["plain"]
    # each adapter is there once, for whichever experts draw with it
    assert len(cache.explain().residents) == 3 + 2
    assert cache.is_loaded(both, device="cpu")
    cache.close()


def test_all_of_them_are_pulled(settings: Settings, tiny_sd: Path, loras: Path) -> None:
    """Base and adapters come from their repositories, and one that is missing is an error with its name."""
    with LocalHub({"t/sd": tiny_sd, "t/ink": loras / "ink", "t/toy": loras / "toy"}) as hub:
        puller = Puller(settings.model_copy(update={"hub_endpoint": hub.url}))
        who = adapter("both", "t/ink", "t/sd", adapters=(Guest(repo="t/toy"),))
        puller.ensure(who, BACKEND)
        assert [record.repo for record in puller.pulled()] == ["t/sd", "t/toy", "t/ink"]
        found = puller.find(who, BACKEND)
        assert found is not None
        assert len(found.chain) == 3
        lacking = adapter("lacking", "t/ink", "t/sd", adapters=(Guest(repo="t/none"),))
        with pytest.raises(Exception, match="t/none"):
            puller.ensure(lacking, BACKEND)


def test_one_that_does_not_fit_is_named(settings: Settings, tiny_sd: Path, loras: Path, tmp_path: Path) -> None:
    """The others come off again, and the base draws as before."""
    save_file({"unet.nowhere.lora_A.weight": torch.zeros(4, 8), "unet.nowhere.lora_B.weight": torch.zeros(8, 4)},
              tmp_path / "bad.safetensors")  # fmt: skip
    plain, _, _ = family(tiny_sd, loras / "ink", loras / "toy")
    cache = ModelCache(settings)
    before = drawn(cache, plain)
    who = adapter("both", loras / "ink", tiny_sd, adapters=(Guest(repo=str(tmp_path / "bad.safetensors")),))
    with pytest.raises(LoadError, match=r"unet\.nowhere"):
        drawn(cache, who)
    assert drawn(cache, plain) == before
    cache.close()


def test_what_an_entry_may_not_say() -> None:
    """A strength of zero, an unsafe file and adapters of a checkpoint are mistakes with their line."""
    head = "experts:\n  - {id: a, repo: o/a, kind: adapter, base: o/b, adapters: [%s]}"
    for entry, what in (
        ("{repo: o/c, scale: 0}", "would change nothing"),
        ("{repo: o/c, scale: 9}", "less than or equal to 4"),
        ("{repo: o/c, weight_name: c.ckpt}", "pattern"),
        ("{repo: c}", "neither owner/name"),
        ("{repo: o/c, wait: 1}", "unknown key"),
    ):
        with pytest.raises(ZooError, match=what):
            parse_zoo_text(head % entry, Path("zoo.yaml"))
    with pytest.raises(ZooError, match="'adapters'"):
        parse_zoo_text("experts: [{id: a, repo: o/a, adapters: [{repo: o/c}]}]", Path("zoo.yaml"))


def embedding(folder: Path, name: str, key: str | None = None, *, rows: int = 2, width: int = WIDTH) -> Path:
    """A textual inversion of random vectors; under `key` as diffusers writes it, or as other tools do."""
    torch.manual_seed(rows)
    save_file({key or "emb_params": torch.randn(rows, width)}, folder / f"{name}.safetensors")
    return folder / f"{name}.safetensors"


def promising(folder: Path, name: str, shape: list[int]) -> Path:
    """A file whose header promises gigabytes, and which has no blocks on the disk."""
    nbytes = 4 * shape[0] * shape[1]
    header = json.dumps({"emb_params": {"dtype": "F32", "shape": shape, "data_offsets": [0, nbytes]}}).encode()
    with (folder / f"{name}.safetensors").open("wb") as stream:
        stream.write(len(header).to_bytes(8, "little") + header)
        stream.truncate(8 + len(header) + nbytes)
    return folder / f"{name}.safetensors"


def test_a_word_is_learnt(settings: Settings, tiny_sd: Path, loras: Path, tmp_path: Path) -> None:
    """Its vectors stand for the word exactly as diffusers has it, and the base does not know the word afterwards."""
    file = embedding(tmp_path, "<cat-toy>", "<cat-toy>")
    who = adapter("toy", file, tiny_sd)
    plain, ink, _ = family(tiny_sd, loras / "ink", loras / "toy")
    cache = ModelCache(settings)
    with cache.lease(plain, BACKEND, device="cpu") as loaded:
        encoder, tokenizer = loaded.model.pipe.text_encoder, loaded.model.pipe.tokenizer
        table, words = encoder.get_input_embeddings(), len(tokenizer)
    before = drawn(cache, plain)
    assert drawn(cache, who) == before  # the prompt does not have the word

    def with_word(one: Expert) -> bytes:
        with cache.lease(one, BACKEND, device="cpu") as held:
            return pixels(BACKEND.draw(held, replace(ask(one), prompt="a <cat-toy>")))[0]

    learnt = with_word(who)
    assert learnt != with_word(plain)
    assert learnt == _diffusers_with(tiny_sd, file, "a <cat-toy>")
    assert drawn(cache, plain) == before
    assert encoder.get_input_embeddings() is table
    assert len(tokenizer) == words
    both = adapter("both", loras / "ink", tiny_sd, adapters=(Guest(repo=str(file)),))
    assert with_word(both) not in (learnt, with_word(ink))
    cache.close()


def _diffusers_with(base: Path, file: Path, prompt: str) -> bytes:
    from diffusers import StableDiffusionPipeline
    from safetensors.torch import load_file

    from diffusiongpt.backends.diffusers import quiet_construction

    with quiet_construction():
        pipe = StableDiffusionPipeline.from_pretrained(base, use_safetensors=True)
        pipe.load_textual_inversion(load_file(file))
    pipe.set_progress_bar_config(disable=True)
    call = ask(adapter("x", file, base))
    return bytes(pipe(prompt, generator=torch.Generator().manual_seed(7), **call.arguments).images[0].tobytes())


def test_an_embedding_of_another_model_is_refused(settings: Settings, tiny_sd: Path, tmp_path: Path) -> None:
    """Another width, another encoder, a word that is known, and numbers that are not finite: each with its cause."""
    torch.manual_seed(0)
    save_file({"clip_l": torch.randn(1, WIDTH), "clip_g": torch.randn(1, 32)}, tmp_path / "xl.safetensors")
    save_file({"emb_params": torch.full((1, WIDTH), torch.inf)}, tmp_path / "inf.safetensors")
    cases = {
        embedding(tmp_path, "wide", width=WIDTH * 2): "another width: 32, and it is 16",
        tmp_path / "xl.safetensors": "has none",
        tmp_path / "inf.safetensors": "not finite",
        embedding(tmp_path, "a"): "knows already",
        embedding(tmp_path, "a a"): "knows already",
        embedding(tmp_path, "blank", "  "): "is not a word",
        embedding(tmp_path, "steers", "\x1b[31m"): "is not a word",
        promising(tmp_path, "huge", [75, 4_000_000]): "another width",
        promising(tmp_path, "tall", [10_000_000, WIDTH]): "not a list of vectors",
        embedding(tmp_path, "long", rows=76): "not a list of vectors",
    }
    cache = ModelCache(settings)
    for file, what in cases.items():
        with pytest.raises(LoadError, match=what) as caught:
            drawn(cache, adapter("x", file, tiny_sd))
        assert caught.value.hint
    cache.close()
