"""Plans for a fleet of unlike replicas."""

from __future__ import annotations

from typing import Any

import pytest

from diffusiongpt.flow import MachineSpec
from diffusiongpt.placement import KindsPlanner, Planner, planned_for
from diffusiongpt.settings import Memory
from diffusiongpt.zoo import Expert

HERE = MachineSpec(device="cpu", device_bytes=64e9, host_bytes=64e9, flops=1e12)


def expert(name: str = "fox", **facts: Any) -> Expert:
    """A checkpoint of 6.6 GB."""
    said = {"architecture": "sdxl", "components": {"unet": 5.1, "text_encoder": 1.4, "vae": 0.2}, **facts}
    return Expert.model_validate({"id": name, "repo": "me/fox", **said})


def planners(**memory: str) -> KindsPlanner:
    """Plans for kinds of replicas of so much memory."""
    return KindsPlanner(
        {name: Planner(planned_for(Memory.parse(one), HERE), tiles=True) for name, one in memory.items()}
    )


def test_what_both_can_draw_is_planned_for_the_smaller() -> None:
    """The larger stays free for what fits only there; both are placements that name their kind."""
    plan = planners(large="80GB+200GB", small="24GB+64GB")(expert())
    assert [(one.kind, one.replica) for one in plan.placements[:2]] == [("whole", "small"), ("whole", "large")]


def test_a_better_way_on_a_larger_one_comes_first() -> None:
    """Whole there before offloaded here."""
    big = expert(components={"transformer": 24.0, "text_encoder": 9.5, "vae": 0.2}, architecture="flux")
    plan = planners(small="24GB+64GB", large="80GB+200GB")(big)
    assert plan.best is not None
    assert (plan.best.kind, plan.best.replica) == ("whole", "large")
    assert "small" in {one.replica for one in plan.placements}


def test_what_is_too_large_for_a_kind_never_goes_there() -> None:
    """In no way at all, with any size of picture."""
    huge = expert(components={"transformer": 60.0}, size_gb=None)
    both = planners(small="24GB+64GB", large="80GB+200GB")
    for pixels in (None, 512, 1024):
        plan = both(huge, width=pixels, height=pixels)
        assert {one.replica for one in plan.placements} == {"large"}
    assert both.why_not(huge) == ""
    assert both.unknown.replica == "large"


def test_what_is_too_large_for_all_says_so_of_each() -> None:
    """With the number that would change it."""
    huge = expert(components={"transformer": 600.0}, size_gb=None)
    both = planners(small="24GB+64GB", large="80GB+200GB")
    plan = both(huge)
    assert plan.placements == ()
    assert plan.sized
    for said in (plan.reason, both.why_not(huge), both.why_not_with(huge, 600_000_000_000)):
        assert "small: needs" in said
        assert "large: needs" in said
    unknown = expert(components={}, architecture="unheard-of")
    assert not both(unknown).sized
    # what is the same for all is said once
    assert both(unknown).reason.count("not known") == 1


@pytest.mark.parametrize("memory", ["24GB+64GB", "cpu"])
def test_one_kind_plans_as_a_machine_of_its_memory(memory: str) -> None:
    """But for the name."""
    alone = Planner(planned_for(Memory.parse(memory), HERE), tiles=True)
    named = planners(only=memory)
    for one in (expert(), expert(components={"unet": 30.0})):
        assert [p.model_copy(update={"replica": None}) for p in named(one).placements] == list(alone(one).placements)
        assert named.sizes(one) == alone.sizes(one)
        assert named(one).reason == alone(one).reason
