"""Judges rank a new expert before its first vote, with little weight, and never rate one picture twice."""

from __future__ import annotations

import itertools
import json
from dataclasses import replace
from importlib.metadata import EntryPoint
from typing import TYPE_CHECKING, Any

import pytest
from fixtures_routing import expert, settings_in, tiny_studio, zoo_of
from PIL import Image
from typer.testing import CliRunner

from diffusiongpt import judging as judges
from diffusiongpt.apps.cli import app
from diffusiongpt.errors import JudgeError, RequestError, UnknownExpertError, VoteError
from diffusiongpt.judging import Judged, score_one, shipped_prompts
from diffusiongpt.ranking.model import source_weight
from diffusiongpt.studio import DiffusionGPT
from diffusiongpt.zoo.tiny import TinyJudge, named_answers

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

PIXELS = ["a red star, pixel art", "a blue fish, pixel art"]


class Strict:
    """The tiny judge, which counts its pictures and can be made to stop."""

    def __init__(self, patience: int = 1000) -> None:
        self.seen: list[str] = []
        self._judge = TinyJudge.load()
        self._patience = patience

    def score(self, prompt: str, images: Sequence[Image.Image]) -> list[float]:
        """Score like the tiny judge."""
        if len(self.seen) == self._patience:
            raise KeyboardInterrupt
        self.seen += [prompt] * len(images)
        return self._judge.score(prompt, images)


class Says:
    """A judge that returns given scores."""

    def __init__(self, *scores: float) -> None:
        self.scores = scores

    def score(self, prompt: str, images: Sequence[Image.Image]) -> Sequence[float]:  # noqa: ARG002 - a judge's form
        """Return them."""
        return self.scores


@pytest.fixture
def studio(tmp_path: Path) -> Iterator[DiffusionGPT]:
    """A studio without votes."""
    with tiny_studio(tmp_path) as studio:
        yield studio


@pytest.mark.parametrize(
    ("prompt", "named"),
    [
        (
            "a yellow star on a blue background, pixel art",
            {"object": ("star",), "color": ("yellow",), "style": ("pixel",), "background": ("blue",)},
        ),
        (
            "蓝色背景的红色鱼，素描",
            {"object": ("fish",), "color": ("red",), "style": ("sketch",), "background": ("blue",)},
        ),
        ("a starfish on a bluebell", {}),
        ("a dancer", {}),
    ],
)
def test_the_tiny_judge_reads_what_a_prompt_names(prompt: str, named: dict[str, tuple[str, ...]]) -> None:
    """Objects, colours, backgrounds and styles, as whole words; a colour before "background" is not the object's."""
    assert named_answers(prompt) == named


def test_the_tiny_judge_scores_what_is_there(studio: DiffusionGPT) -> None:
    """A picture in the requested style scores higher; all scores are shares, also if the prompt names nothing."""
    prompt = PIXELS[0]
    pictures = [studio.route_and_generate(prompt, expert=f"tiny-{style}", seed=3).image for style in ("pixel", "oil")]
    pixel, oil = judges.JUDGES.make("tiny").score(prompt, pictures)
    assert 0 <= oil < pixel - 0.1 <= 0.9
    assert all(0 <= share <= 1 for share in judges.JUDGES.make("tiny").score("a dancer", pictures))


def test_a_bootstrap_gives_a_place(studio: DiffusionGPT) -> None:
    """Ratings are marked as the judge's; the suitable expert leads with less uncertainty; a person outweighs the judge.

    The ratings separate it from the unsuitable experts; its tag alone already puts it ahead of a generalist.
    """
    told: list[Judged] = []
    done = studio.bootstrap("tiny", prompts=PIXELS, expert="tiny-pixel", on_judged=told.append)
    assert (done.source, done.new, done.added, done.known) == ("judge:tiny", ("tiny-pixel",), 8, 0)
    ratings = studio.preferences.store.ratings()
    assert {(one.source, one.voter) for one in ratings} == {("judge:tiny", "judge:tiny")}
    assert [one.done for one in told] == list(range(1, 9))
    assert len({one.seed for one in ratings}) == len(PIXELS)
    table = studio.ranking()
    scores = {
        score.expert: score for score in table.score(("tiny-pixel", *done.others, "stranger"), {"pixel_art": 1.0})
    }
    learnt = {name: score.parts["global"] + score.parts["nodes"] for name, score in scores.items()}
    assert max(scores, key=lambda name: scores[name].mean) == "tiny-pixel"
    assert learnt["tiny-pixel"] > max(learnt["tiny-vector"], learnt["tiny-sketch"]) + 1
    assert scores["tiny-pixel"].std < scores["stranger"].std
    assert source_weight("judge:tiny") < source_weight("human")


def test_an_interrupted_bootstrap_goes_on(studio: DiffusionGPT) -> None:
    """What was recorded is kept, and is not drawn or judged again; a finished run has nothing to do."""
    with pytest.raises(KeyboardInterrupt):
        studio.bootstrap(Strict(patience=3), prompts=PIXELS, expert="tiny-oil")
    assert len(studio.preferences.store.ratings()) == 3
    judge = Strict()
    done = studio.bootstrap(judge, prompts=PIXELS, expert="tiny-oil")
    assert (done.source, done.known, done.added, len(judge.seen)) == ("judge:Strict", 3, 5, 5)
    ratings = studio.preferences.store.ratings()
    assert len({(one.prompt, one.expert) for one in ratings}) == len(ratings) == 8
    again = studio.bootstrap(judge, prompts=PIXELS, expert="tiny-oil")
    assert (again.added, again.known, len(judge.seen)) == (0, 8, 5)


def test_without_a_name_all_that_nobody_judged_are_new(studio: DiffusionGPT) -> None:
    """Experts without votes are new and are drawn next to those with votes; when all have votes, a name is needed."""
    one, other = (
        studio.route_and_generate("a star", expert=f"tiny-{name}", num_inference_steps=1) for name in ("oil", "pixel")
    )
    studio.vote(one, other)
    done = studio.bootstrap(Says(0.5), prompts=["a star"])
    assert set(done.new) == {"tiny-generalist", "tiny-vector", "tiny-sketch"}
    assert set(done.others) == {"tiny-oil", "tiny-pixel"}
    with pytest.raises(VoteError, match="has votes or ratings"):
        studio.bootstrap("tiny", prompts=["a star"])


@pytest.mark.parametrize("scores", [(), (1.0, 2.0), (float("nan"),), (float("inf"),)])
def test_a_judge_says_one_finite_number(studio: DiffusionGPT, scores: tuple[float, ...]) -> None:
    """Anything else is an error that names judge and prompt, and nothing is recorded."""
    with pytest.raises(JudgeError, match="Says"):
        studio.bootstrap(Says(*scores), prompts=["a star"])
    assert not studio.preferences.store.ratings()


class Answers:
    """A judge that answers anything at all."""

    def __init__(self, answer: Callable[[], Any]) -> None:
        self.answer = answer

    def score(self, *_: object) -> Any:
        """The answer."""
        return self.answer()


@pytest.mark.parametrize(
    "answer",
    [
        lambda: itertools.repeat(1.0), lambda: "0.5", lambda: b"5", lambda: ["good"], lambda: None, lambda: 0.5,
        lambda: [10**400], lambda: [1e7], lambda: [-1e308], lambda: [[0.5]], lambda: [None], lambda: 1 / 0,
        lambda: {}["key"], lambda: "x" * 1_000_000, lambda: [float("-inf")],
    ],
)  # fmt: skip
def test_an_answer_that_is_no_rating_names_the_judge(studio: DiffusionGPT, answer: Callable[[], Any]) -> None:
    """Text, numbers that no rating can have, answers without end, and failures of the judge itself."""
    picture = studio.route_and_generate("a star", expert="tiny-oil", num_inference_steps=1).image
    with pytest.raises(JudgeError, match="the judge Answers") as caught:
        score_one(Answers(answer), "a star " * 1_000, picture)
    assert len(str(caught.value)) < 500
    assert "from -1,000,000 to 1,000,000" in caught.value.hint


def test_what_cannot_be_judged_is_refused(studio: DiffusionGPT, tmp_path: Path) -> None:
    """An unknown judge or expert, too many prompts, or no other expert is a typed error before anything is drawn."""
    with pytest.raises(JudgeError, match="no judge called 'nosuch'") as caught:
        studio.bootstrap("nosuch")
    assert "tiny" in caught.value.hint
    with pytest.raises(UnknownExpertError):
        studio.bootstrap("tiny", expert="nobody")
    for prompts in (0, len(shipped_prompts()) + 1):
        with pytest.raises(RequestError, match="out of range"):
            studio.bootstrap("tiny", prompts=prompts)
    lonely = DiffusionGPT(zoo_of(expert("far")), settings=settings_in(tmp_path / "b"), votes=tmp_path / "b.db")
    with lonely, pytest.raises(VoteError, match="no expert on this machine to compare with far"):
        lonely.bootstrap("tiny", expert="far")


def test_the_judge_is_found_when_none_is_named() -> None:
    """The tiny zoo has its own; elsewhere the only installed one is used, and with none or several a name is needed."""
    assert judges.default_judge(("tiny",)) == "tiny"
    points = [EntryPoint(name=name, value="no.such:module", group=judges.JUDGES.group) for name in ("one", "two")]
    for installed, expected in ((points[:1], "one"), (points, None), ([], None)):
        found = replace(judges.JUDGES, installed=lambda installed=installed, **_: installed)
        if expected:
            assert judges.default_judge(("default",), found) == expected
        else:
            with pytest.raises(JudgeError, match="no judge was named"):
                judges.default_judge(("default",), found)


def test_the_shipped_prompts_are_short_and_different(studio: DiffusionGPT) -> None:
    """All prompts differ, and the first twenty already name ten styles and every subject but one."""
    prompts = shipped_prompts()
    assert len(set(prompts)) == len(prompts) >= 50
    assert max(map(len, prompts)) < 80
    understood = [studio.route(prompt).understanding for prompt in prompts[:20]]
    assert len({weight.node for one in understood for weight in one.styles}) >= 10
    assert len({weight.node for one in understood for weight in one.subjects}) >= 4


def test_ranking_is_a_command_and_a_group(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`ranking bootstrap` judges and prints scores, `ranking` shows them; each has its own options."""
    for name, value in {"HOME": tmp_path / "home", "DEVICE": "cpu", "ZOO": "tiny"}.items():
        monkeypatch.setenv(f"DIFFUSIONGPT_{name}", str(value))
    run = CliRunner().invoke
    made = run(app, ["ranking", "bootstrap", "--prompts", "1", "--json"])
    assert made.exit_code == 0, made.output
    done = json.loads(made.stdout)
    assert (done["source"], done["added"], set(done["scores"])) == ("judge:tiny", 5, set(done["new"]))
    assert "5/5  tiny-oil" in made.stderr
    told = run(app, ["ranking", "bootstrap", "--prompts", "1"]).stdout
    assert told.startswith("judge:tiny rated 0 pictures of 1 prompts; 5 were rated before\n")
    assert json.loads(run(app, ["ranking", "--json"]).stdout)["ranking_version"] != "r0"
    assert run(app, ["ranking", "--node", "nosuch"]).exit_code == 2
    misplaced = run(app, ["ranking", "--zoo", "tiny", "bootstrap"])
    assert misplaced.exit_code == 2
    assert "go after it" in misplaced.stderr
