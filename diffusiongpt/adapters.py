"""Adapters find their bases: what a zoo knows of a checkpoint holds for the adapters on it."""

from __future__ import annotations

from collections.abc import Mapping

from diffusiongpt.errors import ZooError
from diffusiongpt.expert import Expert


def on_their_bases(experts: Mapping[str, Expert]) -> dict[str, Expert]:
    """The experts of a zoo, each adapter put on the first checkpoint with the repository or folder of its base.

    An adapter whose base is no expert of the zoo stays as it is: its base is pulled all the same, and nothing more is
    known about it.

    Raises:
        ZooError: If a base is itself an adapter.
    """
    checkpoints: dict[tuple[str, str], Expert] = {}
    adapters: dict[tuple[str, str], Expert] = {}
    for expert in experts.values():
        (checkpoints if expert.kind == "checkpoint" else adapters).setdefault(_place(expert), expert)
    return {name: _on_its_base(expert, checkpoints, adapters) for name, expert in experts.items()}


def _on_its_base(
    expert: Expert, checkpoints: Mapping[tuple[str, str], Expert], adapters: Mapping[tuple[str, str], Expert]
) -> Expert:
    base = expert.base_expert
    if base is None:
        return expert
    place = _place(base)
    if place in checkpoints:
        return expert.on(checkpoints[place])
    if place in adapters:
        other = adapters[place]
        raise ZooError(
            f"{expert.id}: base {expert.base!r} is itself an adapter, {other.id}",
            hint=f"An adapter goes on a whole checkpoint, such as the base of {other.id}: {other.base}.",
        )
    return expert


def _place(expert: Expert) -> tuple[str, str]:
    return expert.backend, str(expert.folder or expert.repo)
