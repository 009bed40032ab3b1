"""Numbers that are not finite never become a picture: decoded once more in float32, else an error."""

from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
import torch
from fixtures_diffusers import BACKEND, ask, pixels
from miniature import expert
from miniatures import make_miniature, miniature_settings
from miniatures._latent import autoencoder

from diffusiongpt.backends.diffusers import Finite
from diffusiongpt.errors import DrawError
from diffusiongpt.hub import names_in

if TYPE_CHECKING:
    from pathlib import Path

    from diffusiongpt.backends import Loaded


def spoil(loaded: Loaded, component: str) -> None:
    """Write what is not a number into the last weight of a component, on which all pixels depend."""
    part = loaded.model.pipe.components[component]
    weights = [tensor for name, tensor in part.named_parameters() if name.endswith(("weight", "bias"))]
    weights[-1].data.flatten()[0] = float("nan")


@pytest.mark.parametrize(
    ("architecture", "component"),
    [
        ("sd15", "unet"),
        ("sd15", "vae"),
        ("sd15", "text_encoder"),
        ("sdxl", "vae"),
        ("flux2-klein", "transformer"),
        ("qwen-image", "vae"),
        ("z-image", "vae"),
    ],
)
def test_one_number_that_is_none_is_an_error(tmp_path: Path, architecture: str, component: str) -> None:
    """In whichever component and family: no black picture, but an error that says what to do."""
    folder = make_miniature(architecture, tmp_path / "repo")
    settings = miniature_settings(architecture)
    who = expert(folder)
    loaded = BACKEND.load(who, folder, names_in(folder), device="cpu", have={})
    call = ask(who, width=settings.width, height=settings.height, **settings.extra)
    spoil(loaded, component)
    with pytest.raises(DrawError, match="not finite") as caught:
        BACKEND.draw(loaded, call)
    assert "float32" in caught.value.hint
    assert "decode" not in vars(loaded.model.pipe.components["vae"])


def test_what_overflows_in_16_bits_is_decoded_in_32(tiny_sd: Path) -> None:
    """The second decode is recorded, and leaves the very weights that there were."""
    vae = autoencoder().half().eval()
    vae.decoder.conv_out.weight.data.fill_(6e4)
    latents = torch.ones(1, 4, 4, 4, dtype=torch.float16)
    before = [tensor.data_ptr() for tensor in vae.parameters()]
    finite = Finite(expert(tiny_sd))
    pipe = SimpleNamespace(components={"vae": vae})
    with torch.inference_mode():
        assert not vae.decode(latents).sample.isfinite().all()
        with finite.checks(pipe):
            assert pipe.components["vae"].decode(latents).sample.isfinite().all()
    assert [one.step for one in finite.recovered] == ["float32"]
    assert [tensor.data_ptr() for tensor in vae.parameters()] == before
    assert vae.dtype == torch.float16


class Odd:
    """The result of a pipeline that is none."""

    def __init__(self, images: Any) -> None:
        self.images = images


@pytest.mark.parametrize("result", [None, (), Odd(None), Odd([]), Odd([[1, 2]]), Odd("text"), object()])
def test_a_result_without_a_picture_is_an_error(
    sd: Loaded, tiny_sd: Path, monkeypatch: pytest.MonkeyPatch, result: Any
) -> None:
    """A pipeline may return anything; what is not a picture is named."""
    strange = type("Strange", (type(sd.model.pipe),), {"__call__": lambda *_, prompt, generator: result})  # noqa: ARG005
    monkeypatch.setattr(sd.model.pipe, "__class__", strange)
    with pytest.raises(DrawError, match="without a picture"):
        BACKEND.draw(sd, ask(expert(tiny_sd)))


def test_checks_change_no_picture(sd: Loaded, tiny_sd: Path) -> None:
    """With checks, a good picture is the one that the pipeline draws without them."""
    who = expert(tiny_sd)
    drawn = pixels(BACKEND.draw(sd, ask(who)))
    with BACKEND.opened(sd) as pipe:
        alone = pipe(
            "a red fox", generator=torch.Generator("cpu").manual_seed(7), num_inference_steps=2, width=32, height=32
        ).images[0]
    assert drawn == [alone.tobytes()]
