"""What a prompt sets in the spelling of other tools, as far as one expert can follow it, and the rest by name."""

from __future__ import annotations

from diffusiongpt.flow import Dropped, Emphasis, Understanding
from diffusiongpt.zoo import Expert

MOST_SCALE = 4.0
"""Largest scale of an adapter, as in a zoo file."""


def scaled(expert: Expert, understanding: Understanding) -> Expert:
    """An adapter as strong as the prompt names it: `<lora:add_detail:0.6>`; any other expert as it is."""
    scale = next((one.scale for one in understanding.markup.adapters if expert.goes_by(one.name)), None)
    if scale is None or not 0 < abs(scale) <= MOST_SCALE:
        return expert
    return expert.model_copy(update={"settings": expert.settings.model_copy(update={"adapter_scale": scale})})


def not_followed(understanding: Understanding, expert: Expert) -> list[Dropped]:
    """What the prompt sets and this expert does not follow."""
    markup = understanding.markup
    dropped = [Dropped(name=one.name, value=one.value, reason=one.reason) for one in markup.unused]
    for one in markup.adapters:
        if not expert.goes_by(one.name):
            reason = f"{expert.id} does not use it; add it to the zoo as an adapter, and name it alone"
            dropped.append(Dropped(name="lora", value=one.name, reason=reason))
        elif not 0 < abs(one.scale) <= MOST_SCALE:
            reason = f"its usual scale is used: one is from -{MOST_SCALE:g} to {MOST_SCALE:g}, and not 0"
            dropped.append(Dropped(name="lora scale", value=one.scale, reason=reason))
    dropped += [_weight(one) for one in markup.emphasis]
    return dropped


def _weight(one: Emphasis) -> Dropped:
    return Dropped(name="weight", value=f"({one.words}:{one.weight:g})", reason="its words are drawn without a weight")
