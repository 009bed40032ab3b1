"""Needs with a way out: experts that meet them draw; where none does, the best effort does, and the route says so."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from fixtures_routing import expert, route, writer, zoo_of

from diffusiongpt.ranking import published

if TYPE_CHECKING:
    from pathlib import Path

GREY = writer("grey", color=False)
COUNTS = expert("counts", repo="Qwen/Qwen-Image", architecture="qwen-image")
KIN = expert("kin", repo="o/tuned", architecture="flux1")
OLD = expert("old", repo="stabilityai/stable-diffusion-xl-base-1.0", architecture="sdxl")
STRANGER = expert("stranger", repo="o/stranger", architecture="unheard-of")
NEED = "many objects in the number asked for"


@pytest.mark.parametrize("prompt", ["twelve red apples on a table", "a 4x4 grid of objects", "画八只猫"])
def test_many_objects_go_to_an_expert_that_counts(prompt: str, tmp_path: Path) -> None:
    """By its published figure or that of its family; what is not known counts as missing."""
    decided = route(prompt, zoo_of(OLD, STRANGER, COUNTS, KIN), tmp_path / "votes.db")
    assert {one.expert for one in decided.candidates} == {"counts", "kin"}
    assert {one.expert: one.reason for one in decided.rejected} == dict.fromkeys(
        ("old", "stranger"), f"not known to draw {NEED}"
    )
    assert decided.unmet == ()


@pytest.mark.parametrize("prompt", ["three apples", "apples on a table", "an apple"])
def test_a_few_objects_reject_nobody(prompt: str, tmp_path: Path) -> None:
    """Up to four objects all may draw."""
    assert not route(prompt, zoo_of(OLD, COUNTS), tmp_path / "votes.db").rejected


def test_where_none_counts_the_best_effort_draws(tmp_path: Path) -> None:
    """The need is reported as unmet, and said in the sentence."""
    decided = route("twelve red apples", zoo_of(OLD, STRANGER), tmp_path / "votes.db")
    assert decided.unmet == (NEED,)
    assert len(decided.candidates) == 2
    assert f"no expert here supports {NEED}" in decided.explain().replace("\n", " ")


def test_a_need_with_a_way_out_yields_to_those_without(tmp_path: Path) -> None:
    """An alpha channel comes by matting too, so that it rejects none of those that count or write."""
    alpha = expert("alpha", capabilities={"transparent_background": True}, repo="o/alpha", architecture="unheard-of")
    decided = route("a 4x4 grid of 16 objects, transparent background", zoo_of(alpha, COUNTS), tmp_path / "v.db")
    assert (decided.expert, decided.unmet, decided.matting) == ("counts", (), True)
    few = route("two objects, transparent background", zoo_of(alpha, COUNTS), tmp_path / "w.db")
    assert (few.expert, few.unmet, few.matting) == ("alpha", (), False)


def test_published_counts_part_old_models_from_new() -> None:
    """The figures are GenEval's; an adapter has those of its base."""
    on_old = expert("a", kind="adapter", base=OLD.repo, repo="o/lora", architecture="sdxl")
    on_new = expert("b", kind="adapter", base="Tongyi-MAI/Z-Image", repo="o/lora2", architecture="z-image")
    assert [published().counts(one) for one in (COUNTS, KIN, OLD, STRANGER, on_old, on_new)] == [
        True, True, False, False, False, True,
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("prompt", "unmet"),
    [
        ('a sign that says "ラーメン"', "Japanese text in the picture"),
        ('a sign that says "환영합니다"', "Korean text in the picture"),
        ('a poster that says "Привет"', "Cyrillic text in the picture"),
    ],
)
def test_text_in_a_script_that_no_expert_states_is_reported(prompt: str, unmet: str, tmp_path: Path) -> None:
    """The zoo knows who writes Latin and Chinese; other scripts reject none, and the route says what is missing."""
    able = writer("able", text_rendering_en="strong", text_rendering_zh="strong")
    decided = route(prompt, zoo_of(able, OLD), tmp_path / "v.db")
    assert unmet in decided.unmet
    assert f"no expert here supports {unmet}" in decided.explain().replace("\n", " ")


@pytest.mark.parametrize(
    "prompt",
    [
        "ink wash painting of a red crab",
        "line art of a fox in bright colours",
        "翠绿的竹林，水墨画",
        "雪中红梅，水墨画",
        "色彩鲜艳的简笔画",
        "青绿山水，水墨画",
        "a colour ink wash landscape",
        "full-color line art of a parrot",
        "a lantern in #AA2200 ink",
        "素描，彩虹下的山",
    ],
)
def test_colour_is_drawn_by_those_that_have_it(prompt: str, tmp_path: Path) -> None:
    """An expert that draws in black, white and grey is rejected for colours; of others nothing need be known."""
    decided = route(prompt, zoo_of(GREY, OLD), tmp_path / "v.db")
    assert [one.expert for one in decided.candidates] == ["old"]
    assert decided.rejected[0].reason == "draws in black, white and grey alone"
    assert route(prompt, zoo_of(GREY), tmp_path / "w.db").unmet == ("colour",)


@pytest.mark.parametrize(
    "prompt",
    [
        "ink wash panda",
        "水墨画，竹林里的熊猫",
        "a black cat on white snow",
        "灰色的山，水墨画",
        "charcoal sketch of the Moulin Rouge",
        "ink wash painting, no bright colors",
        "水墨画，不要彩色",
        "手绘风格，不要彩色，一只鹤",
        "line art of a fox, not colorful",
        "a line drawing that is not colourful",
        "ink wash rainbow trout",
    ],
)
def test_black_white_and_grey_are_no_colours(prompt: str, tmp_path: Path) -> None:
    """Such an expert draws what names no colour."""
    decided = route(prompt, zoo_of(GREY, OLD), tmp_path / "v.db")
    assert not decided.rejected
    assert decided.unmet == ()
