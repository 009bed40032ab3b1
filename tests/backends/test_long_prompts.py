"""Prompts beyond the window of CLIP: read to the end in windows where compel is there, else reported; never lost.

Also which layer of an encoder is read, since the two meet.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from fixtures_diffusers import BACKEND, ask, pixels
from miniature import expert
from miniatures import make_miniature

from diffusiongpt.hub import names_in

if TYPE_CHECKING:
    from pathlib import Path

    from diffusiongpt.backends import Loaded
    from diffusiongpt.flow import Call, Drawing
    from diffusiongpt.zoo import Expert

LONG = "a red fox (with a hat) + more, " * 6
"""More than the 24 tokens of a miniature, with signs that compel would take for weights."""


@pytest.fixture(scope="module", params=["sd15", "sdxl"])
def clip(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Loaded, Expert]:
    """A model that reads by CLIP, alone or in pairs."""
    folder: Path = make_miniature(request.param, tmp_path_factory.mktemp(request.param) / "model")
    who = expert(folder).model_copy(update={"architecture": request.param})
    return BACKEND.load(who, folder, names_in(folder), device="cpu", have={}), who


def draw(clip: tuple[Loaded, Expert], prompt: str, negative: str = "", **arguments: Any) -> Drawing:
    """A picture of a prompt."""
    loaded, who = clip
    call: Call = replace(ask(who, **arguments), prompt=prompt, negative_prompt=negative)
    return BACKEND.draw(loaded, call)


def test_the_end_of_a_long_prompt_is_drawn(clip: tuple[Loaded, Expert]) -> None:
    """Two prompts that differ beyond the window give two pictures, and nothing is reported as lost."""
    one, other = draw(clip, f"{LONG} blue sky"), draw(clip, f"{LONG} green tree")
    assert pixels(one) != pixels(other)
    assert one.dropped == other.dropped == ()
    assert pixels(draw(clip, f"{LONG} blue sky")) == pixels(one)
    assert "prompt_embeds" not in one.params


def test_the_end_of_a_long_negative_prompt_counts(clip: tuple[Loaded, Expert]) -> None:
    """The same for the negative prompt, next to a short one."""
    one, other = draw(clip, "a fox", f"{LONG} blue sky"), draw(clip, "a fox", f"{LONG} green tree")
    assert pixels(one) != pixels(other)
    assert one.dropped == other.dropped == ()


def test_short_prompts_are_drawn_as_without_compel(
    clip: tuple[Loaded, Expert], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What fits into one window goes to the pipeline as it is, so that its pictures do not depend on an extra."""
    with_it = pixels(draw(clip, "a fox", "rain"))
    monkeypatch.setattr("diffusiongpt.backends.diffusers.windows.installed", lambda: False)
    assert pixels(draw(clip, "a fox", "rain")) == with_it


def test_without_compel_both_ends_are_reported(clip: tuple[Loaded, Expert], monkeypatch: pytest.MonkeyPatch) -> None:
    """The lost ends of both prompts are in `dropped`, with what would read them."""
    monkeypatch.setattr("diffusiongpt.backends.diffusers.windows.installed", lambda: False)
    lost = {one.name: one for one in draw(clip, f"{LONG} blue sky", f"{LONG} green tree").dropped}
    assert set(lost) == {"prompt", "negative_prompt"}
    assert str(lost["prompt"].value).endswith("blue sky")
    assert str(lost["negative_prompt"].value).endswith("green tree")
    assert "diffusiongpt[long-prompts]" in lost["prompt"].reason


def test_layers_that_a_call_skips_stay_skipped(clip: tuple[Loaded, Expert], monkeypatch: pytest.MonkeyPatch) -> None:
    """Windows would not follow `clip_skip`, so the picture is that without them, and the lost end is reported."""
    made = draw(clip, f"{LONG} blue sky", clip_skip=1)
    assert [one.name for one in made.dropped] == ["prompt"]
    assert "long-prompts" not in made.dropped[0].reason
    monkeypatch.setattr("diffusiongpt.backends.diffusers.windows.installed", lambda: False)
    assert pixels(draw(clip, f"{LONG} blue sky", clip_skip=1)) == pixels(made)
    assert pixels(draw(clip, f"{LONG} blue sky")) != pixels(made)


def test_a_negative_prompt_that_is_not_passed_is_not_cut(clip: tuple[Loaded, Expert]) -> None:
    """Without guidance the negative prompt has no effect, whatever its length."""
    assert pixels(draw(clip, "a fox", f"{LONG} blue", guidance_scale=1.0)) == pixels(
        draw(clip, "a fox", guidance_scale=1.0)
    )


def test_layers_are_skipped_as_asked(tiny_sd: Path, sd: Loaded) -> None:
    """`clip_skip` takes the output of an earlier layer, normalised, and leaves nothing on the encoder."""
    import torch

    pipe, who = sd.model.pipe, expert(tiny_sd)
    made = pixels(BACKEND.draw(sd, ask(who, clip_skip=1)))
    assert "text_model" not in vars(pipe.text_encoder)
    call = ask(who)
    ids = pipe.tokenizer(call.prompt, padding="max_length", return_tensors="pt").input_ids
    with torch.inference_mode():
        earlier = pipe.text_encoder(ids, output_hidden_states=True).hidden_states[-2]
        embedded = pipe.text_encoder.final_layer_norm(earlier)
    skipped = ask(who, prompt_embeds=embedded)
    with BACKEND.opened(sd) as own:
        picture = own(generator=torch.Generator().manual_seed(7), **skipped.arguments).images[0]
    assert made == [picture.tobytes()] != pixels(BACKEND.draw(sd, call))
