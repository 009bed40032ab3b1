"""Trains the small helpers: the text encoder, the autoencoder's decoder, and the judge."""

from __future__ import annotations

import math
import time
from random import Random
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from diffusiongpt.zoo.tiny import QUESTIONS, build_network, split_answers
from examples.tiny_zoo.captions import caption, foreign_words, style_words
from examples.tiny_zoo.data import Originals, scene_of
from examples.tiny_zoo.models import TEXT_LENGTH, TEXT_WIDTH

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    import numpy as np
    import numpy.typing as npt
    from transformers import CLIPTextModel, CLIPTokenizer

_UNSAID = -100  # cross_entropy's default label for "do not score this one"


def tokenise(tokenizer: CLIPTokenizer, texts: list[str]) -> Tensor:
    """Token ids as the stock pipeline makes them, shape (n, 48)."""
    ids: Tensor = tokenizer(
        texts, padding="max_length", max_length=TEXT_LENGTH, truncation=True, return_tensors="pt"
    ).input_ids
    return ids


def timed(seconds: float) -> Iterator[float]:
    """Count from 0 to 1 by the clock; the last value is 1."""
    start = time.monotonic()
    while (done := (time.monotonic() - start) / seconds) < 1:
        yield done
    yield 1.0


def fit(parameters: Iterable[nn.Parameter], loss: Callable[[], Tensor], *, seconds: float, rate: float) -> float:
    """Minimise a stochastic loss for a while with AdamW, the rate falling to zero.

    Returns:
        A running mean of the loss at the end.
    """
    chosen = list(parameters)
    optimizer = torch.optim.AdamW(chosen, lr=rate, weight_decay=0.01)
    mean = float("nan")
    for done in timed(seconds):
        for group in optimizer.param_groups:
            group["lr"] = rate * min(1.0, done * 30 + 0.02) * (1 - done) ** 0.8
        value = loss()
        value.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(chosen, 1.0)
        optimizer.step()
        optimizer.zero_grad()
        mean = value.item() if math.isnan(mean) else 0.98 * mean + 0.02 * value.item()
    return mean


def teach_text(
    encoder: CLIPTextModel,
    tokenizer: CLIPTokenizer,
    labels: npt.NDArray[np.int64],
    *,
    seconds: float,
    seed: int,
    batch: int = 96,
) -> float:
    """Train the text encoder to recognise what a caption asks for, in either language and among unrelated words.

    The style counts only where the caption names it in the captions' own words.
    """
    rng = Random(seed)
    widths = [len(names) for names in QUESTIONS.values()]
    heads = nn.Linear(2 * TEXT_WIDTH, sum(widths))

    def loss() -> Tensor:
        texts, wanted = [], []
        for row in labels[[rng.randrange(len(labels)) for _ in range(batch)]]:
            scene = scene_of(row)
            named = rng.random() < 0.5
            words = style_words(scene.style, rng) if named else foreign_words(rng) if rng.random() < 0.7 else None
            texts.append(caption(scene, rng, style=words))
            wanted.append([*row[:3], row[3] if named else _UNSAID])
        states = encoder(tokenise(tokenizer, texts)).last_hidden_state
        answers = split_answers(heads(torch.cat([states[:, -1], states.mean(dim=1)], dim=1)))
        targets = torch.tensor(wanted)
        return sum(
            (functional.cross_entropy(logits, targets[:, column]) for column, logits in enumerate(answers.values())),
            start=torch.zeros(()),
        )

    return fit([*encoder.parameters(), *heads.parameters()], loss, seconds=seconds, rate=2e-3)


def teach_decoder(vae: Any, pixels: Tensor, *, seconds: float, batch: int = 24, crop: int = 32) -> float:
    """Teach the decoder to undo the encoder's exact transform, on random crops of originals.

    Args:
        vae: An AutoencoderTiny; its decoder is trained.
        pixels: uint8, shape (n, 3, size, size).
        seconds: Time to take.
        batch: Crops a step.
        crop: Their side in pixels; even, so that 2x2 cells stay whole.

    Returns:
        The mean squared error at the end, for pixels from -1 to 1.
    """
    places = torch.Generator().manual_seed(0)

    def loss() -> Tensor:
        rows = torch.randint(len(pixels), (batch,), generator=places)
        top, left = (torch.randint((pixels.shape[-1] - crop) // 2 + 1, (2,), generator=places) * 2).tolist()
        cut = pixels[rows, :, top : top + crop, left : left + crop].float() / 127.5 - 1
        with torch.no_grad():
            latents = vae.encode(cut).latents
        # The denoiser's latents are never quite clean.
        latents = latents + 0.004 * torch.randn_like(latents)
        return functional.mse_loss(vae.decode(latents).sample, cut)

    return fit(vae.decoder.parameters(), loss, seconds=seconds, rate=3e-3)


def teach_judge(originals: Originals, *, seconds: float, seed: int, batch: int = 96) -> nn.Sequential:
    """Train the judge on drawn originals, shifted, blurred and noisy, never on generated pictures."""
    torch.manual_seed(seed)
    network = build_network()
    pixels = torch.from_numpy(originals.pixels).permute(0, 3, 1, 2)
    labels = torch.from_numpy(originals.labels)

    def loss() -> Tensor:
        rows = torch.randint(len(labels), (batch,))
        answers = split_answers(network(_disturbed(pixels[rows].float() / 127.5 - 1)))
        return sum(
            (
                functional.cross_entropy(logits, labels[rows, column], label_smoothing=0.02)
                for column, logits in enumerate(answers.values())
            ),
            start=torch.zeros(()),
        )

    fit(network.parameters(), loss, seconds=seconds, rate=2e-3)
    return network.eval()


def _disturbed(images: Tensor) -> Tensor:
    """A batch moved by up to three pixels, blurred one time in four, with noise of a random strength."""
    side = images.shape[-1]
    padded = functional.pad(images, (3, 3, 3, 3), mode="replicate")
    top, left = torch.randint(7, (2,)).tolist()
    moved = padded[..., top : top + side, left : left + side]
    if torch.rand(()) < 0.25:
        moved = functional.avg_pool2d(moved, 3, stride=1, padding=1, count_include_pad=False)
    return moved + torch.randn_like(moved) * torch.rand(len(moved), 1, 1, 1) * 0.12


def sample_captions(labels: npt.NDArray[np.int64], *, seed: int) -> list[str]:
    """A caption in the captions' own words for each row of labels: what the tokenizer is learnt from."""
    rng = Random(seed)
    scenes = [scene_of(row) for row in labels]
    return [caption(scene, rng, style=style_words(scene.style, rng)) for scene in scenes]
