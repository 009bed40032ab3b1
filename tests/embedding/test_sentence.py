"""The sentence embedder: by meaning, without torch, and only where it can read."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import TYPE_CHECKING

import numpy as np
import pytest
from fixtures_routing import base_nodes, router_of, zoo_of
from typer.testing import CliRunner

from diffusiongpt.apps.cli import app
from diffusiongpt.embedding.sentence import REPO, TOKENIZER, WEIGHTS, SentenceEmbedder, _packaged, can_read
from diffusiongpt.errors import HubUnreachableError, PullError
from diffusiongpt.flow.request import Request
from diffusiongpt.hub.embedder import _sha256, pull_sentence_embedder
from diffusiongpt.routing.router import Router
from diffusiongpt.studio import DiffusionGPT
from diffusiongpt.testing.hub import LocalHub
from diffusiongpt.understanding.local import LocalThinker

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from diffusiongpt.settings import Settings

WORDS = ["[UNK]", "[CLS]", "[SEP]", "[PAD]", "fox", "snow", "red", "a", "tax"]


@pytest.fixture(scope="session")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with random weights of the real architecture, for a vocabulary of a few words."""
    from safetensors.numpy import save_file
    from tokenizers import Tokenizer, models, pre_tokenizers, processors

    folder = tmp_path_factory.mktemp("minilm")
    tokenizer = Tokenizer(models.WordLevel({word: index for index, word in enumerate(WORDS)}, "[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing("[CLS] $A [SEP]", None, [("[CLS]", 1), ("[SEP]", 2)])
    tokenizer.enable_padding(length=128, pad_id=3, pad_token="[PAD]")  # noqa: S106 - not a password
    tokenizer.save(str(folder / TOKENIZER))
    save_file(_random_weights(), folder / WEIGHTS)
    return folder


def _random_weights() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    rows = {"word": len(WORDS), "position": 512, "token_type": 2}
    shapes: dict[str, tuple[int, ...]] = {f"embeddings.{name}_embeddings.weight": (n, 384) for name, n in rows.items()}
    square = ("attention.self.query", "attention.self.key", "attention.self.value", "attention.output.dense")
    parts = dict.fromkeys(square, (384, 384)) | {"intermediate.dense": (1536, 384), "output.dense": (384, 1536)}
    for layer in range(6):
        for part, shape in parts.items():
            shapes |= {f"encoder.layer.{layer}.{part}.weight": shape, f"encoder.layer.{layer}.{part}.bias": shape[:1]}
    weights = {name: (rng.standard_normal(shape) * 0.05).astype(np.float32) for name, shape in shapes.items()}
    norms = ["embeddings", *(f"encoder.layer.{i}.{part}" for i in range(6) for part in ("attention.output", "output"))]
    for norm in norms:
        weights[f"{norm}.LayerNorm.weight"] = np.ones(384, dtype=np.float32)
        weights[f"{norm}.LayerNorm.bias"] = np.zeros(384, dtype=np.float32)
    return weights


def test_it_is_the_model_that_transformers_runs(small: Path) -> None:
    """The numpy forward pass gives what transformers' BertModel gives, for each length of text."""
    import torch
    from safetensors.numpy import load_file
    from transformers import BertConfig, BertModel

    config = BertConfig(
        vocab_size=len(WORDS), hidden_size=384, num_hidden_layers=6, num_attention_heads=12, intermediate_size=1536
    )
    model = BertModel(config, add_pooling_layer=False).eval()
    model.load_state_dict({name: torch.from_numpy(value) for name, value in load_file(small / WEIGHTS).items()})
    texts = ["a red fox", "fox", "snow a snow red fox fox tax", "a fox snow"]
    ours = SentenceEmbedder(small).embed(texts)
    for text, row in zip(texts, ours, strict=True):
        tokens = torch.tensor([[1, *(WORDS.index(word) for word in text.split()), 2]])
        with torch.no_grad():
            mean = model(tokens).last_hidden_state[0].mean(0)
        assert row == pytest.approx((mean / mean.norm()).numpy(), abs=2e-6)


def test_rows_are_unit_or_zero(small: Path) -> None:
    """Rows have length one, an empty text is zero, and a long text is cut, not refused."""
    vectors = SentenceEmbedder(small).embed(["a fox", "", "   ", "fox " * 1000])
    assert np.linalg.norm(vectors, axis=1) == pytest.approx([1, 0, 0, 1], abs=1e-5)
    assert SentenceEmbedder(small).embed([]).shape == (0, 384)


@pytest.mark.parametrize(
    ("text", "can"),
    [
        ("a fox", True),
        ("Füchse, déjà vu", True),
        ("水墨", False),
        ("a 狐狸", False),
        ("лиса", False),
        ("42 🦊", False),
        ("", False),
    ],
)
def test_it_knows_what_it_cannot_read(text: str, can: bool) -> None:
    """Latin script is read; a letter of any other, or no letter at all, is not."""
    assert can_read(text) is can


def test_it_needs_no_torch(small: Path) -> None:
    """Embedding imports neither torch nor transformers."""
    code = (
        "import sys, json; from pathlib import Path; from diffusiongpt.embedding.sentence import SentenceEmbedder;"
        f"SentenceEmbedder(Path({str(small)!r})).embed(['a fox']);"
        "heavy = ('torch', 'transformers', 'diffusers', 'langchain');"
        "print(json.dumps([name for name in heavy if name in sys.modules]))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == []


@pytest.fixture
def nothing_packaged(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if the extra were not installed."""
    monkeypatch.setattr("diffusiongpt.embedding.sentence._packaged", lambda: None)


@pytest.mark.usefixtures("nothing_packaged")
def test_weights_are_pulled_once_and_checked(small: Path, settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    """Weights come from the settings' hub once, are found on disk from then on, and refused if they are others."""
    with LocalHub({REPO: small}) as hub:
        ours = settings.model_copy(update={"hub_endpoint": hub.url})
        assert SentenceEmbedder.on_disk(ours) is None
        with pytest.raises(PullError, match="other weights"):
            pull_sentence_embedder(ours)
        assert SentenceEmbedder.on_disk(ours) is None
        monkeypatch.setattr("diffusiongpt.embedding.sentence.WEIGHTS_SHA256", _sha256(small / WEIGHTS))
        assert pull_sentence_embedder(ours).embed(["a fox"]).any()
    found = SentenceEmbedder.on_disk(ours.model_copy(update={"offline": True}))
    assert found is not None
    assert found.embed(["a fox"]).any()


@pytest.mark.usefixtures("nothing_packaged")
def test_offline_says_where_to_get_it(settings: Settings) -> None:
    """Offline and without the extra, the error names the extra."""
    with pytest.raises(HubUnreachableError) as caught:
        pull_sentence_embedder(settings.model_copy(update={"offline": True}))
    assert "embeddings" in caught.value.hint


@pytest.mark.usefixtures("nothing_packaged")
def test_the_command_pulls_what_routes_then_use(
    small: Path, settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`embedder pull` tells size and licence first, asks above the limit, and the next studio reads by meaning."""
    monkeypatch.setattr("diffusiongpt.embedding.sentence.WEIGHTS_SHA256", _sha256(small / WEIGHTS))
    with LocalHub({REPO: small}) as hub:
        for name, value in {"HOME": settings.home, "HUB_CACHE": settings.hub_cache, "HUB_ENDPOINT": hub.url}.items():
            monkeypatch.setenv(f"DIFFUSIONGPT_{name}", str(value))
        monkeypatch.setenv("DIFFUSIONGPT_MAX_DOWNLOAD_GB", "0.001")
        refused = CliRunner().invoke(app, ["embedder", "pull"])
        assert (refused.exit_code, "DIFFUSIONGPT_MAX_DOWNLOAD_GB" in refused.stderr) == (1, True)
        monkeypatch.delenv("DIFFUSIONGPT_MAX_DOWNLOAD_GB")
        size = (small / WEIGHTS).stat().st_size + (small / TOKENIZER).stat().st_size
        pulled = CliRunner().invoke(app, ["embedder", "pull"])
        assert f"pulling {REPO} for sentence-embedder: {size / 1e6:.1f} MB, licence Apache-2.0" in pulled.stderr
    again = CliRunner().invoke(app, ["embedder", "pull", "--json"])
    assert again.stderr == ""
    assert json.loads(again.stdout)["folder"] in pulled.stdout
    assert REPO in CliRunner().invoke(app, ["cache", "explain"]).stdout
    with DiffusionGPT("tiny", votes=tmp_path / "v.db") as studio:
        assert studio.route("a capybara").embedder == "all-MiniLM-L6-v2"
    assert CliRunner().invoke(app, ["cache", "clear", "--yes"]).exit_code == 0
    assert SentenceEmbedder.on_disk(settings) is None


def route_with(thinker: LocalThinker, votes: Path) -> Callable[[str], str]:
    """Which embedder a route says was used."""
    from fixtures_routing import expert

    plain = router_of(zoo_of(expert("one", "anime"), expert("any")), votes)
    router = Router(plain.zoo, thinker, plain.preferences, embedder="lexical", readiness=lambda _: "on_disk")
    return lambda prompt: router.route(Request(prompt=prompt)).embedder


def test_the_route_says_which_embedder_was_used(small: Path, tmp_path: Path) -> None:
    """Only a prompt that names no subject, in a script it reads, is embedded by meaning; a route says so."""
    used = route_with(LocalThinker(None, SentenceEmbedder(small)), tmp_path / "v.db")
    assert used("a capybara") == "all-MiniLM-L6-v2"
    assert used("a fox") == used("水墨") == used("水豚 capybara") == "lexical"
    assert route_with(LocalThinker(), tmp_path / "v.db")("a capybara") == "lexical"


@pytest.mark.skipif(_packaged() is None, reason="needs the extra 'embeddings'")
def test_the_real_weights_know_what_a_prompt_is_about() -> None:
    """A subject that no alias names is found by meaning, as evidence and not as something the text said."""
    folder = _packaged()
    assert folder is not None
    thinker = LocalThinker(None, SentenceEmbedder(folder))
    thought = thinker.think("a capybara", (), base_nodes())
    assert max(thought.values, key=lambda node: thought.values[node]) == "animal"
    assert thought.understanding.subjects == ()
    near, far = (
        SentenceEmbedder(folder).embed(["a fox in the snow", "a red vulpine animal in winter"])
        @ SentenceEmbedder(folder).embed(["a fox in the snow", "a tax form"]).T
    )
    assert near[0] > 0.99 > near[1] < 0.2 < far[0]
