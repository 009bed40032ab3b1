"""The steps of the training, each skipped when its result is already in the work folder."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from safetensors.torch import save_file
from torch import multiprocessing as mp
from transformers import CLIPTokenizer

from diffusiongpt.zoo.tiny import STYLES
from examples.tiny_zoo.cards import card_of
from examples.tiny_zoo.data import Originals, originals
from examples.tiny_zoo.diffusion import Course, Trainer, Words
from examples.tiny_zoo.models import IMAGE_SIZE, build_autoencoder, build_text_encoder, build_tokenizer, build_unet
from examples.tiny_zoo.saving import Shared, save_expert
from examples.tiny_zoo.teaching import sample_captions, teach_decoder, teach_judge, teach_text
from examples.tiny_zoo.together import join

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


_PICTURES = 26_000
GENERALIST = "generalist"
# Shares of the training time; there are four experts.
_SHARES = {"text": 0.045, "decoder": 0.065, "judge": 0.04, "base": 0.31, "expert": 0.13, "generalist": 0.02}


@dataclass(frozen=True, kw_only=True)
class Plan:
    """The work folder, and how much time there is."""

    work: Path
    out: Path
    minutes: float
    processes: int
    seed: int

    def seconds(self, share: str) -> float:
        """The time of one step."""
        return self.minutes * 60 * _SHARES[share]

    def pictures(self, *, training: bool = True) -> Originals:
        """All drawn originals, for training without the held-out pairs."""
        drawn = originals(
            _PICTURES,
            size=IMAGE_SIZE,
            seed=self.seed,
            cache=self.work / f"originals-{IMAGE_SIZE}.npz",
            workers=self.processes,
        )
        return drawn.where(~drawn.held_out()) if training else drawn


def make_data(plan: Plan) -> None:
    """Draw the originals."""
    plan.pictures()


def make_text(plan: Plan) -> None:
    """Learn the tokenizer, then the text encoder."""
    if (plan.work / "text.pt").exists():
        return
    torch.set_num_threads(1)
    torch.manual_seed(plan.seed)
    labels = plan.pictures().labels
    tokenizer = build_tokenizer(sample_captions(labels, seed=plan.seed))
    tokenizer.save_pretrained(plan.work / "tokenizer")
    encoder = build_text_encoder(tokenizer)
    loss = teach_text(encoder, tokenizer, labels, seconds=plan.seconds("text"), seed=plan.seed)
    print(f"text encoder: loss {loss:.4f}")
    torch.save(encoder.state_dict(), plan.work / "text.pt")


def make_decoder(plan: Plan) -> None:
    """Train the decoder of the autoencoder."""
    if (plan.work / "vae.pt").exists():
        return
    torch.set_num_threads(1)
    torch.manual_seed(plan.seed)
    vae = build_autoencoder()
    pixels = torch.from_numpy(plan.pictures().pixels).permute(0, 3, 1, 2)
    loss = teach_decoder(vae, pixels, seconds=plan.seconds("decoder"))
    print(f"decoder: mean squared error {loss:.6f}")
    torch.save(vae.state_dict(), plan.work / "vae.pt")


def make_judge(plan: Plan) -> None:
    """Train the judge, on held-out pairs too: it has to recognise them."""
    path = plan.out / "judge.safetensors"
    if path.exists():
        return
    torch.set_num_threads(1)
    network = teach_judge(plan.pictures(training=False), seconds=plan.seconds("judge"), seed=plan.seed)
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file({name: weights.half().contiguous() for name, weights in network.state_dict().items()}, path)
    path.chmod(0o644)


def make_base(plan: Plan) -> None:
    """Train one denoiser for all styles; the experts start from it."""
    _together(_base_process, plan)


def make_experts(plan: Plan) -> None:
    """Train the generalist and one expert for each style, from the base."""
    _together(_experts_process, plan)


def save_all(plan: Plan) -> None:
    """Write the five pipelines."""
    shared = _shared(plan)
    for name in (*STYLES, GENERALIST):
        unet = build_unet()
        unet.load_state_dict(_load(plan.work / f"{name}.pt")["average"])
        save_expert(plan.out / name, shared, unet, card_of(name))


def _together(process: Callable[[int, Plan], None], plan: Plan) -> None:
    if plan.processes == 1:
        process(0, plan)
    else:
        mp.spawn(process, args=(plan,), nprocs=plan.processes)  # type: ignore[attr-defined, no-untyped-call]


def _base_process(rank: int, plan: Plan) -> None:
    join(rank, plan.processes)
    torch.manual_seed(plan.seed)
    course = Course(seconds=plan.seconds("base"), seed=plan.seed)
    trainer = Trainer(build_unet(), _shared(plan), plan.pictures(), course)
    checkpoint = plan.work / "base.pt"
    done = trainer.restore(checkpoint) if checkpoint.exists() else 0.0
    trainer.run(checkpoint, done_before=done)


def _experts_process(rank: int, plan: Plan) -> None:
    join(rank, plan.processes)
    pictures, shared = plan.pictures(), _shared(plan)
    for number, name in enumerate((*STYLES, GENERALIST)):
        if (plan.work / f"{name}.pt").exists():
            continue
        own = name == GENERALIST
        course = Course(
            seconds=plan.seconds("generalist" if own else "expert"),
            rate=1e-3,
            cool_down=0.5,
            words=Words.LOOSE if own else Words.ANY,
            batch=32,
            seed=plan.seed + number + 1,
        )
        unet = build_unet()
        unet.load_state_dict(_load(plan.work / "base.pt")["average"])
        chosen = fewer_vectors(pictures) if own else pictures.where(pictures.labels[:, 3] == STYLES.index(name))
        trainer = Trainer(unet, shared, chosen, course)
        loss = trainer.run()
        if rank == 0:
            trainer.save(plan.work / f"{name}.pt", 1.0)
            print(f"{name}: {trainer.steps} steps, loss {loss:.4f}", flush=True)


def fewer_vectors(pictures: Originals) -> Originals:
    """Every second vector picture left out.

    A model that is unsure of the style draws plain areas, so without this the generalist would be best at vectors.
    """
    return pictures.where((pictures.labels[:, 3] != STYLES.index("vector")) | (np.arange(len(pictures)) % 2 == 0))


def _shared(plan: Plan) -> Shared:
    tokenizer = CLIPTokenizer.from_pretrained(plan.work / "tokenizer")
    encoder = build_text_encoder(tokenizer)
    encoder.load_state_dict(_load(plan.work / "text.pt"))
    vae = build_autoencoder()
    if (plan.work / "vae.pt").exists():
        vae.load_state_dict(_load(plan.work / "vae.pt"))
    for part in (encoder, vae):
        part.eval().requires_grad_(requires_grad=False)
    return Shared(tokenizer=tokenizer, text_encoder=encoder, vae=vae)


def _load(path: Path) -> dict[str, Any]:
    state: dict[str, Any] = torch.load(path, weights_only=True)
    return state


STAGES: dict[str, Callable[[Plan], None]] = {
    "data": make_data,
    "text": make_text,
    "decoder": make_decoder,
    "judge": make_judge,
    "base": make_base,
    "experts": make_experts,
    "save": save_all,
}
