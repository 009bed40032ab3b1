"""How people ask, forbid and change, in their own wording and language."""

from __future__ import annotations

import pytest
from fixtures_routing import think

from diffusiongpt.understanding import read_wording


@pytest.mark.parametrize(
    ("prompt", "paradigm", "clean"),
    [
        ("pls draw a dragon eating pizza", "instruction", "a dragon eating pizza"),
        ("Can u make me a logo for a bakery?", "instruction", "a logo for a bakery"),
        ("hey, could you please generate an image of a foggy harbor?", "instruction", "a foggy harbor"),
        ("i wanna see a whale in the clouds", "inspiration", "a whale in the clouds"),
        ("It would be cool to have a cat astronaut", "inspiration", "a cat astronaut"),
        ("yo gimme a cyberpunk samurai", "instruction", "a cyberpunk samurai"),
        ("Could I get a portrait of a viking?", "instruction", "a portrait of a viking"),
        ("I'm looking for an image of a quiet library", "inspiration", "a quiet library"),
        ("要一张猫的图", "instruction", "猫"),
        ("能帮我画个小猫吗？", "instruction", "小猫"),
        ("想看一只会飞的猪", "inspiration", "一只会飞的猪"),
        ("請幫我畫一隻狗", "instruction", "一隻狗"),
        ("給我一張貓的圖片", "instruction", "貓"),
        ("生成圖像：一座青銅雕塑", "instruction", "一座青銅雕塑"),
        ("如果恐龍沒有滅絕，城市會怎樣", "hypothesis", "恐龍沒有滅絕，城市會怎樣"),
        ("猫を描いてください", "instruction", "猫"),
        ("富士山の絵を描いて", "instruction", "富士山"),
        ("猫の写真がほしい", "inspiration", "猫の写真"),
        ("もし猫が空を飛べたら", "hypothesis", "猫が空を飛べたら"),
        ("dessine-moi un mouton", "instruction", "un mouton"),
        ("Zeichne mir ein Bild von einer Katze", "instruction", "einer Katze"),
        ("dibuja un gato", "instruction", "un gato"),
        ("нарисуй кота", "instruction", "кота"),
        ("falls die Dinosaurier noch lebten", "hypothesis", "die Dinosaurier noch lebten"),
        ("si los gatos volaran", "hypothesis", "los gatos volaran"),
        ("si j'avais des ailes", "hypothesis", "j'avais des ailes"),
        ("Falls in Iceland, long exposure", "prompt", "Falls in Iceland, long exposure"),
        ("Si wafer under a microscope", "prompt", "Si wafer under a microscope"),
        ("고양이를 그려줘", "instruction", "고양이"),
        ("six icons in a row", "prompt", "six icons in a row"),
        ("Male breakdancer frozen in a headspin", "prompt", "Male breakdancer frozen in a headspin"),
        ("hello kitty on a swing", "prompt", "hello kitty on a swing"),
        ("想象中的城市", "prompt", "想象中的城市"),
    ],
)
def test_requests_are_worded_in_many_ways(prompt: str, paradigm: str, clean: str) -> None:
    """Slang, greetings, traditional characters and other languages order and wish as plain words do."""
    assert read_wording(prompt) == (paradigm, clean)


@pytest.mark.parametrize(
    ("simplified", "traditional"),
    [
        ("请生成一幅画面：两只穿红裙子的猫，写着“欢迎”", "請生成一幅畫面：兩隻穿紅裙子的貓，寫著“歡迎”"),
        ("把这张照片变成水墨画风格，去掉帽子", "把這張照片變成水墨畫風格，去掉帽子"),
        ("竖版海报，标题：城市之光，不要出现人物", "豎版海報，標題：城市之光，不要出現人物"),
        ("如果恐龙没有灭绝，广角镜头，血腥的战场", "如果恐龍沒有滅絕，廣角鏡頭，血腥的戰場"),
    ],
)
def test_traditional_chinese_is_read_as_simplified_is(simplified: str, traditional: str) -> None:
    """Every field is the same, with words of the text in its own characters."""
    mine, theirs = (think(prompt).understanding for prompt in (traditional, simplified))
    own = {"prompt", "text_to_render", "camera", "negative", "refers_to"}
    assert mine.model_dump(exclude=own) == theirs.model_dump(exclude=own)
    assert [len(str(getattr(mine, name))) for name in own] == [len(str(getattr(theirs, name))) for name in own]


@pytest.mark.parametrize(
    ("prompt", "negative"),
    [
        ("a beach w/o tourists", "tourists"),
        ("a face with neither beard nor glasses", "beard, glasses"),
        ("a dog that isn't wearing a collar", "collar"),
        ("exclude: text, logos, hands. A barn", "text, logos, hands"),
        ("anything but a cartoon: a wolf", "cartoon"),
        ("no-one around, just the sea", "people"),
        ("negative prompt: blurry, extra fingers\na hand holding a rose", "blurry, extra fingers"),
        ("a mannequin with no face", "face"),
        ("一只没有戴帽子的猫", "帽子"),
        ("街道，不要红色的汽车", "红色的汽车"),
        ("除了猫以外不要别的动物", "别的动物"),
        ("特别喜欢的别墅，级别很高", ""),
        ("人のいない駅", "人"),
        ("文字なし、猫のポスター", "文字"),
        ("帽子をかぶっていない少年", "帽子"),
        ("仕方ないという顔", ""),
        ("sin texto, un paisaje", "texto"),
        ("ohne Menschen, eine leere Straße", "Menschen"),
        ("без людей, пустой пляж", "людей"),
        ("사람 없이, 텅 빈 거리", "사람"),
        ("a hotel with no vacancy sign", ""),
        ("a sans serif logo, sin city", ""),
        ("a title in Comic Sans font", ""),
        ("Sans the skeleton in the snow", ""),
        ("Sans fighting in a long corridor", ""),
        ("SEM image of pollen", ""),
        ("SEM micrograph of an ant", ""),
        ("sem image of pollen", ""),
        ("a king sans crown", "crown"),
        ("Sans texte, un paysage", "texte"),
        ("um gato sem coleira", "coleira"),
    ],
)
def test_denials_are_worded_in_many_ways(prompt: str, negative: str) -> None:
    """What must not be there is read whole in many languages, and words that only look like denials are none."""
    assert think(prompt).understanding.negative == negative


@pytest.mark.parametrize(
    ("prompt", "edit"),
    [
        ("add snow", True),
        ("the same cat but in space", True),
        ("換成夜景", True),
        ("把她的头发染成蓝色", True),
        ("给小猫洗澡的女孩", False),
        ("背景を夜にして", True),
        ("帽子を消してください", True),
        ("cambia el fondo por una playa", True),
        ("enlève le chapeau", True),
        ("ersetze den Himmel", True),
        ("убери шляпу", True),
        ("배경을 밤으로 바꿔줘", True),
        ("Change of seasons, oil painting", False),
        ("Swap meet in a desert town", False),
        ("猫を描いて", False),
        ("고양이를 그려줘", False),
        ("Zeichne eine Katze", False),
    ],
)
def test_orders_to_change_are_worded_in_many_ways(prompt: str, edit: bool) -> None:
    """A verb of changing and what is there already make an edit in every language; names and orders to draw do not."""
    assert think(prompt).understanding.edit is edit


@pytest.mark.parametrize(
    ("prompt", "camera"),
    [
        ("shot on a 50mm f/1.8, shallow depth of field", ("50mm", "f/1.8", "shallow depth of field")),
        ("85毫米人像，仰角", ("85毫米", "仰角")),
        ("long-exposure waterfall", ("long-exposure",)),
        ("bird’s-eye view of a market", ("bird’s-eye view",)),
        ("a 4mm thick glass sheet, a macro-economy chart, a canon firing", ()),
    ],
)
def test_photographic_terms_are_whole_and_mean_photography(prompt: str, camera: tuple[str, ...]) -> None:
    """A term is read with its qualifier, and a measure, a science or a gun that looks like one is none."""
    assert think(prompt).understanding.camera == camera


@pytest.mark.parametrize(
    ("prompt", "safety"),
    [
        ("mujer desnuda", "adult"),
        ("ヌードの女性", "adult"),
        ("обнажённая женщина", "adult"),
        ("a nude-colored lipstick", "general"),
        ("a naked tree in winter", "general"),
        ("no nudity, a statue", "general"),
    ],
)
def test_nudity_has_names_in_other_languages(prompt: str, safety: str) -> None:
    """The class is the same in other languages; colours and trees are of none."""
    assert think(prompt).understanding.safety == safety
