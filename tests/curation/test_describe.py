"""The hub's facts become an entry; unknown facts are left out, and unusable repositories are errors."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from fixtures_cache import PLANNED
from pydantic import SecretStr
from typer.testing import CliRunner

from diffusiongpt.apps.cli import app
from diffusiongpt.curation import describe_repo, find_presence, read_address
from diffusiongpt.errors import (
    GatedRepoError,
    HubUnreachableError,
    PullError,
    RepoMissingError,
    RequestError,
    UnsafeFilesError,
)
from diffusiongpt.testing import Fault
from diffusiongpt.zoo import Expert, Zoo

if TYPE_CHECKING:
    from pathlib import Path

    from click.testing import Result

    from diffusiongpt.settings import Settings
    from diffusiongpt.testing import LocalHub

CARD = """\
---
license: openrail++
language: [en, zh, nonsense-tag-of-somebody]
tags: [text-to-image]
---
# A model
"""
LORA_CARD = """\
---
license: other
license_name: made-up-license
base_model: t/sd
tags: [lora, diffusers]
instance_prompt: papercut style
---
"""


@pytest.fixture
def lora(hub: LocalHub, tmp_path: Path) -> Path:
    """An adapter on the hub."""
    folder = tmp_path / "lora"
    folder.mkdir()
    (folder / "README.md").write_text(LORA_CARD)
    (folder / "papercut.safetensors").write_bytes(b"x" * 2_000_000)
    (folder / "sub").mkdir()
    (folder / "sub" / "other.safetensors").write_bytes(b"x")
    hub.add("t/Paper_LoRA", folder)
    return folder


def weights_of(folder: Path) -> int:
    """Bytes of the weights that a pull of a component brings."""
    return sum(path.stat().st_size for path in folder.glob("*.safetensors") if ".ema." not in path.name)


def test_a_checkpoint_is_described(hub: LocalHub, repo: Path, online: Settings) -> None:
    """Architecture, licence, gate, languages and sizes come from the hub: those of each component and of all."""
    (repo / "README.md").write_text(CARD)
    hub.gate("t/sd", token="t")  # noqa: S106  # not a secret: the hub of this test
    open_one = online.model_copy(update={"hub_token": SecretStr("t")})
    config = repo / "unet" / "config.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), "cross_attention_dim": 768}))
    entry = describe_repo("t/sd", open_one, styles=["anime"])
    size, parts = entry.pop("size_gb"), entry.pop("components")
    assert entry == {
        "id": "sd",
        "repo": "t/sd",
        "architecture": "sd15",
        "tags": {"styles": ["anime"]},
        "license": {"id": "openrail++", "commercial": "yes"},
        "gated": True,
        "languages": ["en", "zh"],
        "sources": [f"{hub.url}/t/sd/tree/{hub.commit('t/sd')}"],
    }
    weights = {name: weights_of(repo / name) for name in ("unet", "text_encoder", "vae")}
    assert parts == pytest.approx({name: nbytes / 1e9 for name, nbytes in weights.items()}, rel=1e-3)
    assert size == pytest.approx(sum(weights.values()) / 1e9, rel=1e-3)
    assert hub.downloads["t/sd"].keys() == PLANNED


def test_what_the_hub_does_not_say_is_left_out(repo: Path, online: Settings) -> None:
    """Without a card there is neither licence nor language, and an unknown width gives no architecture."""
    (repo / "README.md").unlink(missing_ok=True)
    assert set(describe_repo("t/sd", online)) <= {"id", "repo", "gated", "components", "size_gb", "sources"}
    entry = describe_repo("t/klein", online, expert_id="mine")
    assert (entry["id"], entry["architecture"]) == ("mine", "flux2")


def test_half_precision_is_preferred(repo: Path, online: Settings) -> None:
    """The entry names the plain or fp16 files, whichever are smaller; fp16 files alone are fine."""
    plain = describe_repo("t/sd", online)
    for path in list(repo.glob("*/*.safetensors")):
        if ".ema." not in path.name:
            half = path.with_name(path.name.replace(".safetensors", ".fp16.safetensors"))
            half.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    both = describe_repo("t/sd", online)
    assert both["settings"] == {"dtype": "float16", "variant": "fp16"}
    assert both.get("size_gb", 0) < plain["size_gb"]
    for path in repo.glob("*/*.fp16.safetensors"):
        path.with_name(path.name.replace(".fp16", "")).unlink()
    assert describe_repo("t/sd", online)["settings"] == both["settings"]


@pytest.mark.usefixtures("lora")
def test_an_adapter_is_described(hub: LocalHub, online: Settings) -> None:
    """An adapter has its base, its file and its trigger words, and the architecture if the base is known."""
    zoo = Zoo.layered({})
    entry = describe_repo("t/Paper_LoRA", online, zoo=zoo)
    assert entry == {
        "id": "paper_lora",
        "repo": "t/Paper_LoRA",
        "kind": "adapter",
        "base": "t/sd",
        "license": {"id": "made-up-license"},
        "gated": False,
        "size_gb": 0.002,
        "settings": {"weight_name": "papercut.safetensors"},
        "trigger_words": ["papercut style"],
        "sources": [f"{hub.url}/t/Paper_LoRA/tree/{hub.commit('t/Paper_LoRA')}"],
    }
    Expert.model_validate(entry)
    known = Zoo({"b": Expert(id="b", repo="t/sd", architecture="sdxl")}, {}, ())
    assert describe_repo("t/Paper_LoRA", online, zoo=known)["architecture"] == "sdxl"


def test_of_several_adapter_files_one_is_named(lora: Path, online: Settings) -> None:
    """The error lists the files, and one can be named; the usual name of diffusers is chosen automatically."""
    (lora / "b.safetensors").write_bytes(b"x")
    with pytest.raises(RequestError, match="2 files that could be the adapter") as caught:
        describe_repo("t/Paper_LoRA", online)
    assert "--weight-name" in caught.value.hint
    assert "b.safetensors" in caught.value.hint
    with pytest.raises(RequestError, match=r"no file c\.safetensors"):
        describe_repo("t/Paper_LoRA", online, weight_name="c.safetensors")
    named = describe_repo("t/Paper_LoRA", online, weight_name="b.safetensors")
    assert named["settings"] == {"weight_name": "b.safetensors"}
    (lora / "pytorch_lora_weights.safetensors").write_bytes(b"x")
    assert describe_repo("t/Paper_LoRA", online)["settings"]["weight_name"] == "pytorch_lora_weights.safetensors"


def test_a_base_that_the_hub_does_not_name_must_be_given(lora: Path, online: Settings) -> None:
    """An adapter without one base is an error that names the option; with it there is an entry."""
    for printed in ("", "base_model: [a/b, c/d]\n"):
        (lora / "README.md").write_text(LORA_CARD.replace("base_model: t/sd\n", printed))
        with pytest.raises(RequestError) as caught:
            describe_repo("t/Paper_LoRA", online)
        assert "--base" in caught.value.hint
    assert describe_repo("t/Paper_LoRA", online, base="t/sd")["base"] == "t/sd"
    with pytest.raises(RequestError, match="is not an adapter"):
        describe_repo("t/sd", online, base="t/klein")


def test_escape_codes_are_left_out(lora: Path, online: Settings) -> None:
    """Escape codes in a card never reach an entry."""
    (lora / "README.md").write_text(
        LORA_CARD.replace("papercut style", '"\\e[31mred"').replace("made-up-license", '"\\u202e"')
    )
    assert not {"trigger_words", "license"} & set(describe_repo("t/Paper_LoRA", online))


@pytest.mark.parametrize(
    ("name", "error", "hint"),
    [
        ("t/none", RepoMissingError, "Check the name"),
        ("t/shut", GatedRepoError, "Accept them at"),
        ("t/empty", PullError, "diffusers repositories"),
        ("t/pickle", UnsafeFilesError, "safetensors"),
        ("t", RequestError, "owner/name"),
        ("https://hub/t/sd", RequestError, "owner/name"),
        ("t/../sd", RequestError, "owner/name"),
        ("", RequestError, "owner/name"),
    ],
)
def test_what_cannot_be_added_is_an_error(
    hub: LocalHub, repo: Path, tmp_path: Path, online: Settings, name: str, error: type[Exception], hint: str
) -> None:
    """An unknown, gated, empty or unsafe repository, and an invalid name, are typed errors with a hint."""
    for folder in ("empty", "pickle"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "x.bin").write_bytes(b"x")
        hub.add(f"t/{folder}", tmp_path / folder)
    (tmp_path / "pickle" / "README.md").write_text(LORA_CARD)
    hub.add("t/shut", repo)
    hub.gate("t/shut")
    with pytest.raises(error) as caught:
        describe_repo(name, online)
    assert hint in getattr(caught.value, "hint", "")


def test_without_a_network_it_is_an_error(online: Settings) -> None:
    """Offline, and with a hub that does not exist, the error says what to do."""
    for change in ({"offline": True}, {"hub_endpoint": "http://127.0.0.1:9"}):
        with pytest.raises(HubUnreachableError) as caught:
            describe_repo("t/sd", online.model_copy(update=change))
        assert caught.value.hint
        with pytest.raises(HubUnreachableError):
            find_presence([Expert(id="a", repo="t/sd")], online.model_copy(update=change))


def test_presence_covers_each_repository(hub: LocalHub, online: Settings) -> None:
    """Each is ok, gated, missing or unreachable; one failure hides no other; folders and services are left out."""
    hub.gate("t/klein")
    hub.fail(Fault(match="/t/busy", status=503))
    revisions = {"a": ("t/sd", None), "b": ("t/klein", "main"), "c": ("t/none", None), "d": ("t/sd", "0" * 40)}
    experts = [Expert(id=key, repo=repo, revision=revision) for key, (repo, revision) in revisions.items()]
    elsewhere = [Expert(id="f", repo="./here"), Expert(id="g", repo="openai/gpt-image-2", backend="openai")]
    found = find_presence([*experts, Expert(id="e", repo="t/busy"), *elsewhere], online)
    assert [(one.expert, one.state) for one in found] == [
        ("a", "ok"),
        ("b", "gated"),
        ("c", "missing"),
        ("d", "missing"),
        ("e", "unreachable"),
    ]
    assert [one.commit for one in found[:3]] == [hub.commit("t/sd"), hub.commit("t/klein"), None]


@pytest.fixture
def command(hub: LocalHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The environment and the folder of a command."""
    monkeypatch.setenv("DIFFUSIONGPT_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("DIFFUSIONGPT_HUB_ENDPOINT", hub.url)
    monkeypatch.delenv("DIFFUSIONGPT_ZOO", raising=False)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(*arguments: str, code: int = 0, says: str | None = None) -> Result:
    """Run a command and check its exit code."""
    result = CliRunner().invoke(app, ["zoo", *arguments], input=says)
    assert result.exit_code == code, result.output
    return result


def test_add_writes_the_users_zoo(command: Path) -> None:
    """`zoo add` shows the entry, writes it where routes find it, and refuses to repeat it."""
    result = run("add", "t/sd", "--style", "anime", "--style", "comic", "--subject", "animal", "--id", "mine", "--yes")
    assert "+    tags: {subjects: [animal], styles: [anime, comic]}" in result.stdout
    assert "wrote" in result.stderr
    assert [one["id"] for one in json.loads(run("list", "--json").stdout)][-1] == "mine"
    before = (command / "home" / "zoo.yaml").read_bytes()
    assert "already, as mine" in run("add", "t/sd", "--id", "other", code=1).stderr
    assert (command / "home" / "zoo.yaml").read_bytes() == before


def test_add_prints_json(command: Path) -> None:
    """With `--json` stdout has one object, and the file that `--zoo` names has the same entry."""
    printed: dict[str, Any] = json.loads(run("add", "t/klein", "--zoo", "mine.yaml", "--json", "--yes").stdout)
    assert printed["written"] is True
    assert printed["entry"]["repo"] == "t/klein"
    assert Zoo.load(command / "mine.yaml")["klein"].architecture == "flux2"
    failed = json.loads(run("add", "t/none", "--zoo", "mine.yaml", "--json", code=1).stdout)
    assert failed["error"]["type"] == "RepoMissingError"


@pytest.mark.parametrize(
    ("option", "value"),
    [("--style", "Pixel Art"), ("--style", "animee"), ("--subject", ""), ("--id", "My Own"), ("--id", "x" * 90)],
)
def test_a_mistake_in_an_option_is_an_error(command: Path, option: str, value: str) -> None:
    """An invalid tag or id is a typed error with a hint, and no file is made."""
    assert "hint: " in run("add", "t/sd", option, value, "--zoo", "mine.yaml", code=1).stderr
    assert not (command / "mine.yaml").exists()


@pytest.mark.usefixtures("command")
def test_on_a_terminal_it_asks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a terminal nothing is written without a yes; `--yes` does not ask."""
    monkeypatch.setattr("diffusiongpt.apps.cli.zoo_files.is_terminal", lambda: True)
    result = run("add", "t/sd", "--zoo", "mine.yaml", says="n\n")
    assert "Write this to mine.yaml?" in result.stderr
    assert not (tmp_path / "mine.yaml").exists()
    run("add", "t/sd", "--zoo", "mine.yaml", says="y\n")
    assert "Write this" not in run("add", "t/klein", "--zoo", "mine.yaml", "--yes").stderr
    assert set(Zoo.load(tmp_path / "mine.yaml")) == {"sd", "klein"}


@pytest.mark.parametrize("command_line", [("add", "t/sd"), ("add", "t/sd", "--json")])
def test_without_a_terminal_nothing_is_written_unless_confirmed(command: Path, command_line: tuple[str, ...]) -> None:
    """What would be written is shown, the file stays as it is, and the exit code says that it was not done."""
    shown = run(*command_line, "--zoo", "mine.yaml", code=2)
    assert "repo: t/sd" in shown.output
    assert "use --yes" in shown.stderr
    assert not (command / "mine.yaml").exists()
    run(*command_line, "--zoo", "mine.yaml", "--yes")
    assert set(Zoo.load(command / "mine.yaml")) == {"sd"}


@pytest.mark.parametrize(
    ("address", "place"),
    [
        ("t/sd", ("t/sd", None, None)),
        ("https://huggingface.co/t/sd", ("t/sd", None, None)),
        ("https://huggingface.co/t/sd/", ("t/sd", None, None)),
        ("huggingface.co/t/sd?library=diffusers#files", ("t/sd", None, None)),
        ("http://hf.co/t/sd/tree/main", ("t/sd", None, None)),
        ("https://huggingface.co/t/sd/tree/v2/unet", ("t/sd", "v2", None)),
        ("https://huggingface.co/t/sd/tree/refs%2Fpr%2F1", ("t/sd", "refs/pr/1", None)),
        ("https://huggingface.co/t/ink/blob/main/ink.safetensors", ("t/ink", None, "ink.safetensors")),
        ("https://huggingface.co/t/ink/resolve/abc/ink.safetensors?download=true", ("t/ink", "abc", "ink.safetensors")),
        ("https://huggingface.co/t/sd/discussions/3", ("t/sd", None, None)),
        ("  t/sd\n", ("t/sd", None, None)),
    ],
)
def test_a_repository_may_be_named_by_its_address(
    settings: Settings, address: str, place: tuple[str, str | None, str | None]
) -> None:
    """The address of a page, a folder or a file on the hub names the repository, its revision and its weights."""
    read = read_address(address, settings)
    assert (read.repo, read.revision, read.weight_name) == place


@pytest.mark.parametrize(
    "address",
    [
        "https://civitai.com/models/4201",
        "https://huggingface.co.evil.example/t/sd",
        "https://huggingface.co@evil.example/t/sd",
        "https://huggingface.co/datasets/t/sd",
        "https://huggingface.co/t",
        "https://huggingface.co/../sd",
        "file://huggingface.co/t/sd",
    ],
)
def test_an_address_elsewhere_is_refused(settings: Settings, address: str) -> None:
    """An address of another host, of something that is not a model, or of no repository is a `RequestError`."""
    with pytest.raises(RequestError) as caught:
        read_address(address, settings)
    assert caught.value.hint


def test_add_takes_the_address_of_the_page(hub: LocalHub, command: Path) -> None:
    """The address of the hub in use names the same repository."""
    run("add", f"{hub.url}/t/sd/tree/main", "--zoo", "mine.yaml", "--yes")
    assert Zoo.load(command / "mine.yaml")["sd"].repo == "t/sd"


def test_check_online_reports_and_pins(hub: LocalHub, command: Path) -> None:
    """`zoo check --online` lists each repository and fails if one is missing; `--pin` writes commits in place."""
    mine = command / "mine.yaml"
    mine.write_text(
        "# mine\nexperts:\n  - id: a\n    repo: t/sd  # mine\n    revision: main\n  - {id: b, repo: t/klein}\n"
    )
    before = mine.read_text()
    assert "not pinned" in run("check", "mine.yaml", "--online").stdout
    assert mine.read_text() == before
    assert "--online" in run("check", "mine.yaml", "--pin", code=2).stderr
    run("check", "mine.yaml", "--online", "--pin", "--yes")
    pinned = before.replace("main", hub.commit("t/sd")).replace(
        "t/klein", f"t/klein, revision: {hub.commit('t/klein')}"
    )
    assert mine.read_text() == pinned
    assert "stays as it is" in run("check", "mine.yaml", "--online", "--pin").stderr
    hub.remove("t/klein")
    printed = json.loads(run("check", "mine.yaml", "--online", "--json", code=1).stdout)["online"]
    assert [(one["expert"], one["state"]) for one in printed] == [("a", "ok"), ("b", "missing")]
    assert "comes with the package" in run("check", "--online", "--pin", code=2).stderr
