"""Files of DiffusionGPT and DiffusionAgent become entries that draw, or are reported; their scores become ratings."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from fixtures_adapters import write_lora
from typer.testing import CliRunner

from diffusiongpt.apps.cli import app
from diffusiongpt.curation import PaperMapping, read_paper_file
from diffusiongpt.errors import RequestError
from diffusiongpt.studio import DiffusionGPT
from diffusiongpt.testing import single_file_pipeline, write_single_file
from diffusiongpt.votes import VoteStore
from diffusiongpt.zoo import Zoo, read_zoo_file

INK = {
    "model_name": "inkyMix_v2.safetensors",
    "model_type": "checkpoint merge",
    "tag": ["anime", "person", "no such word"],
    "version": "v2",
    "trigger_words": ["None"],
    "base_model": "SD 1.5",
    "resources_used": ["inky mix"],
    "example_prompts": ["a heron at dawn", "None"],
    "negtive_prompts": ["smudged", "smudged"],
}
QUILL = {
    "model_name": "quill_lines.safetensors",
    "model_type": "lora",
    "tag": "sketch",
    "trigger_words": ["quill lines"],
    "base_model": "SD 1.5",
    "resources_used": ["inkyMix", "quill_lines"],
    "example_prompts": ["<lora:quill_lines:0.6> quill lines, a barn", "<lora:other:1> a hat"],
    "negtive_prompts": ["None"],
}
BASE = {"model_name": "stable-diffusion-xl-base-1.0", "model_type": "checkpoint", "tag": ["base model"]}
GONE = {"model_name": "nowhereXL_v9.safetensors", "model_type": "checkpoint trained", "base_model": "SDXL 1.0"}


def written(folder: Path, value: Any, name: str = "model_data_mine.json") -> Path:
    """A file with a value as JSON."""
    (folder / name).write_text(value if isinstance(value, str) else json.dumps(value), encoding="utf-8")
    return folder / name


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a checkpoint in one file, and a LoRA."""
    folder = tmp_path_factory.mktemp("weights")
    pipe, base = single_file_pipeline("sd15"), tmp_path_factory.mktemp("base")
    write_single_file(pipe, folder / "inkyMix_v2.safetensors")
    pipe.save_pretrained(base)
    write_lora(base, folder, seed=1, name="quill_lines.safetensors")
    return folder


def run(*arguments: str, code: int = 0) -> Any:
    """The JSON output of `zoo import`."""
    result = CliRunner().invoke(app, ["zoo", "import", *arguments, "--json"])
    assert result.exit_code == code, result.output
    return json.loads(result.stdout)


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A user's own folder, with the tiny zoo."""
    monkeypatch.setenv("DIFFUSIONGPT_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("DIFFUSIONGPT_DEVICE", "cpu")
    return tmp_path


def test_each_model_becomes_an_entry_or_a_reason(home: Path, weights: Path) -> None:
    """A file at hand, a repository, or neither; what the list says of each is kept, and `None` is nothing."""
    file, mine = written(home, [QUILL, INK, BASE, GONE]), home / "mine.yaml"
    done = run(str(file), "--files", str(weights), "--zoo", "tiny", "--zoo", str(mine), "--yes")
    assert {one["name"]: one["expert"] for one in done["models"]} == {
        "inkyMix_v2.safetensors": "inkymix-v2",
        "quill_lines.safetensors": "quill-lines",
        "stable-diffusion-xl-base-1.0": "stable-diffusion-xl-base-1-0",
        "nowhereXL_v9.safetensors": None,
    }
    assert "--files" in next(one["reason"] for one in done["models"] if one["expert"] is None)
    ink, quill, base = (
        next(one for one in read_zoo_file(mine).experts if one.id == name)
        for name in ("inkymix-v2", "quill-lines", "stable-diffusion-xl-base-1-0")
    )
    assert (ink.architecture, ink.kind, ink.single_file) == ("sd15", "checkpoint", "inkyMix_v2.safetensors")
    assert (ink.tags.styles, ink.tags.subjects) == (("anime",), ("character",))
    assert (ink.trigger_words, ink.negative_prompt, ink.size_gb is not None) == ((), "smudged", True)
    assert (quill.kind, quill.base, quill.settings.adapter_scale) == ("adapter", ink.repo, 0.6)
    assert (quill.trigger_words, quill.negative_prompt) == (("quill lines",), None)
    assert base.repo == "stabilityai/stable-diffusion-xl-base-1.0"
    again = run(str(file), "--files", str(weights), "--zoo", "tiny", "--zoo", str(mine), "--yes")
    assert not again["written"]
    assert [one["expert"] for one in again["models"]].count(None) == 1


def test_an_imported_model_draws(home: Path, weights: Path) -> None:
    """From the list to a picture, checkpoint and adapter, without a network."""
    file, mine = written(home, [INK, QUILL]), home / "mine.yaml"
    run(str(file), "--files", str(weights), "--zoo", str(mine), "--yes")
    with DiffusionGPT(str(mine)) as studio:
        for expert in ("inkymix-v2", "quill-lines"):
            with studio.lease(expert) as pipe:
                assert pipe("a heron", width=32, height=32, num_inference_steps=1).images[0].size == (32, 32)


def test_a_tree_adds_the_categories_of_all_places(tmp_path: Path) -> None:
    """A model that hangs on several leaves is one entry with the tags of each."""
    repo = {**INK, "model_name": "me/inky"}
    tree = {"animals": {"watercolor": [repo]}, "person": {"universal": [repo], "anime": [repo, BASE]}}
    file = read_paper_file(written(tmp_path, tree, "model_tree_tot_mine.json"))
    mapping = PaperMapping(zoo=Zoo.load("tiny"), folders=())
    mapping.add(file.models)
    assert (file.kind, len(mapping.done)) == ("tree", 2)
    entry = next(one.entry for one in mapping.done if one.name == "me/inky")
    assert entry is not None
    assert (entry["repo"], entry["architecture"]) == ("me/inky", "sd15")
    assert set(entry["tags"]["styles"]) == {"anime", "watercolor"}
    assert set(entry["tags"]["subjects"]) == {"character", "animal"}
    assert entry["tags"]["generalist"]


def test_a_model_that_the_zoo_has_is_named(tmp_path: Path) -> None:
    """Nothing is added twice, and a stand-in is only named."""
    ours = {**INK, "model_name": "dreamshaper_8.safetensors"}
    near = {**QUILL, "model_name": "ghibli_style_offset.safetensors"}
    mapping = PaperMapping(zoo=Zoo.load("default"), folders=(tmp_path,))
    mapping.add(read_paper_file(written(tmp_path, [ours, near])).models)
    assert {one.name: one.expert for one in mapping.done} == {
        ours["model_name"]: "dreamshaper-8",
        near["model_name"]: None,
    }
    assert "ghibli-diffusion" in next(one.reason for one in mapping.done if one.expert is None)


def test_scores_become_ratings_of_what_their_models_are_now(home: Path) -> None:
    """By the names of the list, with or without suffix; those of other models are kept for a later zoo."""
    models = [{**INK, "model_name": "me/inky"}, {**INK, "model_name": "me/Quilled_XL"}]
    scores = {
        "a heron": {"inky": {"image_reward": 0.5}, "quilled_xl.safetensors": {"image_reward": -0.2}},
        "a barn": {"inky": {"image_reward": 0.1}, "unheardOf": {"image_reward": 1.5}},
    }
    data, file = written(home, models), written(home, scores, "prompt2scores.json")
    done = run(str(data), str(file), "--zoo", str(home / "mine.yaml"), "--yes")
    assert [(one["ratings"], one["unknown"]) for one in done["scores"]] == [(4, ["unheardOf"])]
    ratings = VoteStore(home / "home" / "votes.db").ratings()
    assert sorted((one.expert, one.rating, one.source) for one in ratings) == [
        ("inky", 0.1, "image_reward"), ("inky", 0.5, "image_reward"), ("quilled-xl", -0.2, "image_reward"),
        ("unheardOf", 1.5, "image_reward"),
    ]  # fmt: skip
    again = run(str(data), str(file), "--zoo", str(home / "mine.yaml"), "--yes")
    assert [(one["ratings"], one["known"]) for one in again["scores"]] == [(0, 4)]


def test_nothing_is_written_without_a_yes(home: Path) -> None:
    """Without a terminal the change is shown, and neither entries nor ratings are recorded."""
    file = written(home, [{**INK, "model_name": "me/inky"}])
    scores = written(home, {"a": {"inky": {"image_reward": 0.5}}}, "prompt2scores.json")
    done = run(str(file), str(scores), "--zoo", str(home / "mine.yaml"), code=2)
    assert (done["written"], done["scores"]) == (False, [])
    assert not (home / "mine.yaml").exists()
    assert not (home / "home" / "votes.db").exists()


def test_a_list_of_which_nothing_can_be_had_fails(home: Path) -> None:
    """Each reason is in the report."""
    done = run(str(written(home, [GONE])), "--zoo", str(home / "mine.yaml"), "--yes", code=1)
    assert done["models"][0]["reason"]


@pytest.mark.parametrize(
    "value",
    ["", "{", "7", "[7]", "{}", '{"a": 7}', '{"a": {"b": 7}}', '[{"model_type": "lora"}]', '[{"model_name": ""}]',
     '[{"model_name": "x", "tag": {"a": 1}}]', "[" * 5000, json.dumps([{"model_name": "x" * 500}]),
     json.dumps([{"model_name": f"m{n}"} for n in range(5001)])],
    ids=range(13),
)  # fmt: skip
def test_a_file_of_another_shape_is_refused(tmp_path: Path, value: str) -> None:
    """With the file, the model and the key, and what was expected."""
    with pytest.raises(RequestError) as error:
        read_paper_file(written(tmp_path, value))
    assert "model_data_mine.json" in str(error.value)
    assert error.value.hint


def test_a_file_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    """The path is named."""
    with pytest.raises(RequestError, match=r"gone\.json"):
        read_paper_file(tmp_path / "gone.json")


def test_a_damaged_file_of_weights_is_not_mapped(tmp_path: Path) -> None:
    """It is reported like one that is missing, and the others are imported."""
    (tmp_path / "inkyMix_v2.safetensors").write_bytes(b"\0" * 40)
    mapping = PaperMapping(zoo=Zoo.load("tiny"), folders=(tmp_path,))
    mapping.add(read_paper_file(written(tmp_path, [INK, BASE])).models)
    assert [one.expert is None for one in mapping.done] == [True, False]
