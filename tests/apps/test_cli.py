"""The command line: results on stdout, progress on stderr, JSON as promised, exit codes 0, 1 and 2."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any
from unicodedata import east_asian_width

import pytest
from fixtures_routing import tiny_zoo
from PIL import Image
from typer.testing import CliRunner

from diffusiongpt.apps.cli import app
from diffusiongpt.pictures import Generation
from diffusiongpt.version import VERSION
from diffusiongpt.votes import VoteStore

if TYPE_CHECKING:
    from pathlib import Path

    from click.testing import Result

ROUTE_FIELDS = {
    "input", "prompt", "expert", "path", "understanding", "candidates", "rejected", "thinker", "embedder", "llm_calls",
    "seed", "timings_ms",
}  # fmt: skip
UNDERSTANDING_FIELDS = {
    "paradigm", "prompt", "language", "subjects", "styles", "evidence", "subject_class", "text_to_render",
    "text_scripts", "object_count", "width", "height", "aspect_ratio", "transparent_background", "colors", "edit",
    "negative",
}  # fmt: skip
GENERATE_FIELDS = ROUTE_FIELDS | {"drawn_by", "images", "seeds", "params", "dropped", "fallbacks"}
PROMPT = "a pixel art fish on a blue background"


pytestmark = pytest.mark.usefixtures("tiny_home")


def run(*arguments: object, code: int = 0, says: str | None = None) -> Result:
    """Run a command, which may read `says` on its standard input, and check its exit code."""
    result = CliRunner().invoke(app, [str(argument) for argument in arguments], input=says)
    assert result.exit_code == code, result.output
    return result


def run_json(*arguments: object, code: int = 0) -> Any:
    """Run a command with `--json` and read its stdout."""
    return json.loads(run(*arguments, "--json", code=code).stdout)


def drawn(tmp_path: Path, *experts: str) -> list[Path]:
    """Files of one prompt by several experts."""
    paths = []
    for expert in experts:
        made = run_json("generate", PROMPT, "--expert", expert, "--seed", 5, "--steps", 1, "--out", tmp_path / "drawn")
        paths += [tmp_path / path for path in made["images"]]
    return paths


def test_route_json_has_what_the_contract_says() -> None:
    """`route --json` prints one object with every promised field, and the candidates best first."""
    route = run_json("route", "an 8-bit fox")
    assert set(route) >= ROUTE_FIELDS
    assert set(route["understanding"]) >= UNDERSTANDING_FIELDS
    assert route["input"] == "an 8-bit fox"
    assert (route["expert"], route["path"]) == ("tiny-pixel", ["root", "animal", "pixel_art"])
    assert (route["thinker"], route["embedder"], route["llm_calls"], route["seed"]) == ("local", "lexical", 0, None)
    assert route["understanding"]["styles"] == [{"node": "pixel_art", "p": 0.95}]
    assert route["understanding"]["object_count"] is None
    scores = [candidate["score"] for candidate in route["candidates"]]
    assert scores == sorted(scores, reverse=True)
    for candidate in route["candidates"]:
        assert {"expert", "score", "std", "parts", "readiness", "placement", "added"} == set(candidate)
        assert sum(candidate["parts"].values()) == pytest.approx(candidate["score"])
    assert isinstance(route["timings_ms"]["total"], float)


def test_route_tells_a_person() -> None:
    """Without `--json` there is a sentence and a table; `--top` shortens it, `--explain` adds the search."""
    text = run("route", "an 8-bit fox", "--top", 2).stdout
    assert "tiny-pixel, because you asked for '8 bit' (pixel art)" in text
    assert "tiny-generalist" in text
    assert "tiny-oil" not in text
    explained = run("route", "an 8-bit fox", "--explain").stdout
    assert "tiny-oil" in explained
    assert "root → animal → pixel_art" in explained


def test_top_shortens_json_where_it_is_given() -> None:
    """JSON has every candidate, or as many as `--top` names; the order and the choice stay."""
    whole = run_json("route", "an 8-bit fox")
    short = run_json("route", "an 8-bit fox", "--top", 2)
    assert len(whole["candidates"]) > 2
    assert [one["expert"] for one in short["candidates"]] == [one["expert"] for one in whole["candidates"][:2]]
    assert short["expert"] == whole["expert"]


def test_hints_name_the_options_of_the_command_line(tmp_path: Path) -> None:
    """Every argument in Python has an option, whose effect shows on stderr, in the table and in JSON."""
    zoo = tmp_path / "zoo.yaml"
    zoo.write_text("experts: [{id: a, repo: o/a}]")
    asked = ("route", PROMPT, "--zoo", zoo, "--commercial-use")
    assert "hint: Drop --commercial-use, or" in run(*asked, code=1).stderr
    assert run_json(*asked, code=1)["error"]["hint"].startswith("Drop --commercial-use, or")
    zoo.write_text("experts: [{id: a, backend: openai, repo: o/a, price: {usd: 0.04}}]")
    told = run("route", PROMPT, "--zoo", zoo, code=1).stderr
    assert "allow it with --max-price 0.04\n" in told
    assert "hint: Hosted experts cost money, and --max-price is 0" in told
    assert "allow it with --max-price 0.04" in run("route", PROMPT, "--zoo", "tiny", "--zoo", zoo, "--explain").stdout


def test_an_explained_route_fits_a_terminal_in_any_script(tmp_path: Path) -> None:
    """No line takes more than 80 columns, where a Chinese character takes two; nothing ends in a space."""
    prompts = ["水墨山水画，" * 30, "a studio ghibli style meadow " * 9, "a watercolour fox, 电影感, kodak portra"]
    (tmp_path / "prompts.txt").write_text("\n".join(prompts), encoding="utf-8")
    options = ("--memory", "24GB+64GB", "--zoo", "default", "--explain")
    lines = run("route", "--file", tmp_path / "prompts.txt", *options).stdout.splitlines()
    assert max(len(line) + sum(east_asian_width(one) in "WF" for one in line) for line in lines) <= 80
    assert all(line == line.rstrip() for line in lines)
    assert sum(line.endswith(" ...") for line in lines) == 2


def test_route_file_goes_on_after_a_line_that_fails(tmp_path: Path) -> None:
    """`--file` prints a JSON line per non-empty line; one that fails gives its error, the rest go on; exit 1."""
    lines = ["a pixel art fox", "", "bad \x00 line", "   ", "水墨\u2028山水", "x" * 40_000, "a\x0cb", "铅笔画"]
    (tmp_path / "prompts.txt").write_text("\ufeff" + "\r\n".join(lines) + "\r\n", encoding="utf-8")
    output = run("route", "--file", "prompts.txt", "--json", code=1).stdout
    answers = [json.loads(line) for line in output.split("\n") if line]
    assert [answer["input"] for answer in answers] == [line for line in lines if line.strip()]
    assert len(output.splitlines()) == len(answers)
    failed = [answer["input"][:3] for answer in answers if "error" in answer]
    assert failed == ["bad", "xxx", "a\x0cb"]
    assert set(answers[1]["error"]) == {"type", "message", "hint"}
    assert answers[1]["error"]["type"] == "RequestError"
    assert answers[-1]["expert"] == "tiny-sketch"
    told = run("route", "--file", "prompts.txt", code=1)
    assert "error: line 3: prompt holds binary data" in told.stderr
    assert "tiny-sketch" in told.stdout


def test_bytes_that_are_not_utf8_spoil_their_own_line_alone(tmp_path: Path) -> None:
    """Its error is in its place, with what can be read of it."""
    (tmp_path / "prompts.txt").write_bytes(b"a pixel art fox\na \xff cat\na fox\n")
    answers = [json.loads(line) for line in run("route", "--file", "prompts.txt", "--json", code=1).stdout.splitlines()]
    assert [answer["input"] for answer in answers] == ["a pixel art fox", "a \ufffd cat", "a fox"]
    assert [answer.get("error", {}).get("message") for answer in answers] == [None, "the line is not UTF-8 text", None]
    assert "error: line 2: the line is not UTF-8 text" in run("route", "--file", "prompts.txt", code=1).stderr


def test_route_file_of_good_lines_exits_0(tmp_path: Path) -> None:
    """When every line has a route, the exit code is 0; a file of blank lines is noted on stderr."""
    (tmp_path / "good.txt").write_text("a fox\n一只狐狸")
    assert len(run("route", "--file", "good.txt", "--json").stdout.splitlines()) == 2
    (tmp_path / "empty.txt").write_text("\n\n")
    blank = run("route", "--file", "empty.txt", "--json")
    assert (blank.stdout, blank.stderr) == ("", "note: every line of the file is blank, so no prompt was routed\n")


@pytest.mark.parametrize(
    ("typed", "meant"),
    [(["gen-erate", "x"], "generate"), (["zoo", "che-ck"], "check")],
)
def test_a_misspelt_command_is_answered_with_the_nearest(typed: list[str], meant: str) -> None:
    """Commands that are built only when they are asked for are suggested like those of a group."""
    assert f"Did you mean '{meant}'?" in run(*typed, code=2).stderr
    assert "Did you mean" not in run("qqqq", code=2).stderr


def test_a_file_that_cannot_be_read_is_reported_with_its_reason(tmp_path: Path) -> None:
    """A wrong path and a wrong encoding are two mistakes, each with its own remedy."""
    assert "hint: Check the path." in run("route", "--file", "nosuch.txt", code=2).stderr
    (tmp_path / "utf16.txt").write_text("a fox", encoding="utf-16")
    told = run("route", "--file", "utf16.txt", code=1).stderr
    assert told == "error: cannot read utf16.txt: it is not UTF-8 text\nhint: Save it as UTF-8 text.\n"


@pytest.mark.parametrize(
    ("arguments", "code", "kind"),
    [
        (["route", ""], 2, "RequestError"),
        (["route", "x" * 100_000], 2, "RequestError"),
        (["route"], 2, "RequestError"),
        (["route", "a", "--file", "b"], 2, "RequestError"),
        (["route", "--file", "nosuch.txt"], 2, "FileError"),
        (["route", "a", "--zoo", "nosuch"], 2, "ZooError"),
        (["generate", "a fox", "--expert", "tiny-pixle"], 2, "UnknownExpertError"),
        (["generate", "a fox", "--width", "3"], 2, "RequestError"),
        (["generate", "a fox", "--prefer", "quick"], 2, "RequestError"),
        (["zoo", "show", "nobody"], 2, "UnknownExpertError"),
        (["vote"], 2, "RequestError"),
        (["vote", "nosuch.png", "b.png"], 2, "PictureError"),
        (["vote", "a.png", "--tie", "--both-bad"], 2, "RequestError"),
        (["vote", "a.png", "--undo"], 2, "RequestError"),
        (["vote", "--undo"], 1, "VoteError"),
        (["ranking", "--node", "nosuch"], 2, "RequestError"),
        (["cache", "clear", "nobody/nothing"], 2, "RequestError"),
    ],
)
def test_an_error_is_told_in_both_ways(arguments: list[str], code: int, kind: str) -> None:
    """Wrong usage exits with 2 and a failure with 1; a person reads two lines, a program gets an object."""
    told = run(*arguments, code=code)
    assert told.stdout == ""
    assert told.stderr.startswith("error: ")
    assert "\nhint: " in told.stderr
    assert "Traceback" not in told.stderr
    error = run_json(*arguments, code=code)["error"]
    assert error["type"] == kind
    assert error["message"]
    assert error["hint"]


@pytest.mark.parametrize(
    "arguments",
    [
        ["nosuch"],
        ["generate"],
        ["generate", "a", "-n", "0"],
        ["generate", "a", "--seed", "x"],
        ["compare", "a", "-k", "1"],
    ],
)
def test_wrong_options_exit_2(arguments: list[str]) -> None:
    """Arguments that the option parser refuses exit with 2 too."""
    run(*arguments, code=2)


def test_no_command_shows_the_help() -> None:
    """`--help` lists the commands, `--version` prints the version."""
    text = run("--help").stdout
    for command in ("demo", "generate", "compare", "route", "zoo", "vote", "ranking", "cache"):
        assert command in text
    assert run("--version").stdout.strip() == VERSION
    assert "route" in CliRunner().invoke(app, []).output


@pytest.mark.parametrize("command", [(), ("route",), ("zoo", "add"), ("votes",)])
def test_every_command_has_a_short_help(command: tuple[str, ...]) -> None:
    """`-h` is `--help`, also of a command within a command."""
    assert run(*command, "-h").stdout == run(*command, "--help").stdout


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_shells_complete_commands(shell: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The script that `--show-completion` prints asks for commands, and gets those that begin as typed."""
    monkeypatch.setenv("_DIFFUSIONGPT_COMPLETE", f"complete_{shell}")
    monkeypatch.setenv("_TYPER_COMPLETE_ARGS", "diffusiongpt gen")
    monkeypatch.setenv("_TYPER_COMPLETE_FISH_ACTION", "get-args")
    monkeypatch.setenv("COMP_WORDS", "diffusiongpt gen")
    monkeypatch.setenv("COMP_CWORD", "1")
    shown = CliRunner().invoke(app, [], prog_name="diffusiongpt").stdout
    assert "generate" in shown
    assert "compare" not in shown
    # behind a command that does not exist nothing is reported: the person is not done typing
    monkeypatch.setenv("COMP_WORDS", "diffusiongpt gen-erate --he")
    monkeypatch.setenv("_TYPER_COMPLETE_ARGS", "diffusiongpt gen-erate --he")
    monkeypatch.setenv("COMP_CWORD", "2")
    misspelt = CliRunner().invoke(app, [], prog_name="diffusiongpt")
    assert (misspelt.exception is None or isinstance(misspelt.exception, SystemExit), misspelt.stderr) == (True, "")


def test_a_dash_reads_standard_input() -> None:
    """`-` as the prompt is all of standard input, and as `--file` its lines; bytes that are not text exit 1."""
    assert json.loads(run("route", "-", "--json", says="an 8-bit\nfox\n").stdout)["input"] == "an 8-bit\nfox"
    lines = run("route", "--file", "-", "--json", says="a fox\n\n铅笔画\n").stdout.splitlines()
    assert [json.loads(line)["input"] for line in lines] == ["a fox", "铅笔画"]
    made = json.loads(run("generate", "-", "--steps", 1, "--json", says=f"{PROMPT}\n").stdout)
    assert made["input"] == PROMPT
    assert "cannot read standard input" in CliRunner().invoke(app, ["route", "-"], input=b"\xff\xfe\x00").stderr


def test_a_picture_may_be_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`--out` takes a new `.png` file; whatever cannot be saved so is refused before anything is drawn."""
    made = run_json("generate", PROMPT, "--steps", 1, "--out", "new/fox.PNG")
    assert made["images"] == ["new/fox.PNG"]
    assert Generation.from_file(tmp_path / "new" / "fox.PNG").drawn_by == "tiny-pixel"

    def never(*_: object, **__: object) -> None:
        raise AssertionError("something was drawn")

    monkeypatch.setattr("diffusiongpt.studio.DiffusionGPT.route_and_generate", never)
    for asked, message in (
        (["new/fox.PNG"], "no picture is ever overwritten"),
        (["two.png", "-n", 2], "2 pictures do not fit into two.png"),
        (["fox.jpg"], "only PNG carries the record"),
        (["fox.bmp"], "only PNG carries the record"),
        (["new/fox.PNG/inside.png"], "cannot save into"),
    ):
        assert message in run("generate", PROMPT, "--out", *asked, code=2).stderr


@pytest.mark.parametrize(
    ("says", "voted"),
    [
        ("a\n", 0),
        (" B \n", 1),
        ("AB\nc\nB\n", 1),
        ("tie\n", "tie"),
        ("BAD\n", "both_bad"),
        ("\n", None),
        ("ab\nskip\n", None),
    ],
)
def test_only_a_clear_answer_is_a_vote(says: str, voted: int | str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    """An answer that names no single picture is asked about again; Enter and `skip` leave without a vote."""
    monkeypatch.setattr("diffusiongpt.apps.cli.prompts.is_terminal", lambda: True)
    result = run("compare", PROMPT, "--steps", 1, "--seed", 5, says=says)
    ranking = run_json("ranking")
    assert (ranking["ranking_version"] != "r0") == (voted is not None)
    assert ("not voted" in result.stderr) == (voted is None)
    if isinstance(voted, int):
        (winner,) = [row["expert"] for row in ranking["rows"] if row["wins"]]
        assert f"{'AB'[voted]} was {winner}" in result.stdout
        [cast] = VoteStore().all()
        assert cast.seconds is not None
        assert 0 < cast.seconds < 60


def test_generate_json_has_what_the_contract_says(tmp_path: Path) -> None:
    """`generate --json` prints the route and what was drawn; the files are named after prompt, expert and seed."""
    result = run("generate", PROMPT, "--seed", 5, "-n", 2, "--steps", 1, "--out", "new/folder", "--json")
    made = json.loads(result.stdout)
    assert set(made) >= GENERATE_FIELDS
    assert (made["drawn_by"], made["seeds"], made["seed"]) == ("tiny-pixel", [5, 6], 5)
    assert (made["dropped"], made["fallbacks"]) == ([], [])
    assert made["params"]["num_inference_steps"] == 1
    slug = "a-pixel-art-fish-on-a-blue-background"
    assert [path.rpartition("/")[2] for path in made["images"]] == [f"{slug}-tiny-pixel-{seed}.png" for seed in (5, 6)]
    for path, seed in zip(made["images"], (5, 6), strict=True):
        assert Generation.from_file(tmp_path / path).seeds == (seed,)


def test_generate_tells_paths_on_stdout(tmp_path: Path) -> None:
    """The last lines on stdout are the paths, and no file is overwritten."""
    first = run("generate", PROMPT, "--seed", 5, "--steps", 1).stdout.splitlines()
    second = run("generate", PROMPT, "--seed", 5, "--steps", 1).stdout.splitlines()
    assert first[0].startswith("tiny-pixel, because")
    assert first[-1] != second[-1]
    assert (tmp_path / first[-1]).read_bytes()
    assert Image.open(tmp_path / first[-1]).tobytes() == Image.open(tmp_path / second[-1]).tobytes()


def test_generate_tells_what_went_otherwise(tmp_path: Path) -> None:
    """A fallback and a changed argument are reported on stderr and in the JSON."""
    zoo = tmp_path / "zoo.yaml"
    zoo.write_text("experts: [{id: broken, repo: some/where, architecture: sd15, tags: {styles: [pixel_art]}}]")
    arguments = ("generate", f"{PROMPT} 4000x4000", "--steps", 1, "--zoo", "tiny", "--zoo", zoo, "--commercial-use")
    assert run_json("route", PROMPT, "--zoo", "tiny", "--zoo", zoo)["expert"] in ("tiny-pixel", "broken")
    result = run(*arguments[:-1], "--expert", "tiny-pixel")
    assert "size=4000x4000 was not used" in result.stderr
    made = run_json("generate", PROMPT, "--steps", 1, "--zoo", zoo)
    assert made["drawn_by"] == "tiny-pixel"
    assert made["expert"] == "broken"
    assert {"expert", "error", "hint"} == set(made["fallbacks"][0])
    told = run("generate", PROMPT, "--steps", 1, "--zoo", zoo)
    assert "broken could not draw" in told.stderr
    assert "drawn by tiny-pixel instead" in told.stderr


def test_a_folder_that_cannot_be_made_costs_no_drawing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`--out` is checked before anything is loaded: a file in its place is wrong usage."""
    from diffusiongpt.studio import DiffusionGPT

    def never(*_: object, **__: object) -> None:
        raise AssertionError("something was drawn")

    monkeypatch.setattr(DiffusionGPT, "route_and_generate", never)
    monkeypatch.setattr(DiffusionGPT, "compare", never)
    (tmp_path / "file").write_text("in the way")
    assert "cannot save into file" in run("generate", PROMPT, "--out", "file", code=2).stderr
    assert "cannot save into file" in run("compare", PROMPT, "--out", "file", code=2).stderr


def test_compare_is_blind_and_its_files_are_voted_on(tmp_path: Path) -> None:
    """`compare` does not name the experts; `vote` on its files does, and the ranking counts the vote."""
    shown = run_json("compare", PROMPT, "--seed", 5, "--out", "pair")
    assert not any(expert in json.dumps(shown) for expert in tiny_zoo())
    assert (shown["prompt"], shown["seed"], len(shown["images"])) == (PROMPT, 5, 2)
    told = run("compare", PROMPT, "-k", 3, "--out", "pair").stdout
    assert [line[0] for line in told.splitlines()] == ["A", "B", "C"]
    best, other = shown["images"]
    cast = run_json("vote", best, other)
    assert cast["winner"] == Generation.from_file(tmp_path / best).drawn_by
    assert cast["undone"] is False
    ranking = run_json("ranking", "--node", "pixel_art")
    assert ranking["ranking_version"] != "r0"
    assert [row["expert"] for row in ranking["rows"] if row["wins"]] == [cast["winner"]]
    assert sum(row["votes"] for row in ranking["rows"]) == 2
    assert {row["expert"] for row in ranking["rows"]} == set(tiny_zoo())


def test_compare_names_experts_and_saves_a_grid(tmp_path: Path) -> None:
    """`--experts` names who is compared, `-n` draws several of each, and `--grid` puts all on one sheet."""
    asked = ("compare", PROMPT, "--experts", "tiny-oil,tiny-pixel", "-n", 2, "--steps", 1, "--grid", "sheet")
    shown = run_json(*asked)
    assert len(shown["images"]) == 4
    with Image.open(tmp_path / shown["grid"]) as grid:
        assert grid.size == (2 * 520 + 8, 48 + 2 * 520)
    experts = {Generation.from_file(tmp_path / path).drawn_by for path in shown["images"]}
    assert experts == {"tiny-oil", "tiny-pixel"}
    assert "no picture is ever overwritten" in run(*asked, code=2).stderr
    told = run(*asked[:-1], "other.png")
    assert [line.split()[0] for line in told.stdout.splitlines()] == ["A", "B", "A", "B", "all"]


def test_votes_are_told_and_taken_back(tmp_path: Path) -> None:
    """A vote is reported in a sentence; `--tie`, `--both-bad` and `--undo` have the documented effect."""
    best, other = drawn(tmp_path, "tiny-oil", "tiny-pixel")
    assert run("vote", best, other).stdout == f"tiny-oil over tiny-pixel for {PROMPT!r}\n"
    assert "equally good" in run("vote", best, other, "--tie").stdout
    assert "none will do" in run("vote", best, other, "--both-bad", "--voter", "ann").stdout
    assert run("vote", "--undo", "--voter", "ann").stdout.startswith("taken back: ")
    assert run_json("vote", "--undo")["outcome"] == "tie"
    assert "votes" in run("ranking").stdout
    assert "hint: Did you mean 'sketch'?\n" in run("ranking", "--node", "skech", code=2).stderr
    assert " more.\n" in run("ranking", "--node", "qqqq", code=2).stderr


def test_a_strange_picture_is_no_vote(tmp_path: Path) -> None:
    """A picture without our record, a text file, different prompts or one expert twice exit 1 and change nothing."""
    (ours,) = drawn(tmp_path, "tiny-oil")
    (tmp_path / "text.png").write_text("no picture")
    Image.new("RGB", (8, 8)).save(tmp_path / "bare.png")
    other = run_json("generate", "a heart", "--expert", "tiny-pixel", "--steps", 1)["images"][0]
    for stranger, message in (
        ("text.png", "cannot be read"),
        ("bare.png", "does not say how it was drawn"),
        (other, "different prompts"),
        (ours, "with itself"),
    ):
        assert message in run("vote", ours, stranger, code=1).stderr
    assert "two pictures" in run("vote", ours, code=2).stderr
    assert run_json("ranking")["ranking_version"] == "r0"


def test_zoo_list_is_an_array() -> None:
    """`zoo list --json` is an array of experts; without `--json` it is a table."""
    experts = run_json("zoo", "list")
    assert [expert["id"] for expert in experts] == list(tiny_zoo())
    assert "tiny-vector" in run("zoo", "list").stdout
    assert len(run_json("zoo", "list", "--zoo", "default")) >= 12


def test_zoo_show_shows_what_is_known() -> None:
    """`zoo show` prints an expert as it would stand in a zoo file."""
    from ruamel.yaml import YAML

    facts = run_json("zoo", "show", "tiny-pixel")
    assert (facts["id"], facts["tags"]) == ("tiny-pixel", {"styles": ["pixel_art"]})
    assert YAML(typ="safe", pure=True).load(run("zoo", "show", "tiny-pixel").stdout) == facts


def test_zoo_check_finds_mistakes(tmp_path: Path) -> None:
    """`zoo check` is quiet about a good file, and exits 1 with file and line for a bad one."""
    assert run_json("zoo", "check", "default")["experts"] > 10
    assert "experts" in run("zoo", "check", "tiny").stdout
    bad = tmp_path / "bad.yaml"
    bad.write_text("experts:\n  - id: a\n    repo: o/a\n    licence: MIT\n")
    told = run("zoo", "check", bad, code=1).stderr
    assert f"{bad}:4" in told
    assert "Did you mean 'license'?" in told
    bad.write_text("experts:\n  - id: a\n    repo: o/a\n    licence: MIT\n    size_gb: big\n")
    told = run("zoo", "check", bad, code=1).stderr
    assert told.count("error: ") == told.count("hint: ") == 2
    assert f"{bad}:5: experts.0.size_gb" in told
    assert len(run_json("zoo", "check", bad, code=1)["error"]["mistakes"]) == 2
    bad.write_text("experts: []")
    assert f"{bad} has no expert" in run("zoo", "check", bad, code=1).stderr
    bad.write_text("experts: [{id: a, repo: ./nowhere}]")
    assert f"the folder {tmp_path}/nowhere of a does not exist" in run("zoo", "check", bad, code=1).stderr
    bad.write_text("experts: [{id: a, repo: ./nowhere}, {id: b, repo: o/b, backend: nosuch}]")
    told = run("zoo", "check", bad, code=1).stderr
    assert f"the folder {tmp_path}/nowhere of a does not exist" in told
    assert "nosuch" in told
    bad.write_text("experts: [{id: a, repo: ./nowhere, components: {vae: {repo: ./gone}}}]")
    told = run("zoo", "check", bad, code=1).stderr
    assert f"the folder {tmp_path}/nowhere of a does not exist" in told
    assert f"the folder {tmp_path}/gone of a does not exist" in told
    bad.write_text("experts: [{id: a, repo: o/a, architecture: sdlx}]")
    assert "a: architecture 'sdlx' is not known here; did you mean 'sdxl'?" in run("zoo", "check", bad).stderr
    assert len(run_json("zoo", "check", bad)["advice"]) == 1


def test_zoo_tree_draws_the_taxonomy() -> None:
    """`zoo tree` shows each occupied node and the experts on it."""
    tree = run_json("zoo", "tree")
    assert tree["root"]["experts"] == ["tiny-generalist"]
    assert tree["pixel_art"] == {"children": [], "experts": ["tiny-pixel"]}
    text = run("zoo", "tree").stdout
    assert "tiny-oil" in text
    assert "像素画" in text


def test_an_empty_cache_is_explained_and_cleared() -> None:
    """If nothing was pulled, nothing is listed and nothing is freed."""
    assert run_json("cache", "explain")["pulls"] == []
    assert "0 pulls" in run("cache", "explain").stdout
    assert run_json("cache", "clear", "--yes") == {"removed": [], "bytes": 0}
    assert "freed 0.0 MB" in run("cache", "clear").stdout


def test_what_was_pulled_is_listed_and_removed_when_agreed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`cache explain` lists what came from the hub; `clear` removes it, and needs `--yes` without a terminal."""
    from diffusiongpt.backends import get_backend
    from diffusiongpt.hub import Puller
    from diffusiongpt.settings import load_settings
    from diffusiongpt.testing import hub_zoo, serve_tiny_zoo

    with serve_tiny_zoo() as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.url)
        monkeypatch.setenv("DIFFUSIONGPT_HUB_CACHE", str(tmp_path / "hub"))
        Puller(load_settings(), on_pull=lambda _: None).ensure(hub_zoo()["tiny-oil"], get_backend("diffusers"))
    (pull,) = run_json("cache", "explain")["pulls"]
    assert pull["repo"] == "tiny-zoo/oil"
    assert pull["bytes"] > 100_000
    assert "tiny-zoo/oil" in run("cache", "explain").stdout
    assert "--yes" in run("cache", "clear", code=2).stderr
    cleared = run_json("cache", "clear", "tiny-zoo/oil", "--yes")
    assert cleared["removed"] == ["tiny-zoo/oil"]
    assert cleared["bytes"] > 100_000
    assert run_json("cache", "explain")["pulls"] == []


def test_the_demo_draws_learns_and_leaves_pictures(tmp_path: Path) -> None:
    """`demo` draws its prompts through its own hub, shows one vote, and touches no files of the user."""
    result = run("demo", "--out", "my.demo", "--json")
    shown = json.loads(result.stdout)
    assert len(shown["routes"]) == 6
    assert {route["expert"] for route in shown["routes"]} == set(tiny_zoo())
    for route in shown["routes"]:
        assert set(route) >= ROUTE_FIELDS
        assert Generation.from_file(tmp_path / route["images"][0]).drawn_by == route["expert"]
    assert shown["learnt"]["ranking_version"] != "r0"
    assert (tmp_path / shown["sheet"]).is_file()
    assert "pulled" in result.stderr
    assert not (tmp_path / "home").exists()
    assert not (tmp_path / "hub").exists()
