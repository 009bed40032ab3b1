"""Folds for cross-validation: near-duplicates are in the same fold, and every prompt is tested once."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from diffusiongpt.errors import RequestError
from diffusiongpt.ranking.model import ALIKE, grouped_folds, near_duplicate_groups
from diffusiongpt.ranking.model.cross_validation import _tokens

WORDS = st.sampled_from(["red", "fox", "snow", "blue", "bus", "two", "cats", "狐狸", "雪中的狐狸"])


def test_wording_that_says_the_same_is_one_group() -> None:
    """Case, punctuation, order and repetition of words do not make a new prompt; another word does."""
    prompts = ["A red fox, in snow!", "in snow a RED fox", "a red red fox in snow", "a blue fox in snow", "a bus"]
    assert near_duplicate_groups(prompts).tolist() == [0, 0, 0, 1, 2]


def test_one_word_of_ten_may_differ() -> None:
    """Prompts with nine common words and one other word are near-duplicates; a chain of them is one group."""
    common = "one two three four five six seven eight nine"
    chain = [f"{common} ten", f"{common} eleven", "two three four five six seven eight nine eleven"]
    assert near_duplicate_groups([*chain, "something else"]).tolist() == [0, 0, 0, 1]
    assert near_duplicate_groups(["a red fox", "a red bus"]).tolist() == [0, 1]


def test_scripts_without_spaces_are_compared_too() -> None:
    """A Chinese prompt that differs by one character among many has a near-duplicate; a different one has none."""
    prompts = ["一只红色的狐狸在白色的雪地里奔跑跳跃着", "一只红色的狐狸在白色的雪地里奔跑跳跃", "蓝色的公交车"]
    assert near_duplicate_groups(prompts).tolist() == [0, 0, 1]


def test_prompts_without_a_word_differ_by_their_signs() -> None:
    """Prompts that consist only of punctuation are not all the same prompt."""
    assert near_duplicate_groups(["🦊", "🚌", "", "🦊"]).tolist() == [0, 1, 2, 0]


def test_keys_keep_translations_together() -> None:
    """Prompts with the same key are in one group, whatever their text."""
    assert near_duplicate_groups(["a fox", "a bus", "狐狸", "a fox"], keys=[1, 2, 1, 3]).tolist() == [0, 1, 0, 0]


@given(st.lists(st.lists(WORDS, min_size=1, max_size=9).map(" ".join), max_size=20))
def test_groups_are_those_of_comparing_all_pairs(prompts: list[str]) -> None:
    """The index of rare words finds exactly the links that comparing all pairs finds."""
    sets = [_tokens(prompt) for prompt in prompts]
    group = list(range(len(prompts)))
    for one, other in combinations(range(len(prompts)), 2):
        if len(sets[one] & sets[other]) >= ALIKE * len(sets[one] | sets[other]) - 1e-9:
            group = [group[one] if number == group[other] else number for number in group]
    numbers = {number: rank for rank, number in enumerate(dict.fromkeys(group))}
    assert near_duplicate_groups(prompts).tolist() == [numbers[number] for number in group]


@given(st.lists(st.integers(0, 9), min_size=2, max_size=60), st.integers(2, 5), st.integers(0, 9))
def test_folds_partition_without_splitting_a_group(groups: list[int], k: int, seed: int) -> None:
    """Every item is tested exactly once, never without its group, and the same seed gives the same folds."""
    array = np.array(groups)
    if len(set(groups)) < k:
        with pytest.raises(RequestError, match=f"cannot make {k} folds"):
            grouped_folds(array, k, seed)
        return
    folds = grouped_folds(array, k, seed)
    assert sorted(np.concatenate([test for _, test in folds]).tolist()) == list(range(len(groups)))
    for train, test in folds:
        assert not set(array[train]) & set(array[test])
        assert len(train) + len(test) == len(groups)
    again = grouped_folds(array, k, seed)
    assert all(np.array_equal(one[1], other[1]) for one, other in zip(folds, again, strict=True))


def test_folds_are_balanced_and_follow_the_seed() -> None:
    """Sizes differ by at most the largest group, and another seed gives other folds."""
    groups = np.repeat(np.arange(100), np.tile([1, 1, 1, 3], 25))
    sizes = [len(test) for _, test in grouped_folds(groups, 5, 0)]
    assert max(sizes) - min(sizes) <= 1
    assert not np.array_equal(grouped_folds(groups, 5, 0)[0][1], grouped_folds(groups, 5, 1)[0][1])


def test_fewer_than_two_folds_are_refused() -> None:
    """A single fold would leave nothing to train on."""
    with pytest.raises(RequestError, match="cannot make 1 folds"):
        grouped_folds(np.arange(5), 1, 0)
