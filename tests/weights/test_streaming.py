"""A module computes on a device while its layers come from the host one group after another."""

from __future__ import annotations

import copy
import weakref
from typing import TYPE_CHECKING, Any

import pytest
import torch

from diffusiongpt.errors import LoadError, OutOfMemoryError
from diffusiongpt.weights import Weights, send

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

OTHER = "cpu:1"
LAYERS = 10


class Model(torch.nn.Module):
    """Layers of one size between a table and a projection, tied to each other; the table is larger than a layer."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = torch.nn.Embedding(2000, 8)
        self.layers = torch.nn.ModuleList(torch.nn.Linear(8, 8) for _ in range(LAYERS))
        self.norm = torch.nn.LayerNorm(8)
        self.head = torch.nn.Linear(8, 2000, bias=False)
        self.order = list(range(LAYERS))

    def forward(self, numbers: torch.Tensor) -> torch.Tensor:
        """Through the layers, in the order that was set."""
        hidden = self.embed(numbers)
        for index in self.order:
            hidden = hidden + torch.tanh(self.layers[index](hidden))
        return self.head(self.norm(hidden))


class Link:
    """Copies as `send` does, and knows how many bytes are on the device and what was sent."""

    def __init__(self, room: int = 1 << 30) -> None:
        self.room = room
        self.most = 0
        self.sent: list[int] = []
        self._alive: list[weakref.ref[Any]] = []

    def send(self, host: Any, pieces: Sequence[tuple[int, int]], device: str) -> tuple[list[Any], Callable[[], None]]:
        """Copy, or run out of memory."""
        wanted = sum(stop - start for start, stop in pieces)
        if self.nbytes + wanted > self.room:
            raise torch.OutOfMemoryError("CUDA out of memory")
        blocks, wait = send(host, pieces, device)
        self._alive += [weakref.ref(block) for block in blocks]
        self.sent.append(wanted)
        self.most = max(self.most, self.nbytes)
        return blocks, wait

    @property
    def nbytes(self) -> int:
        """Bytes that are on the device now."""
        return sum(block.nbytes for one in self._alive if (block := one()) is not None)


TABLE = 2000 * 8 * 4
LAYER = 8 * 8 * 4 + 8 * 4
NORM = 64 + 8 * 4
"""Bytes; the weight of the norm is filled up to the next boundary."""
SHARE = 0.005
"""Of the model, a little more than a layer."""


def packed(link: Link, *, tied: bool = False) -> tuple[Model, Weights]:
    """A model, and a copy of it in a block."""
    torch.manual_seed(0)
    model = Model().eval()
    if tied:
        model.head.weight = model.embed.weight
    return model, Weights.pack(copy.deepcopy(model), send=link.send)


def run(module: Any) -> torch.Tensor:
    """One pass, as pipelines make it."""
    with torch.inference_mode():
        result: torch.Tensor = module(torch.arange(5))
    return result


def test_at_most_two_groups_are_there_and_the_bits_are_the_same() -> None:
    """The one that computes and the one that comes, beside what stays; each comes once a pass; nothing is left."""
    link = Link()
    model, weights = packed(link, tied=True)
    weights.stream(OTHER, share=SHARE)
    stays = link.nbytes
    # the table is tied to the projection, so it cannot go, and neither can the norm
    assert stays == TABLE + NORM
    for _ in range(3):
        link.sent.clear()
        assert torch.equal(run(weights.on(OTHER)), run(model))
    assert len(link.sent) == LAYERS
    assert link.most == stays + 2 * LAYER
    weights.leave(OTHER)
    assert link.nbytes == 0
    assert weights.places == {"cpu"}
    weights.bring(OTHER)
    assert torch.equal(run(weights.on(OTHER)), run(model))


def test_a_table_that_nothing_shares_comes_by_itself() -> None:
    """Tables of embeddings are large and are read once a pass."""
    link = Link()
    model, weights = packed(link)
    weights.stream(OTHER, share=SHARE)
    assert link.nbytes == 2 * 64 + TABLE
    assert torch.equal(run(weights.on(OTHER)), run(model))


def test_large_layers_are_divided() -> None:
    """A layer above the limit does not come whole, but its parts do."""
    model = torch.nn.ModuleDict({"layers": torch.nn.ModuleList([Model(), Model()])})
    link = Link()
    weights = Weights.pack(copy.deepcopy(model), send=link.send)
    weights.stream(OTHER, share=SHARE)
    for index in range(2):
        assert torch.equal(run(weights.on(OTHER)["layers"][index]), run(model["layers"][index]))
    assert link.most < 3 * TABLE
    weights.leave(OTHER)
    assert link.nbytes == 0


def test_another_order_is_learnt() -> None:
    """What comes next is what came next the last time; a wrong guess costs a copy, not more room."""
    link = Link()
    model, weights = packed(link, tied=True)
    weights.stream(OTHER, share=SHARE)
    stays = link.nbytes
    module = weights.on(OTHER)
    module.order.reverse()
    model.order.reverse()
    for _ in range(3):
        link.sent.clear()
        assert torch.equal(run(module), run(model))
    assert len(link.sent) == LAYERS
    assert link.most == stays + 2 * LAYER


def test_a_type_that_was_set_before_a_group_came_is_kept() -> None:
    """Pipelines turn modules into another type while they are empty."""
    model, weights = packed(Link())
    weights.stream(OTHER, share=SHARE)
    module = weights.on(OTHER).to(torch.float64)
    for _ in range(2):
        assert torch.equal(run(module), run(copy.deepcopy(model).to(torch.float64)))
    weights.leave(OTHER)
    weights.bring(OTHER)
    assert torch.equal(run(weights.on(OTHER)), run(model))


def test_no_room_is_an_error_of_ours_and_leaves_nothing() -> None:
    """While placing what stays it is `OutOfMemoryError`; later torch's own, which drawing passes on as ours."""
    link = Link(room=100)
    model, weights = packed(link, tied=True)
    with pytest.raises(OutOfMemoryError):
        weights.stream(OTHER)
    assert (link.nbytes, weights.places) == (0, {"cpu"})
    link.room = TABLE + NORM + LAYER
    weights.stream(OTHER, share=SHARE)
    with pytest.raises(torch.OutOfMemoryError):
        run(weights.on(OTHER))
    weights.leave(OTHER)
    assert link.nbytes == 0
    link.room = 1 << 30
    weights.stream(OTHER)
    assert torch.equal(run(weights.on(OTHER)), run(model))


def test_without_a_copy_on_the_host_nothing_streams() -> None:
    """The groups come from the host's block."""
    _, weights = packed(Link())
    weights.bring(OTHER)
    weights.leave("cpu")
    with pytest.raises(LoadError):
        weights.stream("cpu:2")
