"""Conversations draw for real, are saved and resumed, and take no path from a stranger's file."""

from __future__ import annotations

import gc
import json
import tracemalloc
import weakref
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from fixtures_routing import expert, settings_in, tiny_studio, zoo_of
from PIL import Image

from diffusiongpt import Conversation, ConversationError, DiffusionGPT, Generation, PictureError, RequestError
from diffusiongpt.conversation import Turn
from diffusiongpt.flow import MAX_PROMPT_CHARS

QUICK: dict[str, Any] = {"num_inference_steps": 1}


@pytest.fixture(scope="module")
def studio(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DiffusionGPT]:
    """A studio that draws with the tiny zoo."""
    with tiny_studio(tmp_path_factory.mktemp("home")) as made:
        yield made


@pytest.fixture(scope="module")
def asked(studio: DiffusionGPT) -> Conversation:
    """A conversation of one picture and of questions."""
    talk = studio.conversation()
    talk.say("a red heart", seed=3, **QUICK)
    return talk


@pytest.mark.parametrize(
    "texts",
    [
        [
            "a red heart on a white background",
            "but blue",
            "in pixel art",
            "another one",
            "why this one?",
            "undo that: the first but green",
        ],
        ["白色背景上的红色爱心", "换成蓝色", "像素画风格", "再来一张", "为什么？", "第一张，但是绿色的"],
    ],
    ids=["en", "zh"],
)
def test_six_turns(studio: DiffusionGPT, tmp_path: Path, texts: list[str]) -> None:
    """Refinements keep the seed, a variation has another, a style changes the expert, and it all survives saving."""
    talk = studio.conversation()
    for text in texts:
        talk.say(text, **(QUICK | {"seed": 3} if not talk.turns else {}))
    first, blue, pixel, other, question, green = talk.turns
    assert [turn.kind for turn in talk.turns] == ["new", "refine", "refine", "variation", "question", "refine"]
    assert [turn.refers_to for turn in talk.turns] == [None, 0, 1, 2, 3, 0]
    assert all(turn.generation for turn in talk.turns if turn is not question)
    seeds = [turn.generation.seeds[0] for turn in (first, blue, pixel, green) if turn.generation]
    assert seeds == [3, 3, 3, 3]
    assert other.generation
    assert pixel.generation
    assert other.generation.seeds[0] != 3
    assert other.generation.drawn_by == pixel.generation.drawn_by == "tiny-pixel"
    assert blue.generation
    assert blue.generation.params["num_inference_steps"] == 1
    assert question.generation is None
    assert "pixel" in question.reply
    again = Conversation.load(talk.save(tmp_path / "talk.json"), studio=studio)
    assert [turn.kind for turn in again.turns] == [turn.kind for turn in talk.turns]
    resumed = again.say(texts[3])
    assert (resumed.kind, resumed.refers_to) == ("variation", 5)


@pytest.mark.parametrize(
    ("question", "says"),
    [
        ("which seed?", "The seed was 3."),
        ("種子是多少？", "种子是 3。"),
        ("how long did it take?", "It took "),
        ("用了多久？", "用了 "),
        ("what does it cost?", "It was drawn on this machine, which costs nothing."),
        ("要多少钱？", "在本机绘制，不花钱。"),
        ("which license does it have?", "has its licence."),
        ("许可证是什么？", "许可证见“diffusiongpt zoo show tiny-"),
        ("what was the prompt?", "The prompt was 'a red heart"),
        ("提示词是什么？", "提示词是“a red heart"),
        ("why this one?", "drew it with seed 3: tiny-"),
        ("为什么选它？", "绘制，种子 3。候选专家共 5 位：tiny-"),
        ("还有哪些专家可以画？", "候选专家有 tiny-"),
    ],
)
def test_a_question_is_answered_in_its_language(asked: Conversation, question: str, says: str) -> None:
    """From the record of the picture, in English or in Chinese."""
    turn = asked.say(question)
    assert (turn.kind, turn.generation) == ("question", None)
    assert says in turn.reply


def test_undo_and_branch(studio: DiffusionGPT) -> None:
    """The last turn can be taken back, and a branch goes on from an earlier one without changing this one."""
    talk = studio.conversation()
    with pytest.raises(ConversationError):
        talk.undo()
    first = talk.say("a red heart", seed=1, **QUICK)
    talk.say("but blue")
    branch = talk.branch(first)
    branch.say("but green")
    assert talk.undo().text == "but blue"
    assert [turn.text for turn in talk.turns] == ["a red heart"]
    assert [turn.text for turn in branch.turns] == ["a red heart", "but green"]
    with pytest.raises(ConversationError):
        talk.branch(branch.turns[-1])


def test_a_picture_of_ones_own_begins_a_turn(studio: DiffusionGPT) -> None:
    """A picture that is passed is what the turn is about, and a mask keeps the rest of it."""
    talk = studio.conversation()
    mask = Image.new("L", (64, 64), 0)
    mask.paste(255, (0, 0, 32, 64))
    turn = talk.say("a green star", image=Image.new("RGB", (64, 64), "red"), mask_image=mask, seed=1, **QUICK)
    assert turn.generation
    assert turn.generation.route.task == "inpaint"
    assert turn.generation.image.getpixel((60, 32)) == (255, 0, 0)


@pytest.mark.parametrize(("text", "same_seed"), [("a green star", True), ("but green", True), ("another one", False)])
def test_a_mask_alone_is_of_the_picture_that_is_spoken_of(studio: DiffusionGPT, text: str, same_seed: bool) -> None:
    """What it marks is drawn again, and no pixel outside it changes; without a picture it is a mistake."""
    talk = studio.conversation()
    mask = Image.new("L", (64, 64), 0)
    mask.paste(255, (0, 0, 32, 64))
    with pytest.raises(RequestError, match="mask_image is for a picture"):
        talk.say(text, mask_image=mask, **QUICK)
    first = talk.say("a red heart on a white background", seed=1, width=64, height=64, **QUICK)
    turn = talk.say(text, mask_image=mask)
    assert first.generation
    assert turn.generation
    assert (turn.kind, turn.refers_to, turn.generation.route.task) == ("edit", 0, "inpaint")
    assert (turn.generation.seeds == (1,)) == same_seed
    kept, changed = (0, 0, 32, 64), (32, 0, 64, 64)
    before, after = (one.generation.image for one in (first, turn))
    assert before.crop(changed).tobytes() == after.crop(changed).tobytes()
    assert before.crop(kept).tobytes() != after.crop(kept).tobytes()
    assert "what the mask marks; the rest" in turn.reply
    other = talk.say("make the first one green", mask_image=mask)
    assert other.refers_to == 0
    assert "what the mask marks in picture 1 of turn 1; the rest" in other.reply


class Asked:
    """Routes as a studio does, notes what is to be drawn, and gives one picture for all of it."""

    def __init__(self, studio: DiffusionGPT, picture: Generation) -> None:
        self.route, self.read, self.reading = studio.route, studio.read, studio.reading
        self.asked: list[tuple[str, dict[str, Any]]] = []
        self._picture = picture

    def route_and_generate(self, prompt: str, **options: Any) -> Generation:
        """Note it."""
        self.asked.append((prompt, options))
        return self._picture


@pytest.mark.parametrize(
    ("text", "order"),
    [
        ("give the heart a hat", "give the heart a hat"),
        ("two hearts less, please", "Edit this picture: two hearts less"),
        ("给它戴顶帽子", "给它戴顶帽子"),
        ("好看，就是边缘有点怪", "修改这张图：边缘自然一些"),
    ],
)
def test_an_edit_goes_to_an_editor_with_the_picture(
    studio: DiffusionGPT, tmp_path: Path, text: str, order: str
) -> None:
    """Where an expert edits, it gets the picture and the order, in whatever words a turn asks for an edit."""
    heart = studio.route_and_generate("a red heart", seed=1, **QUICK)
    zoo = zoo_of(expert("editor", architecture="qwen-image-edit"), expert("plain", architecture="sd15"))
    with DiffusionGPT(zoo, settings=settings_in(tmp_path), votes=tmp_path / "votes.db") as other:
        asked = Asked(other, heart)
        talk = Conversation(asked)
        talk.say("a red heart", memory="any")
        turn = talk.say(text)
    assert turn.kind == "edit"
    assert asked.asked[-1][0] == order
    assert asked.asked[-1][1]["image"] is heart.image
    assert "No expert here" not in turn.reply
    assert "没有能按指令" not in turn.reply


def test_an_edit_without_an_editor_says_so(studio: DiffusionGPT) -> None:
    """Where no expert changes pictures by instruction, the changed description is drawn with the same seed."""
    talk = studio.conversation()
    talk.say("a red heart on a white background", seed=3, **QUICK)
    turn = talk.say("make the background yellow")
    assert turn.kind == "edit"
    assert turn.description == "a red heart on a yellow background"
    assert "No expert here" in turn.reply


def test_a_chosen_picture_is_not_drawn_again(studio: DiffusionGPT, tmp_path: Path) -> None:
    """It is there already; the next turn goes on from it, in a resumed conversation too."""
    talk = studio.conversation()
    first = talk.say("a red heart", seed=3, **QUICK)
    talk.say("but blue")
    chosen = talk.say("undo")
    assert (chosen.refers_to, chosen.generation) == (0, first.generation)
    file = talk.save(tmp_path / "talk.json")
    again = Conversation.load(file, studio=studio)
    assert again.turns[-1].chosen
    assert again.paths(again.turns[-1]) == again.paths(again.turns[0])[:1]
    green = again.say("but green")
    assert (green.refers_to, green.description) == (0, "a green heart")


def test_undo_goes_back_to_what_was_changed(studio: DiffusionGPT) -> None:
    """And not to the picture that was drawn before it, nor to the first of several; at the start there is none."""
    talk = studio.conversation()
    talk.say("a red heart", seed=1, num_images_per_prompt=2, **QUICK)
    talk.say("a green star", seed=5)
    talk.say("the heart one but blue")
    assert [(turn.refers_to, turn.picture) for turn in (talk.say("undo"),)] == [(0, 0)]
    talk = talk.branch(0)
    talk.say("the second one but blue")
    back = talk.say("撤销")
    assert (back.refers_to, back.picture, len(studio_pictures(back))) == (0, 1, 1)
    assert "没有图片" in talk.say("撤销").reply


def test_a_turn_draws_as_many_as_it_says(studio: DiffusionGPT) -> None:
    """Three more are three, and one of several is one, with its seed."""
    talk = studio.conversation()
    talk.say("a red heart", seed=3, **QUICK)
    several = talk.say("give me 3 more")
    one = talk.say("the second one but blue")
    assert several.generation
    assert one.generation
    assert len(several.generation.images) == 3
    assert one.generation.seeds == several.generation.seeds[1:2]
    assert len(studio_pictures(talk.say("再来两张"))) == 2


def studio_pictures(turn: Turn) -> Sequence[Any]:
    """The pictures of a turn."""
    return turn.generation.images if turn.generation else ()


def test_a_shape_in_a_turn_comes_before_an_earlier_size(studio: DiffusionGPT) -> None:
    """Arguments of earlier turns hold on, unless the text asks for something else."""
    talk = studio.conversation()
    talk.say("a red heart", width=64, height=64, seed=1, **QUICK)
    turn = talk.say("make it 2:1")
    width, height = studio_pictures(turn)[0].size
    assert width == 2 * height
    assert "width" not in turn.options


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("换成蓝色", "绘制，种子 3。"),
        ("再来一张", "同样的画面，另一张：由 tiny-"),
        ("把背景换成黄色", "这里没有能按指令修改图片的专家，于是按“"),
        ("第九张", "没有第 9 张图。目前有 1 张"),
        ("撤销", "第一张之前没有图片。"),
        ("谢谢", "不客气！"),
        ("number 9 but blue", "Picture 9 was not drawn. There is one so far"),
        ("thanks!", "You are welcome!"),
        ("the first one", "Back to the picture of turn 1"),
        ("picture 0", "No picture was drawn before the first one. There is one so far"),
        ("第0张", "第一张之前没有图片。"),
    ],
)
def test_a_turn_is_replied_to_in_its_language(asked: Conversation, text: str, says: str) -> None:
    """In Chinese or in English, also where it speaks of a picture that there is not."""
    assert says in asked.branch(0).say(text).reply


def test_a_failed_turn_leaves_the_conversation_as_it_was(studio: DiffusionGPT) -> None:
    """An argument that cannot be used raises, and the turn is not kept."""
    talk = studio.conversation()
    for options in ({"how_much": 1}, {"seed": -1}):
        with pytest.raises(RequestError):
            talk.say("a red heart", **options)
    with pytest.raises(RequestError):
        talk.say("   ")
    assert talk.turns == ()


@pytest.fixture
def saved(studio: DiffusionGPT, tmp_path: Path) -> Path:
    """A conversation of one turn."""
    talk = studio.conversation()
    talk.say("a red heart", seed=1, **QUICK)
    return talk.save(tmp_path / "mine" / "talk.json")


def test_pictures_are_saved_once(studio: DiffusionGPT, saved: Path) -> None:
    """Saving again writes no second copy of a picture."""
    talk = Conversation.load(saved, studio=studio)
    talk.say("but blue")
    leftover = saved.with_name(f"{saved.name}.0123456789abcdef.tmp")
    leftover.write_bytes(b"of a process that was killed while saving")
    for _ in range(3):
        talk.save(saved)
    assert not leftover.exists()
    assert len(list((saved.parent / "talk-pictures").glob("*.png"))) == 2


@pytest.mark.parametrize("name", ["", "a\0b", "x" * 300, "mine/talk.json/more.json"])
def test_a_name_that_is_none_is_refused(studio: DiffusionGPT, saved: Path, name: str) -> None:
    """It is a typed error, and nothing is left behind."""
    talk = Conversation.load(saved, studio=studio)
    before = sorted(saved.parent.parent.rglob("*"))
    with pytest.raises(ConversationError, match="cannot write"):
        talk.save(saved.parent.parent / name if name else name)
    assert sorted(saved.parent.parent.rglob("*")) == before


@pytest.mark.parametrize("name", ["talk v1.2", "my.talk.json", "notes.txt"])
def test_a_name_may_have_dots(studio: DiffusionGPT, saved: Path, name: str) -> None:
    """The folder of the pictures is one, whatever its name ends in."""
    file = Conversation.load(saved, studio=studio).save(saved.parent / name)
    assert file.suffix == ".json"
    assert len(Conversation.load(file, studio=studio).turns) == 1


def test_no_file_of_another_kind_is_replaced(studio: DiffusionGPT, saved: Path) -> None:
    """Another conversation is, and a file that holds none stays as it is."""
    talk = Conversation.load(saved, studio=studio)
    other = saved.with_name("package.json")
    other.write_text('{"name": "mine"}', encoding="utf-8")
    with pytest.raises(ConversationError, match="exists and is not a conversation"):
        talk.save(other)
    assert other.read_text(encoding="utf-8") == '{"name": "mine"}'
    studio.conversation().save(saved.with_name("empty.json"))
    assert Conversation.load(talk.save(saved.with_name("empty.json")), studio=studio).turns[0].text == "a red heart"


def test_two_who_go_on_from_one_file_lose_nothing(studio: DiffusionGPT, saved: Path) -> None:
    """Whoever saves second is warned, and can save elsewhere."""
    one, two = (Conversation.load(saved, studio=studio) for _ in range(2))
    for talk, question in ((one, "which seed?"), (two, "how long did it take?")):
        talk.say(question)
    one.save(saved)
    one.save(saved)
    with pytest.raises(ConversationError, match="was changed"):
        two.save(saved)
    other = two.save(saved.with_name("other.json"))
    assert [Conversation.load(file, studio=studio).turns[-1].text for file in (saved, other)] == [
        "which seed?",
        "how long did it take?",
    ]


def test_a_turn_that_was_taken_back_lends_its_pictures_to_none(studio: DiffusionGPT, tmp_path: Path) -> None:
    """Each turn is saved with its own pictures, however often others were taken back."""
    talk = studio.conversation()
    talk.say("a red heart", seed=1, **QUICK)
    file = talk.save(tmp_path / "talk.json")
    for seed in range(5, 15):
        talk.say("another one", seed=seed)
        talk.save(file)
        talk.undo()
        talk.say("another one", seed=seed + 100)
        talk.save(file)
        read = Conversation.load(file, studio=studio).turns[-1].generation
        assert read
        assert read.seeds == (seed + 100,)
        talk.undo()


def test_a_turn_that_was_taken_back_is_let_go(studio: DiffusionGPT, tmp_path: Path) -> None:
    """Who says and undoes without end keeps no pictures in memory, saved or not."""
    talk = studio.conversation()
    talk.say("a red heart", seed=1, **QUICK)
    talk.save(tmp_path / "talk.json")
    talk.say("another one")
    gone = [weakref.ref(talk.undo()) for _ in range(2)]
    gc.collect()
    assert [one() for one in gone] == [None, None]


def test_a_question_may_name_one_of_several_pictures(studio: DiffusionGPT) -> None:
    """It is answered from the record of that one."""
    talk = studio.conversation()
    drawn = talk.say("a red heart", seed=5, num_images_per_prompt=3, **QUICK).generation
    assert drawn
    replies = [talk.say(f"what is the seed of the {which} one?").reply for which in ("first", "second", "last")]
    assert replies == [f"The seed was {seed}." for seed in drawn.seeds]


def test_a_file_neither_spends_nor_lifts_rules(studio: DiffusionGPT, saved: Path) -> None:
    """Whoever goes on has to allow again what its turns were allowed."""
    stored = json.loads(saved.read_text(encoding="utf-8"))
    stored["turns"][0]["options"] = {"max_price": 5.0, "safety": "off", "local_only": True}
    saved.write_text(json.dumps(stored), encoding="utf-8")
    assert Conversation.load(saved, studio=studio).turns[0].options == {"local_only": True}


def test_an_answer_that_quotes_the_longest_prompt_is_saved(studio: DiffusionGPT, tmp_path: Path) -> None:
    """A reply may be longer than a prompt may be."""
    talk = studio.conversation()
    talk.say("a red heart" + " \u200b" * ((MAX_PROMPT_CHARS - 11) // 2), **QUICK)
    reply = talk.say("what was the prompt?").reply
    assert len(reply) > MAX_PROMPT_CHARS
    read = Conversation.load(talk.save(tmp_path / "talk.json"), studio=studio)
    assert read.turns[-1].reply == reply


@pytest.mark.parametrize(
    "change",
    [
        lambda stored: stored["turns"][0].update(pictures=["../../secret.png"]),
        lambda stored: stored["turns"][0].update(pictures=["/etc/passwd"]),
        lambda stored: stored["turns"][0].update(pictures=["..\\secret.png"]),
        lambda stored: stored["turns"][0].update(pictures=["missing.png"]),
        lambda stored: stored["turns"][0].update(kind="surprise"),
        lambda stored: stored["turns"][0].update(refers_to=7),
        lambda stored: stored["turns"][0].update(options={"seed": 1}),
        lambda stored: stored["turns"][0].update(options={"control_image": None}),
        lambda stored: stored["turns"][0].update(options={"width": "wide"}),
        lambda stored: stored.update(pictures_in=".."),
        lambda stored: stored.update(pictures_in="/etc"),
        lambda stored: stored.update(turns=stored["turns"] * 2000),
        lambda stored: stored.update(version=99),
        lambda stored: stored.clear(),
    ],
)
def test_a_strangers_file_is_refused(studio: DiffusionGPT, saved: Path, change: Any) -> None:
    """A file that names pictures elsewhere, or what no turn could say, is a typed error."""
    (saved.parent.parent / "secret.png").write_bytes(next((saved.parent / "talk-pictures").iterdir()).read_bytes())
    stored = json.loads(saved.read_text(encoding="utf-8"))
    change(stored)
    saved.write_text(json.dumps(stored), encoding="utf-8")
    with pytest.raises(ConversationError) as caught:
        Conversation.load(saved, studio=studio)
    assert caught.value.hint


@pytest.mark.parametrize(
    "turns",
    [
        ["x"] * 60_000,
        [{}] * 60_000,
        [{"text": "a fox", "kind": "new", "pictures": ["/"] * 100_000}],
        [{"text": "a fox", "kind": "new", "options": {"seed": [[]] * 250_000}}],
        [{"text": "a fox", "kind": "new"}] * 250_000,
    ],
    ids=["no turns", "empty turns", "pictures", "an option", "turns"],
)
def test_a_strangers_file_takes_little_memory(studio: DiffusionGPT, tmp_path: Path, turns: list[Any]) -> None:
    """No object is made of what one may not hold, and no error of each mistake."""
    file = tmp_path / "talk.json"
    file.write_text(json.dumps({"pictures_in": "pictures", "turns": turns}), encoding="utf-8")
    tracemalloc.start()
    try:
        with pytest.raises(ConversationError):
            Conversation.load(file, studio=studio)
        assert tracemalloc.get_traced_memory()[1] < 24 << 20  # of which the most that is read is 16
    finally:
        tracemalloc.stop()


def test_a_link_leads_to_no_picture(studio: DiffusionGPT, saved: Path) -> None:
    """A link in the folder of pictures that leads out of it is not followed."""
    (picture,) = (saved.parent / "talk-pictures").iterdir()
    outside = picture.rename(saved.parent.parent / "outside.png")
    picture.symlink_to(outside)
    with pytest.raises(ConversationError, match="is not in"):
        Conversation.load(saved, studio=studio)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "Invalid JSON"),
        (b"{", "Invalid JSON"),
        (b"[]", "should be an object"),
        (b"\xff\xfe", "Invalid JSON"),
        (b'{"turns": []}', "pictures_in: Field required"),
        (b'{"pictures_in": "talk-pictures", "turns": [{}]}', r"turns\.0\.\w+: Field required"),
    ],
)
def test_a_file_that_was_cut_off_is_refused(studio: DiffusionGPT, tmp_path: Path, content: bytes, reason: str) -> None:
    """Half a file, or one of another kind, is a typed error that names what it lacks."""
    file = tmp_path / "talk.json"
    file.write_bytes(content)
    with pytest.raises(ConversationError, match=reason):
        Conversation.load(file, studio=studio)
    with pytest.raises(ConversationError):
        Conversation.load(tmp_path / "missing.json", studio=studio)


def test_pictures_stay_in_their_files_until_they_are_looked_at(studio: DiffusionGPT, saved: Path) -> None:
    """Opening a conversation decodes none of them; one that has become unreadable says so when it is asked for."""
    picture = next((saved.parent / "talk-pictures").glob("*.png"))
    picture.write_bytes(picture.read_bytes()[:-200])
    shown = Conversation.load(saved, studio=studio).turns[-1].generation
    assert shown is not None
    assert (len(shown.images), len(shown.records)) == (1, 1)
    with pytest.raises(PictureError, match="cannot be read"):
        shown.images[0].load()


def test_a_picture_belongs_to_one_turn(studio: DiffusionGPT, saved: Path) -> None:
    """A small file may not make thousands of pictures out of one."""
    content = json.loads(saved.read_text(encoding="utf-8"))
    content["turns"] *= 2
    saved.write_text(json.dumps(content), encoding="utf-8")
    with pytest.raises(ConversationError, match="named twice"):
        Conversation.load(saved, studio=studio)
