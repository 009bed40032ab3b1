"""Odd prompts in English and Chinese, by kind, with the rule that labels each kind.

A label names only the fields that its rule speaks of; `styles` is the set of style nodes that are asked for. Written by
hand from the rule before the code was run on them, and corrected only where the label broke its own rule.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from diffusiongpt.flow import Understanding


class Kind(NamedTuple):
    """One kind of odd prompt.

    Attributes:
        rule: What a person would mean, which labels the cases.
        cases: Prompts with the fields that the rule determines.
    """

    rule: str
    cases: tuple[tuple[str, dict[str, Any]], ...]


NO_TEXT: dict[str, Any] = {"texts": ()}
NONE: frozenset[str] = frozenset()

KINDS: dict[str, Kind] = {
    "inches": Kind(
        "A mark behind a number stands for inches or feet and quotes nothing, unless it closes what was opened.",
        (
            ('a 24" monitor next to a 27" monitor', NO_TEXT),
            ('a 6" ruler and a 12" ruler on a desk', NO_TEXT),
            ("a 5'10\" tall man in a suit", NO_TEXT),
            ("a 6' tall woman beside a 4' fence", NO_TEXT),
            ('a 9" pizza, a 12" pizza and a 16" pizza', NO_TEXT),
            ('a 55" TV on the wall', NO_TEXT),
            ('a vintage 7" vinyl record and a 12" record', NO_TEXT),
            ('a 3.5" floppy disk', NO_TEXT),
            ('an 11" x 17" poster of a whale', NO_TEXT),
            ('a 13" laptop with a sign that says "SALE"', {"texts": ("SALE",)}),
            ('a pub sign that says "Est. 1924"', {"texts": ("Est. 1924",)}),
            ('the number "42" printed on a jersey', {"texts": ("42",)}),
            ('一台24"显示器放在27"显示器旁边', NO_TEXT),
            ('桌上一个12"的披萨和一个9"的披萨', NO_TEXT),
            ('一台55"的电视挂在墙上', NO_TEXT),
        ),
    ),
    "wholly quoted": Kind(
        "A prompt that stands in quotation marks as a whole, or the content of an order that does, is the prompt.",
        (
            ('"a red fox in the snow"', {"texts": (), "prompt": "a red fox in the snow"}),
            (
                "“a watercolor of a lighthouse”",
                {"texts": (), "prompt": "a watercolor of a lighthouse", "styles": {"watercolor"}},
            ),
            ("'an old man with a pipe'", {"texts": (), "prompt": "an old man with a pipe"}),
            ('"A photo of two dogs."', {"texts": (), "styles": {"photo"}}),
            ('draw "a cat in the rain"', {"texts": (), "prompt": "a cat in the rain"}),
            ('Please generate "an anime girl with an umbrella"', {"texts": (), "styles": {"anime"}}),
            ("«a castle at night»", {"texts": (), "prompt": "a castle at night"}),
            ("“一只在雪地里的红狐狸”", {"texts": (), "prompt": "一只在雪地里的红狐狸"}),
            ('"水彩画，海边的灯塔"', {"texts": (), "styles": {"watercolor"}}),
            ("「油画，一位老人」", {"texts": (), "styles": {"oil_painting"}}),
            ("画“一只戴帽子的猫”", {"texts": (), "prompt": "一只戴帽子的猫"}),
            ("\"a shop sign that says 'OPEN'\"", {"texts": ("OPEN",)}),
        ),
    ),
    "quoted with a reason": Kind(
        "Quoted words are to be read in the picture if a verb of writing, a thing that carries "
        "writing, a word for text, or capitals say so; they are taken word for word.",
        (
            ('a neon sign reading "Open 24/7"', {"texts": ("Open 24/7",)}),
            ("a mug with 'World's Best Dad' on it", {"texts": ("World's Best Dad",)}),
            ('a birthday cake with "Happy 30th, Ana!" in icing', {"texts": ("Happy 30th, Ana!",)}),
            ('a T-shirt printed with "I ❤ NY"', {"texts": ("I ❤ NY",)}),
            ('movie poster titled "The Last Train"', {"texts": ("The Last Train",)}),
            ('a book cover, title "Dune Sea", author "M. Ito"', {"texts": ("Dune Sea", "M. Ito")}),
            ('the words "less is more" carved in stone', {"texts": ("less is more",)}),
            ('"SALE" in big red letters', {"texts": ("SALE",)}),
            ('"welcome home" written on a doormat', {"texts": ("welcome home",)}),
            ('a speech bubble: "Ouch!"', {"texts": ("Ouch!",)}),
            ('a protest banner, "No More War"', {"texts": ("No More War",)}),
            ('logo for a bakery called Rise with the tagline "fresh daily"', {"texts": ("fresh daily",)}),
            ('signs saying "LEFT", "RIGHT" and "STOP"', {"texts": ("LEFT", "RIGHT", "STOP")}),
            ("a street sign with the text „Hauptstraße“", {"texts": ("Hauptstraße",)}),
            ("une affiche avec le titre « Bonjour Paris »", {"texts": ("Bonjour Paris",)}),
            ('a chalkboard says "Soup: $4.50"', {"texts": ("Soup: $4.50",)}),
            ("一块写着“欢迎光临”的木牌", {"texts": ("欢迎光临",)}),
            ("海报，标题是「夏日祭」", {"texts": ("夏日祭",)}),
            ("T恤上印着“永不放弃”四个字", {"texts": ("永不放弃",)}),
            ("墙上有“静”字的书法", {"texts": ("静",)}),
            ("一本书，封面写着《山海经》", {"texts": ("山海经",)}),
            ("霓虹灯招牌“深夜食堂”", {"texts": ("深夜食堂",)}),
            ("蛋糕上写着“生日快乐”和“小明”", {"texts": ("生日快乐", "小明")}),
            ("一張寫著「恭喜發財」的紅紙", {"texts": ("恭喜發財",), "scripts": ("Hani",)}),
            ("路牌上用英文写着“Main Street”", {"texts": ("Main Street",), "scripts": ("Latn",)}),
            ("牌子上写着“OPEN 营业中”", {"texts": ("OPEN 营业中",), "scripts": ("Hani", "Latn")}),
        ),
    ),
    "quoted without a reason": Kind(
        "Titles of works, nicknames, and words used with a distance are not to be written into the picture.",
        (
            ('a scene from the movie "Blade Runner"', NO_TEXT),
            ('a cat named "Mochi" sleeping', NO_TEXT),
            ('in the style of "Spirited Away"', NO_TEXT),
            ('a so-called "smart" house on a hill', NO_TEXT),
            ('the painting "Starry Night" as a garden', NO_TEXT),
            ('a dog known as "Rex" running', NO_TEXT),
            ('a boxer nicknamed "the Hammer"', NO_TEXT),
            ('characters from "Alice in Wonderland" at tea', NO_TEXT),
            ("《功夫熊猫》里的熊猫在打拳", NO_TEXT),
            ("模仿《思想者》的机器人", NO_TEXT),
            ("一只叫“小白”的狗", NO_TEXT),
            ("电影《花样年华》风格的走廊", NO_TEXT),
            ("所谓的“未来城市”", NO_TEXT),
            ("《西游记》中的孙悟空", NO_TEXT),
            ("a dog's bone and the cats' toys", NO_TEXT),
            ("rock 'n' roll band in the '90s", NO_TEXT),
        ),
    ),
    "unquoted text": Kind(
        "After a verb of writing on a thing that carries writing, or behind 'title:' and its kin, "
        "words are text without quotation marks, up to where the clause goes on about something else.",
        (
            ("a sign that says welcome home", {"texts": ("welcome home",)}),
            ("a wooden sign that says Keep Out, at dusk", {"texts": ("Keep Out",)}),
            ("a neon sign reading Jazz Bar above a door", {"texts": ("Jazz Bar",)}),
            ("a banner saying Happy New Year", {"texts": ("Happy New Year",)}),
            ("a coffee mug with text that reads Monday Again", {"texts": ("Monday Again",)}),
            ("poster, title: The Long Road", {"texts": ("The Long Road",)}),
            ("a magazine cover, headline: Summer Is Here, bright colors", {"texts": ("Summer Is Here",)}),
            ("a shirt that says hello in red letters", {"texts": ("hello",)}),
            ("a cake with the words happy birthday on it", {"texts": ("happy birthday",)}),
            ("a stone with the word HOPE carved into it", {"texts": ("HOPE",)}),
            ("a girl reading a book under a tree", NO_TEXT),
            ("a man saying goodbye to his son", NO_TEXT),
            ("a woman writing a letter", NO_TEXT),
            ("a boy reading in bed", NO_TEXT),
            ("海报，标题：城市之光", {"texts": ("城市之光",)}),
            ("帮我做一张海报，标题是春天来了，背景是樱花", {"texts": ("春天来了",)}),
            ("一块写着欢迎光临的牌子", {"texts": ("欢迎光临",)}),
            ("墙上的横幅写着新年快乐，红色背景", {"texts": ("新年快乐",)}),
            ("一件印着自由的T恤", {"texts": ("自由",)}),
            ("路牌上写着南京路，下雨的夜晚", {"texts": ("南京路",)}),
            ("海報，標題：夏日音樂節", {"texts": ("夏日音樂節",)}),
            ("她在纸上写着日记", NO_TEXT),
            ("一个女孩在看书", NO_TEXT),
            ("宣传单，标语：绿色出行，文字清晰", {"texts": ("绿色出行",)}),
        ),
    ),
    "denied styles": Kind(
        "A style that is denied is not asked for; one that is asked for instead is.",
        (
            ("photo of a woman, not anime", {"styles": {"photo"}, "unwanted": {"anime"}}),
            ("a castle, not a cartoon", {"styles": NONE, "unwanted": {"cartoon"}}),
            ("less anime, more realistic girl", {"styles": {"photo"}, "unwanted": {"anime"}}),
            ("半身照，非卡通", {"styles": NONE, "unwanted": {"cartoon"}}),
            ("a fox without anime style", {"styles": NONE, "unwanted": {"anime"}}),
            ("no 3d render, a watercolor of a pear", {"styles": {"watercolor"}, "unwanted": {"render_3d"}}),
            ("oil painting of a ship rather than a photograph", {"styles": {"oil_painting"}, "unwanted": {"photo"}}),
            ("a dragon, avoid pixel art", {"styles": NONE, "unwanted": {"pixel_art"}}),
            ("a robot, please don't make it cartoonish", {"styles": NONE}),
            ("a sketch of a horse, no watercolor", {"styles": {"sketch"}, "unwanted": {"watercolor"}}),
            ("realistic photo instead of a painting", {"styles": {"photo"}}),
            ("a cat --no anime", {"styles": NONE, "unwanted": {"anime"}}),
            ("写实照片，不要动漫", {"styles": {"photo"}, "unwanted": {"anime"}}),
            ("不要卡通风格，要水彩的狗", {"styles": {"watercolor"}, "unwanted": {"cartoon"}}),
            ("一位女士的照片，不是动漫", {"styles": {"photo"}, "unwanted": {"anime"}}),
            ("城堡，别用像素风", {"styles": NONE, "unwanted": {"pixel_art"}}),
            ("油画，而不是照片", {"styles": {"oil_painting"}, "unwanted": {"photo"}}),
            ("a portrait, (anime:0)", {"styles": NONE, "unwanted": {"anime"}}),
        ),
    ),
    "denied things": Kind(
        (
            "A denial reaches as far as its noun, over 'or' and 'and' to the next one, and not to what "
            "follows a preposition."
        ),
        (
            ("photograph without people of an old library", {"negative": "people", "styles": {"photo"}}),
            ("a street without cars at night", {"negative": "cars"}),
            ("a people-free street in Rome", {"negative": "people", "not_subjects": {"character"}}),
            ("除了猫以外的动物", {"negative": "猫"}),
            ("一只猫，除了猫以外还有一只狗", {"negative": ""}),
            ("非洲草原上的狮子", {"negative": ""}),
            ("a beach with no people in the morning", {"negative": "people"}),
            ("a forest, no animals, no people", {"negative": "animals, people"}),
            ("a kitchen without any dirty dishes on the table", {"negative": "dirty dishes"}),
            ("a portrait with no glasses or hat", {"negative": "glasses or hat"}),
            ("a street without cars and people", {"negative": "cars and people"}),
            ("a logo free of text", {"negative": "text"}),
            ("an empty room, no one in it", {"negative": "people"}),
            ("a landscape, do not include buildings", {"negative": "buildings"}),
            ("a bowl of fruit, avoid bananas", {"negative": "bananas"}),
            ("a city skyline, no text, no watermark", {"negative": "text, watermark"}),
            ("a sky without a single cloud over the sea", {"negative": "cloud"}),
            ("a street with no signs of life in winter", {"negative": "life"}),
            ("没有人的街道", {"negative": "人"}),
            ("街道，不要汽车和行人", {"negative": "汽车和行人"}),
            ("一张没有文字的海报", {"negative": "文字"}),
            ("无人的海滩，日落", {"negative": "人"}),
            ("一座花园，不要有动物", {"negative": "动物"}),
            ("海邊的小屋，不要船", {"negative": "船"}),
            ("山景，不出现建筑", {"negative": "建筑"}),
            ("桌子上不要放杯子，只有一本书", {"prompt": "桌子上不要放杯子，只有一本书"}),
        ),
    ),
    "nothing denied": Kind(
        "Signs, names, idioms and what somebody does not do deny no thing.",
        (
            ("a no smoking sign", {"negative": ""}),
            ("a no entry sign on a wall", {"negative": ""}),
            ("a red no parking sign next to a tree", {"negative": ""}),
            ("no swimming sign at a lake", {"negative": ""}),
            ("a Do Not Disturb sign on a hotel door", {"negative": ""}),
            ("No Man's Sky landscape", {"negative": ""}),
            ("jersey with No. 7 on the back", {"negative": ""}),
            ("not only a cat but also a dog", {"negative": ""}),
            ("forget-me-nots in a vase", {"negative": ""}),
            ("a lighthouse not far from the shore", {"negative": ""}),
            ("a no-nonsense detective", {"negative": ""}),
            ("James Bond in Dr. No", {"negative": ""}),
            ("sugar-free cookies on a plate", {"negative": ""}),
            ("a woman who is not smiling", {"negative": ""}),
            ("a runner, no matter the weather", {"negative": ""}),
            ("No Country for Old Men desert", {"negative": ""}),
            ("禁止吸烟标志", {"negative": ""}),
            ("一架无人机飞过城市", {"negative": ""}),
            ("不锈钢的水壶", {"negative": ""}),
            ("桌上的无花果", {"negative": ""}),
            ("一个写着“禁止入内”的牌子", {"negative": "", "texts": ("禁止入内",)}),
            ("老虎没有张嘴", {"negative": ""}),
            ("不仅有猫，还有狗", {"negative": ""}),
            ("无脸男坐在电车上", {"negative": ""}),
        ),
    ),
    "infotext": Kind(
        (
            "Pasted generation parameters are taken apart: the words are drawn, the negatives are not, numbers apply, "
            "the rest is named."
        ),
        (
            (
                (
                    "a fox, masterpiece\nNegative prompt: anime, blurry\nSteps: 20, Sampler: Euler a, CFG scale: "
                    "7, Seed: 42, Size: 512x768, Model: dreamshaper"
                ),
                {
                    "prompt": "a fox, masterpiece",
                    "negative": "anime, blurry",
                    "seed": 42,
                    "steps": 20,
                    "guidance": 7.0,
                    "size": (512, 768),
                    "styles": NONE,
                    "unused": {"sampler", "model"},
                },
            ),
            (
                (
                    "portrait of a knight Negative prompt: cartoon Steps: 30, Sampler: DPM++ 2M Karras, CFG "
                    "scale: 5.5, Seed: 7, Size: 832x1216"
                ),
                {
                    "prompt": "portrait of a knight",
                    "negative": "cartoon",
                    "seed": 7,
                    "steps": 30,
                    "guidance": 5.5,
                    "size": (832, 1216),
                    "unused": {"sampler"},
                },
            ),
            ("a lake\nNegative prompt: people", {"prompt": "a lake", "negative": "people"}),
            (
                (
                    "castle at dusk\nSteps: 25, Sampler: UniPC, CFG scale: 4, Seed: -1, Size: 1024x1024, Model "
                    "hash: abc, Version: v1.9"
                ),
                {
                    "prompt": "castle at dusk",
                    "seed": None,
                    "steps": 25,
                    "size": (1024, 1024),
                    "unused": {"sampler", "model hash", "version"},
                },
            ),
            (
                (
                    "1girl, <lora:detail:0.6>\nNegative prompt: (worst quality:1.4), lowres\nSteps: 28, Sampler: "
                    "Euler, CFG scale: 7, Seed: 1"
                ),
                {
                    "prompt": "1girl",
                    "negative": "worst quality, lowres",
                    "adapters": {"detail": 0.6},
                    "steps": 28,
                    "seed": 1,
                },
            ),
            (
                "a red car\nNegative prompt: blue\nSteps: 99999, Sampler: x, CFG scale: 7, Seed: 5",
                {"steps": None, "seed": 5, "unused": {"sampler", "steps"}},
            ),
            (
                (
                    '{"prompt": "a red fox", "negative_prompt": "snow", "seed": 9, "steps": 12, "width": 768, '
                    '"height": 512}'
                ),
                {"prompt": "a red fox", "negative": "snow", "seed": 9, "steps": 12, "size": (768, 512)},
            ),
            ("Positive prompt: a barn\nNegative prompt: cows", {"prompt": "a barn", "negative": "cows"}),
            ("一只猫\n反向提示词：模糊，低质量", {"prompt": "一只猫", "negative": "模糊，低质量"}),
            ("正面提示词：雪山\n负面提示词：人物", {"prompt": "雪山", "negative": "人物"}),
            (
                "赛博朋克城市\nNegative prompt: 动漫\nSteps: 20, Sampler: Euler a, CFG scale: 7, Seed: 3",
                {"prompt": "赛博朋克城市", "negative": "动漫", "seed": 3, "styles": {"fantasy_art"}},
            ),
            ("a recipe card with steps: 3 in a list", {"steps": None, "seed": None, "unused": NONE}),
            ("a photo of a negative film strip", {"negative": "", "unused": NONE}),
        ),
    ),
    "weights": Kind(
        "Weights in parentheses go, their words stay; a weight of nothing or less denies the words.",
        (
            (
                "a fox, (red hat:1.3), snow",
                {"prompt": "a fox, red hat, snow", "emphasis": {"red hat": 1.3}, "aspect": None},
            ),
            ("((masterpiece)), a castle", {"prompt": "masterpiece, a castle", "emphasis": {"masterpiece": 1.21}}),
            ("(blue eyes:0.8), portrait", {"prompt": "blue eyes, portrait", "emphasis": {"blue eyes": 0.8}}),
            ("a dog, (cat:-1)", {"prompt": "a dog", "negative": "cat"}),
            ("a street, (people:0)", {"prompt": "a street", "negative": "people"}),
            ("{{detailed}} forest", {"prompt": "detailed forest"}),
            ("(((best quality))), ((1girl)), solo", {"prompt": "best quality, 1girl, solo"}),
            ("[[blurry]] background, a cup", {"prompt": "blurry background, a cup"}),
            ("a (very (red:1.2) car:1.1) on a road", {"prompt": "a very red car on a road"}),
            (r"a girl \(anime character\) in a garden", {"prompt": "a girl (anime character) in a garden"}),
            ("a lake (at golden hour)", {"prompt": "a lake (at golden hour)", "emphasis": {}}),
            ("hot dog::2 cold fries::1", {"emphasis": {"hot dog": 2.0}}),
            ("a clock (10:30) on a wall", {"prompt": "a clock (10:30) on a wall", "emphasis": {}}),
            ("(水彩:1.3)，一只猫", {"prompt": "水彩，一只猫", "styles": {"watercolor"}, "emphasis": {"水彩": 1.3}}),
            ("（一只猫），((雪地))", {"prompt": "（一只猫），雪地"}),
            ("(红色围巾:1.5), 女孩", {"prompt": "红色围巾, 女孩", "emphasis": {"红色围巾": 1.5}}),
        ),
    ),
    "adapters and chunks": Kind(
        (
            "LoRA tags, embeddings, BREAK, wildcards and schedules are no words of the picture; LoRAs "
            "keep name and weight."
        ),
        (
            (
                "a fox <lora:add_detail_v4:3>",
                {"prompt": "a fox", "adapters": {"add_detail_v4": 3.0}, "aspect": None, "size": None},
            ),
            (
                "<lora:pixel-art-xl:0.8> a sword",
                {"prompt": "a sword", "adapters": {"pixel-art-xl": 0.8}, "styles": NONE},
            ),
            ("a knight <lora:armor:0.7:0.5> in rain", {"prompt": "a knight in rain", "adapters": {"armor": 0.7}}),
            ("a fox <lyco:style_b>", {"prompt": "a fox", "adapters": {"style_b": 1.0}}),
            ("a fox <lora:a:1><lora:b:0.5>", {"prompt": "a fox", "adapters": {"a": 1.0, "b": 0.5}}),
            ("a fox <hypernet:anime:1>", {"prompt": "a fox", "styles": NONE, "unused": {"hypernet"}}),
            ("a fox, embedding:EasyNegative", {"prompt": "a fox", "unused": {"embedding"}}),
            ("a red house BREAK a blue car", {"prompt": "a red house, a blue car", "unused": {"BREAK"}}),
            ("a red house\nBREAK\na blue car", {"prompt": "a red house, a blue car", "unused": {"BREAK"}}),
            ('a sign that says "COFFEE BREAK"', {"texts": ("COFFEE BREAK",), "unused": NONE}),
            ("COFFEE BREAK AT THE OFFICE", {"prompt": "COFFEE BREAK AT THE OFFICE", "unused": NONE}),
            ("a break in the clouds", {"prompt": "a break in the clouds", "unused": NONE}),
            ("a __color__ bird", {"prompt": "a color bird", "unused": {"wildcard"}}),
            ("a {red|green|blue} apple", {"prompt": "a red apple", "unused": {"choice"}}),
            ("a [cat:dog:0.5] in a garden", {"prompt": "a cat in a garden", "unused": {"schedule"}}),
            ("一只狐狸 <lora:国风:0.8>", {"prompt": "一只狐狸", "adapters": {"国风": 0.8}, "styles": NONE}),
            ("红房子 BREAK 蓝车", {"prompt": "红房子, 蓝车", "unused": {"BREAK"}}),
            ("<lora:水墨:1>山水画", {"prompt": "山水画", "adapters": {"水墨": 1.0}}),
        ),
    ),
    "flags": Kind(
        "Flags of Midjourney are no words: the shape, the seed and what must not be there apply, the rest is named.",
        (
            ("a fox --ar 16:9", {"prompt": "a fox", "aspect": "16:9"}),
            ("a fox --ar 16:9 --v 6.1", {"prompt": "a fox", "aspect": "16:9", "unused": {"v"}}),
            ("a fox --no cars, people --ar 3:2", {"prompt": "a fox", "negative": "cars, people", "aspect": "3:2"}),
            ("a castle --seed 77 --stylize 250", {"prompt": "a castle", "seed": 77, "unused": {"stylize"}}),
            ("a castle —ar 2:3 —v 7", {"prompt": "a castle", "aspect": "2:3", "unused": {"v"}}),
            ("a girl --niji 6 --s 50", {"prompt": "a girl", "unused": {"niji", "s"}}),
            ("a pattern of leaves --tile", {"prompt": "a pattern of leaves", "unused": {"tile"}}),
            ("a bridge --style raw --c 20", {"prompt": "a bridge", "unused": {"style", "c"}}),
            (
                "https://example.com/cat.png a cat in armor --iw 1.5",
                {"prompt": "a cat in armor", "unused": {"image", "iw"}},
            ),
            ("a fox --aspect 4:5 --quality 2", {"prompt": "a fox", "aspect": "4:5", "unused": {"quality"}}),
            ("a fox --sref 12345 --sw 100", {"prompt": "a fox", "unused": {"sref", "sw"}}),
            ("a cat -- sleeping on a sofa", {"prompt": "a cat -- sleeping on a sofa", "unused": NONE}),
            ("a state-of-the-art kitchen", {"prompt": "a state-of-the-art kitchen", "unused": NONE}),
            ("一只狐狸 --ar 9:16 --no 雪", {"prompt": "一只狐狸", "aspect": "9:16", "negative": "雪"}),
            ("城市夜景 --v 6 --ar 21:9", {"prompt": "城市夜景", "aspect": "21:9", "unused": {"v"}}),
        ),
    ),
    "sizes": Kind(
        (
            "Two numbers are the size of the picture if they could be one and count pixels; grids, "
            "prints and sprites are not."
        ),
        (
            ("a fox, 1024x768", {"size": (1024, 768)}),
            ("a fox, 512 x 512 pixels", {"size": (512, 512)}),
            ("wallpaper 1920×1080 of mountains", {"size": (1920, 1080)}),
            ("64x64 pixel art sprite of a knight", {"size": None, "aspect": "1:1", "styles": {"pixel_art"}}),
            ("a 32x32 icon of a sword, pixel art", {"size": None, "styles": {"pixel_art"}}),
            ("a 4x4 grid of objects", {"size": None, "aspect": None, "count": 16}),
            ("a 3x3 Rubik's cube", {"size": None, "aspect": None}),
            ("a 4x4 truck in the mud", {"size": None, "aspect": None}),
            ("an 8x10 inch print of a heron", {"size": None, "aspect": "4:5"}),
            ("a 24x36 inch movie poster", {"size": None, "aspect": "2:3"}),
            ("a 2x4 piece of lumber", {"size": None}),
            ("a 20x30 m swimming pool", {"size": None, "aspect": None}),
            ("a photo of a 99999x99999 maze", {"size": None}),
            ("一张1024x768的风景画", {"size": (1024, 768)}),
            ("64x64像素的小图标", {"size": (64, 64)}),
            ("4x4的物品网格", {"size": None, "count": 16}),
            ("三乘三的九宫格", {"size": None}),
            ("1080*1920的手机壁纸", {"size": (1080, 1920)}),
        ),
    ),
    "shapes": Kind(
        "A shape is a common ratio, a paper size, or a word for one; times, scores and verses are none.",
        (
            ("a fox, 16:9", {"aspect": "16:9"}),
            ("a portrait in 4:5 aspect ratio", {"aspect": "4:5"}),
            ("aspect ratio 7:3, a river", {"aspect": "7:3"}),
            ("A4 poster for a jazz concert", {"aspect": "210:297"}),
            ("a landscape A4 flyer", {"aspect": "297:210"}),
            ("vertical poster of a whale", {"aspect": "3:4"}),
            ("phone wallpaper, aurora", {"aspect": "9:16"}),
            ("a square image of a rose", {"aspect": "1:1"}),
            ("a widescreen view of a canyon", {"aspect": "16:9"}),
            ("a clock showing 9:16", {"aspect": None}),
            ("a digital watch at 10:45", {"aspect": None}),
            ("a scoreboard, the home team won 3:2", {"aspect": None}),
            ("illustration of John 3:16", {"aspect": None}),
            ("a map at a scale of 1:50", {"aspect": None}),
            ("meeting at 4:3 pm", {"aspect": None}),
            ("an Audi A4 on a road", {"aspect": None}),
            ("竖版海报，音乐节", {"aspect": "3:4"}),
            ("横版，草原上的马", {"aspect": "4:3"}),
            ("手机壁纸，星空", {"aspect": "9:16"}),
            ("A4海报，招聘", {"aspect": "210:297"}),
            ("比例16:9，雪山", {"aspect": "16:9"}),
            ("宽高比为3:2的照片", {"aspect": "3:2"}),
            ("豎版海報，電影節", {"aspect": "3:4"}),
            ("时钟指向9:16", {"aspect": None}),
            ("比分3:2的足球赛", {"aspect": None}),
        ),
    ),
    "counts": Kind(
        "A number before a plural counts it; years, units, bits and articles count nothing.",
        (
            ("three red apples on a table", {"count": 3}),
            ("a dozen eggs in a basket", {"count": 12}),
            ("five small birds on a wire", {"count": 5}),
            ("a couple of dogs", {"count": 2}),
            ("two hundred sheep on a hill", {"count": None}),
            ("一张没有人的海滩照片", {"count": None}),
            ("seven people around a table", {"count": 7}),
            ("a 50 years old man", {"count": None}),
            ("a 16 bit game", {"count": None}),
            ("shot at 85 mm, bokeh lights", {"count": None}),
            ("a child aged 7", {"count": None}),
            ("one hundred and one dalmatians", {}),
            ("a boy in the 1980s", {"count": None}),
            ("5 minutes to midnight", {"count": None}),
            ("两只猫在窗边", {"count": 2}),
            ("画三个苹果", {"count": 3}),
            ("12只鸽子飞过广场", {"count": 12}),
            ("一张海报", {"count": None}),
            ("第三个房间", {"count": None}),
            ("五位老人在下棋", {"count": 5}),
            ("三隻貓在屋頂上", {"count": 3}),
        ),
    ),
    "transparent and colours": Kind(
        (
            "A transparent background is one however it is said; colours are codes and names, not things "
            "called like colours."
        ),
        (
            ("logo of a fox, transparent background", {"transparent": True, "negative": ""}),
            ("a sticker of a cat with no background", {"transparent": True, "negative": ""}),
            ("an icon, PNG with alpha channel", {"transparent": True}),
            ("a transparent glass vase on a table", {"transparent": False}),
            ("transparent logo, #FF6600", {"transparent": True, "colors": ("#FF6600",)}),
            ("a #f60 circle on #003366", {"colors": ("#FF6600", "#003366")}),
            ("a red bus and a blue car", {"colors": ("#FF0000", "#0000FF")}),
            ("an orange on a plate", {"colors": ()}),
            ("an orange cat", {"colors": ("#FFA500",)}),
            ("issue #12345 on a screen", {"colors": ()}),
            ("a golden retriever in a garden", {"colors": ()}),
            ("a black and white photo of a street", {"styles": {"photo"}}),
            ("透明背景的logo", {"transparent": True}),
            ("背景透明，卡通狗", {"transparent": True, "styles": {"cartoon"}}),
            ("免抠图标，一只猫", {"transparent": True}),
            ("透明的玻璃杯", {"transparent": False}),
            ("红色的气球和蓝色的天空", {"colors": ("#FF0000", "#0000FF")}),
            ("主色#FF6600的海报", {"colors": ("#FF6600",)}),
        ),
    ),
    "edits": Kind(
        (
            "An order to change something that is already there asks for an edit and says what it refers to; an order "
            "to make something new does not."
        ),
        (
            ("make the background night", {"edit": True, "refers": "the background"}),
            ("give the cat a hat", {"edit": True, "refers": "the cat"}),
            ("remove the car from this photo", {"edit": True, "refers": "this photo"}),
            ("change her dress to red", {"edit": True}),
            ("turn it into a watercolor", {"edit": True, "refers": "it"}),
            ("replace the sky with a sunset", {"edit": True}),
            ("add a hat to the dog", {"edit": True}),
            ("edit this image: brighter", {"edit": True, "refers": "this image"}),
            ("make me a picture of a cat", {"edit": False}),
            ("make a poster of a whale", {"edit": False}),
            ("give me three dogs", {"edit": False}),
            ("draw the cat with a hat", {"edit": False}),
            ("a woman changing a tire", {"edit": False}),
            ("a painter removing paint from a wall", {"edit": False}),
            ("make the Eiffel Tower out of cheese", {"edit": False}),
            ("把背景换成夜晚", {"edit": True, "refers": "背景"}),
            ("给猫戴上帽子", {"edit": True, "refers": "猫"}),
            ("去掉左边的人", {"edit": True}),
            ("把这张照片变成水彩", {"edit": True}),
            ("把它改成蓝色", {"edit": True, "refers": "它"}),
            ("給貓戴上帽子", {"edit": True}),
            ("给我画一只猫", {"edit": False}),
            ("一个女孩把花放在桌上", {"edit": False}),
            ("帮我做一张海报", {"edit": False}),
        ),
    ),
    "things that are styles elsewhere": Kind(
        "A word for a tool, a material or a toy names a style only where the picture is made of it.",
        (
            ("lego set of the Colosseum", {"styles": NONE}),
            ("a pencil on a desk", {"styles": NONE}),
            ("a man painting a fence", {"styles": NONE}),
            ("a cat playing with a ball of yarn", {"styles": NONE}),
            ("a stained glass window in a church", {"styles": NONE}),
            ("she felt happy in the rain", {"styles": NONE}),
            ("a photographer in the desert", {"styles": NONE}),
            ("a photo album on a shelf", {"styles": NONE}),
            ("a comic convention crowd", {"styles": NONE}),
            ("a 3d printer in a workshop", {"styles": NONE}),
            ("a box of crayons", {"styles": NONE}),
            ("a model in a Bauhaus-style dress", {"styles": NONE}),
            ("an oil lamp on a table", {"styles": NONE}),
            ("an empty carton", {"styles": NONE}),
            ("a phonograph made of ice", {"styles": NONE}),
            ("a pink cat", {"styles": NONE}),
            ("pencil drawing of a desk", {"styles": {"sketch"}}),
            ("a fox in pencil", {"styles": {"sketch"}}),
            ("a castle in lego style", {"styles": {"toy_figure"}}),
            ("a painting of a fence", {"styles": {"oil_painting"}}),
            ("a charcoal portrait of a miner", {"styles": {"sketch"}}),
            ("a dragon made of felt", {"styles": {"papercut"}}),
            ("桌上的一支铅笔", {"styles": NONE}),
            ("乐高积木搭的城堡", {"styles": NONE}),
            ("摄影师在沙漠里", {"styles": NONE}),
            ("画家在刷墙", {"styles": NONE}),
            ("电影院门口的人群", {"styles": NONE}),
            ("动画师在办公室工作", {"styles": NONE}),
            ("穿着包豪斯风格连衣裙的模特", {"styles": NONE}),
            ("铅笔画的狐狸", {"styles": {"sketch"}}),
            ("乐高风格的城堡", {"styles": {"toy_figure"}}),
            ("黏土风格的兔子", {"styles": {"cartoon_3d"}}),
        ),
    ),
    "names and idioms": Kind(
        "A phrase whose words mean something else names neither an animal nor a style.",
        (
            ("a hot dog with mustard", {"not_subjects": {"animal"}}),
            ("raining cats and dogs in London", {"not_subjects": {"animal"}}),
            ("a teddy bear on a bed", {"not_subjects": {"animal"}}),
            ("a bull market chart", {"not_subjects": {"animal"}}),
            ("dragon fruit on a plate", {"not_subjects": {"animal"}}),
            ("a fish tank in an office", {"not_subjects": {"animal"}}),
            ("a construction crane over the city", {"not_subjects": {"animal"}}),
            ("a girl with pigtails", {"not_subjects": {"animal"}}),
            ("a piece of cake, as they say", {"styles": NONE}),
            ("depth of field, a rose", {"not_subjects": {"scene"}}),
            ("马路上的汽车", {"not_subjects": {"animal"}}),
            ("马克杯里的咖啡", {"not_subjects": {"animal"}}),
            ("穿牛仔裤的女孩", {"not_subjects": {"animal"}}),
            ("一个热狗", {"not_subjects": {"animal"}}),
            ("龙舟比赛", {"not_subjects": {"animal"}}),
            ("罗马的广场", {"not_subjects": {"animal"}}),
        ),
    ),
    "traditional and Japanese": Kind(
        "Traditional Chinese is read as simplified is, and texts stay as typed; Japanese is read by its common words.",
        (
            ("水墨畫風格的山水", {"styles": {"ink_wash"}, "language": "zh"}),
            ("一隻貓的油畫", {"styles": {"oil_painting"}, "subjects": {"animal"}}),
            ("動漫風格的戰士", {"styles": {"anime"}, "subjects": {"character"}}),
            ("剪紙風格的龍", {"styles": {"papercut"}}),
            ("寫實照片，雪山", {"styles": {"photo"}, "subjects": {"scene"}}),
            ("卡通熊貓", {"styles": {"cartoon"}, "subjects": {"animal"}}),
            ("賽博朋克城市", {"styles": {"fantasy_art"}}),
            ("像素風的城堡", {"styles": {"pixel_art"}}),
            ("水彩画の猫", {"styles": {"watercolor"}, "language": "ja", "subjects": {"animal"}}),
            ("アニメ風の女の子", {"styles": {"anime"}, "language": "ja"}),
            ("油絵の老人", {"styles": {"oil_painting"}, "language": "ja"}),
            ("ドット絵のドラゴン", {"styles": {"pixel_art"}, "language": "ja"}),
            ("浮世絵の富士山", {"styles": {"illustration"}}),
            ("雪山の写真", {"styles": {"photo"}, "language": "ja"}),
        ),
    ),
    "styles outside the taxonomy": Kind(
        "What the text calls a style is one, even if the taxonomy has no word for it.",
        (
            ("a living room in Nordic style", {"styles": {"other_style"}}),
            ("a chair in the style of Ettore Sottsass", {"styles": {"other_style"}}),
            ("北欧风格的客厅", {"styles": {"other_style"}}),
            ("安藤忠雄风格的美术馆", {"styles": {"other_style"}}),
            ("a new hair style for a woman", {"styles": NONE}),
            ("two dancers in the same style", {"styles": NONE}),
        ),
    ),
}
"""Kinds in the order of the reading: what is quoted, what is denied, what is markup, numbers, edits, words."""

PROMPTS = [(kind, prompt, label) for kind, (_, cases) in KINDS.items() for prompt, label in cases]

_READ: dict[str, Any] = {
    "texts": lambda read: read.text_to_render,
    "scripts": lambda read: read.text_scripts,
    "prompt": lambda read: read.prompt,
    "negative": lambda read: read.negative,
    "language": lambda read: read.language,
    "styles": lambda read: {weight.node for weight in read.styles},
    "unwanted": lambda read: set(read.unwanted),
    "size": lambda read: (read.width, read.height) if read.width else None,
    "aspect": lambda read: read.aspect_ratio,
    "count": lambda read: read.object_count,
    "transparent": lambda read: read.transparent_background,
    "colors": lambda read: read.colors,
    "edit": lambda read: read.edit,
    "refers": lambda read: read.refers_to,
    "seed": lambda read: read.markup.seed,
    "steps": lambda read: read.markup.num_inference_steps,
    "guidance": lambda read: read.markup.guidance_scale,
    "adapters": lambda read: {one.name: one.scale for one in read.markup.adapters},
    "emphasis": lambda read: {one.words: one.weight for one in read.markup.emphasis},
    "unused": lambda read: {one.name for one in read.markup.unused},
}
"""How each part of a label is read off an understanding."""


def differences(read: Understanding, label: dict[str, Any]) -> dict[str, Any]:
    """What of an understanding is not as labelled, by part of the label; empty if all is."""
    subjects, wrong = {weight.node for weight in read.subjects}, {}
    for name, wanted in label.items():
        if (name == "subjects" and not wanted <= subjects) or (name == "not_subjects" and wanted & subjects):
            wrong[name] = subjects
        elif name in _READ and (found := _READ[name](read)) != wanted:
            wrong[name] = found
    return wrong
