"""`diffusiongpt demo`: the whole flow on the tiny zoo, pulled through a temporary hub on this machine."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Annotated, Any

import typer

from diffusiongpt.apps.cli.common import JsonOption, make_folder
from diffusiongpt.apps.cli.printing import print_json, say, show, show_wrapped

if TYPE_CHECKING:
    from PIL.Image import Image

    from diffusiongpt.pictures import Generation
    from diffusiongpt.studio import DiffusionGPT
    from diffusiongpt.testing import LocalHub

PROMPTS = (
    "an 8-bit red heart on a yellow background",
    "一幅铅笔画：白色背景上的蓝色的鱼",
    "oil painting of a green tree on a blue background",
    "请帮我画一个紫色星星，扁平矢量风格，黄色背景",
    "a crayon and graphite drawing of an orange house on a white background",
    "a yellow circle on a green background",
)
"""In two languages, styles by several names, and one that names none."""

COMPARED = "a pink fish on a white background"
SEED = 7
CELL = 256
"""Side of a picture on the sheet, in pixels."""


def demo(
    out: Annotated[Path, typer.Option(help="Folder for the pictures.")] = Path("demo"),
    as_json: JsonOption = False,
) -> None:
    """Show the whole flow: no network, no GPU, no key."""
    from diffusiongpt.testing import hub_zoo, serve_tiny_zoo

    out = make_folder(out)
    _stay_on_this_machine()
    with serve_tiny_zoo() as hub, TemporaryDirectory() as home, _studio(hub, Path(home)) as studio:
        say(f"a hub on {hub.url} serves {len(hub_zoo())} tiny experts; each is pulled when it is first chosen\n")
        shown = [_draw(studio, PROMPTS[0], out, quiet=as_json)]
        _tell_pulls(hub, studio)
        shown += [_draw(studio, prompt, out, quiet=as_json) for prompt in PROMPTS[1:]]
        learnt = _vote(studio, out, quiet=as_json)
    sheet = _sheet([generation.image for generation, _ in shown], out / "sheet.png")
    if as_json:
        routes = [{**generation.route.model_dump(mode="json"), "images": paths} for generation, paths in shown]
        print_json({"routes": routes, "sheet": sheet, "learnt": learnt})
    else:
        show(f"all pictures, enlarged: {sheet}")
        say('\nyour turn:\n  diffusiongpt compare "a pixel art fish on a blue background" --zoo tiny')


def _stay_on_this_machine() -> None:
    """The hub of the demonstration is here: neither a proxy nor being offline matters, and the client asks once."""
    os.environ["HF_HUB_OFFLINE"] = "0"
    for name in ("NO_PROXY", "no_proxy"):
        os.environ[name] = ",".join(filter(None, (os.environ.get(name), "127.0.0.1")))


def _studio(hub: LocalHub, home: Path) -> DiffusionGPT:
    from diffusiongpt.settings import load_settings
    from diffusiongpt.studio import DiffusionGPT
    from diffusiongpt.testing import hub_zoo

    settings = load_settings(home=home, hub_cache=home / "hub", hub_endpoint=hub.url, offline=False, hub_token=None)
    return DiffusionGPT(hub_zoo(), device="cpu", settings=settings, on_pull=lambda plan: say(f"  {plan}"))


def _draw(studio: DiffusionGPT, prompt: str, out: Path, *, quiet: bool) -> tuple[Generation, list[str]]:
    generation = studio.route_and_generate(prompt, seed=SEED)
    paths = [str(path) for path in generation.save(out)]
    if not quiet:
        show(prompt)
        show_wrapped(generation.route.sentence(), "  ")
        show(f"  {paths[0]}\n")
    return generation, paths


def _tell_pulls(hub: LocalHub, studio: DiffusionGPT) -> None:
    """What the hub was asked for: only the chosen expert came."""
    say("so far the hub was asked for")
    for expert in studio.zoo.values():
        size = sum(hub.downloads.get(expert.repo, {}).values())
        say(f"  {expert.repo:<22} " + (f"{size / 1e6:.2f} MB" if size else "nothing"))
    say("")


def _vote(studio: DiffusionGPT, out: Path, *, quiet: bool) -> dict[str, Any]:
    """One comparison, judged by the tiny zoo's own judge, and the route before and after."""
    before = studio.route(COMPARED)
    comparison = studio.compare(COMPARED, seed=SEED)
    paths = [str(path) for path in comparison.save(out)]
    cast = comparison.vote(_best(comparison.images))
    after = studio.route(COMPARED)
    if not quiet:
        scores = {c.expert: c.score for c in before.candidates}
        show(f"compared for {COMPARED!r}:\n  " + "\n  ".join(paths))
        show(f"the judge of the tiny zoo votes for {cast.winner}, and the next route knows:")
        for candidate in after.candidates:
            if candidate.expert in cast.experts:
                show(f"  {candidate.expert:<16} {scores[candidate.expert]:+.2f} → {candidate.score:+.2f}")
        show()
    return {"vote": cast.to_record(), "ranking_version": after.ranking_version, "images": paths}


def _best(images: Sequence[Image]) -> int:
    """Index of the picture that most probably shows what `COMPARED` asks for."""
    from diffusiongpt.zoo.tiny import TinyJudge

    judge = TinyJudge.load()
    likely = []
    for image in images:
        seen = judge.read(image).probabilities
        likely.append(seen["object"]["fish"] * seen["color"]["pink"] * seen["background"]["white"])
    return likely.index(max(likely))


def _sheet(images: list[Image], path: Path) -> str:
    from PIL import Image as Pillow

    from diffusiongpt.pictures import enlarged

    columns = 3
    rows = -(-len(images) // columns)
    sheet = Pillow.new("RGB", (columns * CELL, rows * CELL), "white")
    for index, image in enumerate(images):
        big = enlarged(image, CELL)
        sheet.paste(big, (index % columns * CELL, index // columns * CELL))
    sheet.save(path)
    return str(path)
