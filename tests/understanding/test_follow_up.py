"""Later turns are read by their rule, and become descriptions that stand alone."""

from __future__ import annotations

from typing import Any

import pytest
from turns import BEFORE, TURNS, UNSEEN

from diffusiongpt.understanding import Shown, read_follow_up, turn_groups

FLOORS = {"fitted": (TURNS, 0.97), "unseen": (UNSEEN, 0.90)}
"""Share of labelled turns that must be read as they are labelled, of those that cues were fitted to and of others."""


def before(language: str, turns: int = 2, pictures: int = 1) -> list[Shown]:
    """Turns that each showed the same picture."""
    return [Shown(description=BEFORE[language], pictures=pictures)] * turns


@pytest.mark.parametrize("language", TURNS)
@pytest.mark.parametrize("name", FLOORS)
def test_turns_are_read_as_the_rule_labels_them(name: str, language: str) -> None:
    """Of a hundred turns in a language, nearly all are read rightly; the others are shown."""
    turns, floor = FLOORS[name]
    labelled = [(text, kind) for kind, texts in turns[language].items() for text in texts]
    read = [(text, kind, read_follow_up(text, before(language)).kind) for text, kind in labelled]
    wrong = [one for one in read if one[1] != one[2]]
    assert len(wrong) <= (1 - floor) * len(labelled), wrong


def test_unseen_turns_are_not_among_those_that_the_reader_is_fitted_to() -> None:
    """What is measured is how turns are read that the reader does not know; only the shortest are bound to recur."""
    fitted = {_letters(text) for group in turn_groups() for texts in group.values() for text in texts}
    unseen = [text for kinds in UNSEEN.values() for texts in kinds.values() for text in texts]
    assert len(unseen) >= 200
    assert not [text for text in unseen if _letters(text) in fitted]


def _letters(text: str) -> str:
    return "".join(letter for letter in text.casefold() if letter.isalnum())


def test_a_first_turn_is_new_or_a_question() -> None:
    """Before the first picture, nothing can be changed."""
    kinds = {text: read_follow_up(text, ()).kind for text in ("but blue", "another one", "give the cat a hat", "why?")}
    assert kinds == {"but blue": "new", "another one": "new", "give the cat a hat": "new", "why?": "question"}


@pytest.mark.parametrize(
    ("text", "pictures", "found"),
    [
        ("but blue", 1, (2, 0)),
        ("the first but blue", 1, (0, 0)),
        ("make the second one darker", 1, (1, 0)),
        ("the last one again", 1, (2, 0)),
        ("in the previous picture, remove the sofa", 1, (1, 0)),
        ("the second one but blue", 4, (2, 1)),
        ("picture 3 in watercolor", 4, (2, 2)),
        ("第二张，但是蓝色的", 1, (1, 0)),
        ("第三张换成水彩", 4, (2, 2)),
        ("最初那张更好，改成晚上", 1, (0, 0)),
        ("上一张再亮一点", 1, (2, 0)),
        ("它的帽子改成红色", 1, (2, 0)),
        ("the ninth one but blue", 1, (None, 0)),
        ("number 5 at night", 4, (None, 0)),
        ("the previous one with a hat", 4, (1, 0)),
        ("the one before that, darker", 1, (1, 0)),
        ("second to last one, darker", 1, (1, 0)),
        ("倒数第二张亮一点", 1, (1, 0)),
        ("the left one but at night", 2, (2, 0)),
        ("右边那张，改成夜景", 4, (2, 3)),
        ("第三张里的狗换成猫", 4, (2, 2)),
        ("图1改成晚上", 1, (0, 0)),
        ("the last two but at night", 4, (2, 2)),
        ("make the second dog bigger", 1, (2, 0)),
        ("add the number 1 to his shirt", 1, (2, 0)),
    ],
)
def test_ordinals_count_pictures_or_turns(text: str, pictures: int, found: tuple[int, int]) -> None:
    """An ordinal counts the pictures of the last turn if it has several, else the turns; it may name none that is."""
    follow = read_follow_up(text, before("en", 3, pictures))
    assert (follow.turn, follow.picture) == found
    assert follow.kind in ("edit", "refine", "variation")


KEPT = [
    Shown(description="a dragon over a village", pictures=3),
    Shown(description="一辆红色的自行车"),
    Shown(description="a castle on a hill"),
]


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("the dragon one but at night", (0, 0)),
        ("自行车那张改成晚上", (1, 0)),
        ("the one with the village, in winter", (0, 0)),
        ("the blue one please", (2, 0)),
        ("the castle one, darker", (2, 0)),
    ],
)
def test_a_picture_is_named_by_what_it_shows(text: str, found: tuple[int, int]) -> None:
    """Words that only an earlier picture shows speak of that one; those that none shows, or the last one too, of it."""
    follow = read_follow_up(text, KEPT)
    assert (follow.turn, follow.picture) == found


@pytest.mark.parametrize(
    ("text", "current", "found"),
    [
        ("the second one", None, (1, 0)),
        ("use the previous one", None, (1, 0)),
        ("回到上一张", None, (1, 0)),
        ("undo", None, (1, 0)),
        ("撤销", (1, 0), (0, 0)),
        ("I like the first one more", None, (0, 0)),
        ("the dragon one", None, (0, 0)),
        ("the third version", None, (2, 0)),
        ("go back to the third version", None, (2, 0)),
        ("undo", (0, 0), None),
    ],
)
def test_a_turn_may_only_choose_a_picture(
    text: str, current: tuple[int, int] | None, found: tuple[int, int] | None
) -> None:
    """Then nothing is to be drawn; before the first picture there is none."""
    follow = read_follow_up(text, KEPT, current=current)
    assert follow.kind == "refine"
    if found is None:
        assert (follow.missing, follow.turn) == (-1, None)
    else:
        assert (follow.chosen, follow.turn, follow.picture) == (True, *found)
        assert follow.description == KEPT[found[0]].description


@pytest.mark.parametrize(
    ("text", "kind", "pictures"),
    [
        ("give me 3 more", "variation", 3),
        ("再来三张", "variation", 3),
        ("another one", "variation", None),
        ("show me a few more", "variation", 3),
        ("both in watercolor", "refine", 3),
        ("make it darker", "refine", None),
        ("the second one, darker", "refine", 1),
    ],
)
def test_a_turn_says_how_many_pictures_it_wants(text: str, kind: str, pictures: int | None) -> None:
    """A number of others, all that were shown, or the one that it names."""
    follow = read_follow_up(text, KEPT[:1])
    assert (follow.kind, follow.pictures) == (kind, pictures)


@pytest.mark.parametrize(
    ("description", "text", "result"),
    [
        ("a cat on a red sofa", "replace the cat with a dog", "a dog on a red sofa"),
        ("a cat on a red sofa", "make the sofa green", "a cat on a green sofa"),
        ("a cat on a sofa", "the sofa should be dark blue", "a cat on a dark blue sofa"),
        ("a red heart on a white background", "but blue", "a blue heart on a white background"),
        ("an owl", "but white", "a white owl"),
        ("a cat on a red sofa next to a window", "remove the sofa", "a cat next to a window, without sofa"),
        ("a cat", "give the cat a hat", "a cat, the cat with a hat"),
        ("a cat", "and now at night", "a cat, at night"),
        ("a cat", "add a bird, please", "a cat, with a bird"),
        ("a cat", "can you make it look like an oil painting?", "a cat, like an oil painting"),
        ("a cat", "change the style to anime", "a cat, in anime style"),
        ("白色背景上的红色爱心", "换成蓝色", "白色背景上的蓝色爱心"),
        ("一只猫坐在沙发上", "把猫换成狗", "一只狗坐在沙发上"),
        ("一只猫坐在红色沙发上", "把沙发改成蓝色", "一只猫坐在蓝色的沙发上"),
        ("一只猫", "能不能把背景去掉？", "一只猫，没有背景"),
        ("一只猫", "但是在晚上", "一只猫，在晚上"),
    ],
)
def test_a_change_becomes_part_of_the_description(description: str, text: str, result: str) -> None:
    """What an expert that draws from text alone gets says all that is wanted, and nothing that is not."""
    assert read_follow_up(text, [Shown(description=description)]).description == result


@pytest.mark.parametrize(
    ("text", "order", "description"),
    [
        ("too dark", "make it brighter", "a cat on a sofa, brighter"),
        ("way too dark, more light please", "way too dark, more light", "a cat on a sofa, more light"),
        ("the sofa is too big", "make the sofa smaller", "a cat on a sofa, the sofa smaller"),
        ("its face looks weird", "make its face look natural", "a cat on a sofa, its face look natural"),
        ("swap the cat for a dog, keep everything else the same", "", "a dog on a sofa"),
        ("还是第一张吧，背景改成黑色", "", "a cat on a sofa，背景改成黑色"),
        ("太暗了", "整体亮一些", "a cat on a sofa，整体亮一些"),
        ("前轮太大了", "前轮小一些", "a cat on a sofa，前轮小一些"),
    ],
)
def test_a_complaint_asks_for_its_remedy(text: str, order: str, description: str) -> None:
    """What is drawn says what is wanted and not what was wrong, and nothing of what is to stay."""
    follow = read_follow_up(text, [Shown(description="a cat on a sofa")])
    assert follow.description == description
    assert not order or follow.order == order


@pytest.mark.parametrize(
    ("text", "description"),
    [
        ("Enough of that. Now a barn owl in a tree", "a barn owl in a tree"),
        ("scrap that, start over: a red barn, snow", "a red barn, snow"),
        ("a new moon, a lonely road through a forest", "a new moon, a lonely road through a forest"),
        ("先不管这个了，画一个红色的谷仓，下雪", "画一个红色的谷仓，下雪"),
        ("接下来给我画个图标，一只鸭子", "接下来给我画个图标，一只鸭子"),
    ],
)
def test_a_new_picture_takes_leave_of_the_old(text: str, description: str) -> None:
    """Words that only leave an earlier picture are no part of the new one's description."""
    follow = read_follow_up(text, before("en"))
    assert (follow.kind, follow.description) == ("new", description)


def test_traditional_characters_are_read_as_simplified_ones() -> None:
    """An order in traditional characters changes a description in simplified ones, and the other way round."""
    shown = [Shown(description="一只猫坐在红色沙发上")]
    assert read_follow_up("把貓換成狗", shown).description == "一只狗坐在红色沙发上"
    assert read_follow_up("把猫换成狗", [Shown(description="一隻貓坐在沙發上")]).description == "一隻狗坐在沙發上"


@pytest.mark.parametrize(
    "text", ["?", "。", "the", "第", "a" * 5000, "把" * 3000, "the first " * 500, "no no no no", "\n"]
)
def test_strange_turns_are_read_in_time(text: str) -> None:
    """No text makes the expressions run long, or fails."""
    follow: Any = read_follow_up(text, before("zh"))
    assert follow.kind in ("new", "refine", "variation", "edit", "question")
