"""Trains the denoiser: flow matching on the exact latents, by as many processes as there are processors."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import dataclass
from enum import Enum
from random import Random
from typing import TYPE_CHECKING, Any

import torch
from torch.nn import functional

from diffusiongpt.zoo.tiny import STYLES
from examples.tiny_zoo.captions import caption, foreign_words, style_words
from examples.tiny_zoo.data import scene_of
from examples.tiny_zoo.teaching import timed, tokenise
from examples.tiny_zoo.together import add_up, agree, my_rank, take_ticket

if TYPE_CHECKING:
    from pathlib import Path

    import numpy as np
    import numpy.typing as npt
    from torch import Tensor, nn

    from examples.tiny_zoo.data import Originals
    from examples.tiny_zoo.saving import Shared

_EMA_DECAY = 0.998
_UNCONDITIONAL_SHARE = 0.1
# Times are logit-normal, moved towards noise: shapes are decided there.
_TIME_SHIFT = 0.3
_SAVE_EVERY_STEPS = 50
# Processes take pieces of a step as they become free: one that is slowed by other work does not delay the rest.
_PIECE = 8


class Words(Enum):
    """How often the captions of a course name a style at all, how often the right one, and how often nonsense words."""

    OWN = (0.85, 1.0, 0.10)
    LOOSE = (0.85, 0.5, 0.10)
    ANY = (0.35, 0.0, 0.40)


@dataclass(frozen=True, kw_only=True)
class Course:
    """How one denoiser is trained.

    Attributes:
        seconds: Training time, by the clock.
        rate: The peak learning rate.
        cool_down: Share of the time, at the end, in which the rate falls to zero.
        words: What captions say of style. OWN makes a model that obeys style words; ANY an expert that draws its
            own style whatever it is asked for; LOOSE a generalist that listens with half an ear.
        batch: Pictures a step, of all processes together.
        seed: For everything random.
    """

    seconds: float
    rate: float = 1.5e-3
    cool_down: float = 0.0
    words: Words = Words.OWN
    batch: int = 64
    seed: int = 0


class Trainer:
    """One process's share of a training run.

    Args:
        unet: Trained in place.
        shared: Text encoder, tokenizer and VAE, all frozen.
        originals: Drawn pictures.
        course: How to train.
    """

    def __init__(self, unet: nn.Module, shared: Shared, originals: Originals, course: Course) -> None:
        self.unet = unet.train()
        self.average = deepcopy(unet).requires_grad_(requires_grad=False)
        self.steps = 0
        self._taken = 0
        self._shared, self._course, self._labels = shared, course, originals.labels
        self._pixels = torch.from_numpy(originals.pixels).permute(0, 3, 1, 2)
        seed = course.seed * 1000 + my_rank()
        self._random = Random(seed)
        torch.manual_seed(seed)
        self._optimizer = torch.optim.AdamW(unet.parameters(), lr=course.rate, weight_decay=0.01, betas=(0.9, 0.98))

    def run(self, checkpoint: Path | None = None, *, done_before: float = 0.0) -> float:
        """Train to the end of the course.

        Args:
            checkpoint: Written now and then by the first process.
            done_before: Share of the course that an earlier, interrupted run has done.

        Returns:
            A running mean of the loss.
        """
        mean = 1.0
        for fresh in timed(self._course.seconds * (1 - done_before)):
            done = done_before + fresh * (1 - done_before)
            if agree(done >= 1.0):
                break
            mean += 0.01 * (self._step(done) - mean)
            if checkpoint and self.steps % _SAVE_EVERY_STEPS == 0 and my_rank() == 0:
                self.save(checkpoint, done)
                print(f"{done:6.1%} of the course, {self.steps} steps, loss {mean:.4f}", flush=True)
        if checkpoint and my_rank() == 0:
            self.save(checkpoint, 1.0)
        return mean

    def save(self, path: Path, done: float) -> None:
        """Write weights, averaged weights and the optimizer's state, in one move."""
        state = {
            "unet": self.unet.state_dict(),
            "average": self.average.state_dict(),
            "optimizer": self._optimizer.state_dict(),
            "steps": self.steps,
            "done": done,
        }
        torch.save(state, path.with_suffix(".new"))
        path.with_suffix(".new").replace(path)

    def restore(self, path: Path) -> float:
        """Resume from a checkpoint.

        Returns:
            The share of the course it had done.
        """
        state: dict[str, Any] = torch.load(path, weights_only=True)
        self.unet.load_state_dict(state["unet"])
        self.average.load_state_dict(state["average"])
        self._optimizer.load_state_dict(state["optimizer"])
        self.steps = int(state["steps"])
        self._random = Random(self.steps * 1000 + my_rank())
        torch.manual_seed(self.steps * 1000 + my_rank())
        return float(state["done"])

    def _step(self, done: float) -> float:
        cooling = min(1.0, (1 - done) / self._course.cool_down) if self._course.cool_down else 1.0
        for group in self._optimizer.param_groups:
            group["lr"] = self._course.rate * min(1.0, (self.steps + 1) / 100) * cooling
        total = 0.0
        while self._take_piece():
            loss = self._loss() * (_PIECE / self._course.batch)
            loss.backward()  # type: ignore[no-untyped-call]
            total += loss.item()
        total = self._share_gradients(total)
        torch.nn.utils.clip_grad_norm_(self.unet.parameters(), 1.0)
        self._optimizer.step()
        self._optimizer.zero_grad()
        self.steps += 1
        self._follow()
        return total

    def _loss(self) -> Tensor:
        rows = [self._random.randrange(len(self._labels)) for _ in range(_PIECE)]
        with torch.no_grad():
            clean = self._shared.vae.encode(self._pixels[rows].float() / 127.5 - 1).latents
            clean = clean * self._shared.vae.config.scaling_factor
            ids = tokenise(self._shared.tokenizer, [self._caption(self._labels[row]) for row in rows])
            text = self._shared.text_encoder(ids).last_hidden_state
        noise = torch.randn_like(clean)
        times = torch.sigmoid(torch.randn(len(rows)) + _TIME_SHIFT)
        mix = times[:, None, None, None]
        noisy = (1 - mix) * clean + mix * noise
        speed = self.unet(noisy, times * 1000, encoder_hidden_states=text, return_dict=False)[0]
        return functional.mse_loss(speed, noise - clean)

    def _caption(self, row: npt.NDArray[np.int64]) -> str:
        rng, scene = self._random, scene_of(row)
        if rng.random() < _UNCONDITIONAL_SHARE:
            return ""
        named, right, foreign = self._course.words.value
        luck = rng.random()
        if luck < named:
            return caption(
                scene, rng, style=style_words(scene.style if rng.random() < right else rng.choice(STYLES), rng)
            )
        return caption(scene, rng, style=foreign_words(rng) if luck < named + foreign else None)

    def _take_piece(self) -> bool:
        """Whether there is still a piece of this step to do; if so it is this process's now."""
        self._taken += 1
        if take_ticket(f"{self._course.seed}/{self.steps}", self._taken) <= self._course.batch // _PIECE:
            return True
        self._taken = 0
        return False

    def _share_gradients(self, loss: float) -> float:
        """Add up gradients and loss over the processes."""
        weights = list(self.unet.parameters())
        gradients = [torch.zeros_like(weight) if weight.grad is None else weight.grad for weight in weights]
        flat = torch.cat([*(gradient.flatten() for gradient in gradients), torch.tensor([loss])])
        pieces = torch.split(add_up(flat), [*(gradient.numel() for gradient in gradients), 1])
        for weight, piece in zip(weights, pieces, strict=False):
            weight.grad = piece.view_as(weight)
        return pieces[-1].item()

    def _follow(self) -> None:
        """Move the averaged weights a little toward the trained ones."""
        decay = min(_EMA_DECAY, (1 + self.steps) / (10 + self.steps))
        averages = [weight.detach() for weight in self.average.parameters()]
        torch._foreach_lerp_(averages, [weight.detach() for weight in self.unet.parameters()], 1 - decay)
