"""What a checkpoint needs, or would load, is known from its configuration, before a byte of its weights."""

from __future__ import annotations

import importlib.util
import json
import re
from typing import TYPE_CHECKING, Any

import pytest
from fixtures_cache import BACKEND, SD, UNET
from miniature import expert

from diffusiongpt.errors import LoadError, PullError, UnsafeFilesError
from diffusiongpt.hub import names_in

if TYPE_CHECKING:
    from pathlib import Path

    from diffusiongpt.hub import Puller
    from diffusiongpt.testing import LocalHub


@pytest.fixture
def lacking(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Lets modules count as not installed."""
    real = importlib.util.find_spec

    def without(*modules: str) -> None:
        def find(name: str, *rest: Any) -> Any:
            return None if name in modules else real(name, *rest)

        monkeypatch.setattr("diffusiongpt.backends.diffusers.preflight.find_spec", find)

    return without


def add(repo: Path, name: str, entry: dict[str, Any]) -> None:
    """Add entries to a configuration."""
    path = repo / name
    path.write_text(json.dumps({**json.loads(path.read_text()), **entry}))


def no_weights(hub: LocalHub) -> bool:
    """Whether none were asked for."""
    return UNET not in hub.downloads.get("t/sd", {})


@pytest.mark.parametrize(
    ("config", "module"),
    [
        ({"quant_method": "bitsandbytes", "load_in_4bit": True}, "bitsandbytes"),
        ({"load_in_8bit": True}, "bitsandbytes"),
        ({"quant_method": "torchao", "quant_type": {"default": {}}}, "torchao"),
        ({"quant_method": "quanto"}, "optimum.quanto"),
        ({"quant_method": "gptq"}, "gptqmodel"),
    ],
)
def test_a_quantisation_without_its_library_is_named(
    hub: LocalHub, repo: Path, puller: Puller, lacking: Any, config: dict[str, Any], module: str
) -> None:
    """The error names the component, the library, and the command that installs it."""
    lacking(module)
    add(repo, "unet/config.json", {"quantization_config": config})
    with pytest.raises(LoadError, match=rf"t/sd: component 'unet' .*{module}") as caught:
        puller.ensure(SD, BACKEND)
    assert "pip install" in caught.value.hint
    assert no_weights(hub)


@pytest.mark.parametrize("gpu", [False, True], ids=["none", "gpu"])
def test_a_quantisation_for_gpus_is_refused_without_one(
    hub: LocalHub, repo: Path, puller: Puller, monkeypatch: pytest.MonkeyPatch, gpu: bool
) -> None:
    """Diffusers loads weights of bitsandbytes only beside a GPU, and transformers without one too."""
    monkeypatch.setattr("diffusiongpt.backends.diffusers.preflight.best_device", lambda _: "cuda" if gpu else "cpu")
    config = {"quantization_config": {"quant_method": "bitsandbytes", "load_in_4bit": True}}
    add(repo, "text_encoder/config.json", config)
    puller.plan(SD, BACKEND)
    add(repo, "unet/config.json", config)
    if gpu:
        puller.plan(SD, BACKEND)
        return
    with pytest.raises(LoadError, match=r"t/sd: component 'unet' is quantised by bitsandbytes.*GPU") as caught:
        puller.plan(SD, BACKEND)
    assert "machine with a GPU" in caught.value.hint
    assert no_weights(hub)


def test_a_quantisation_that_is_not_known_is_refused(repo: Path, puller: Puller) -> None:
    """Whatever it is, nothing here can say that it loads."""
    add(repo, "unet/config.json", {"quantization_config": {"quant_method": "q2"}})
    with pytest.raises(LoadError, match="not known here"):
        puller.ensure(SD, BACKEND)


@pytest.mark.parametrize(
    ("file", "module", "package"),
    [
        ("spiece.model", "sentencepiece", "sentencepiece"),
        ("tokenizer.model", "google.protobuf", "protobuf"),
        ("tiktoken.model", "tiktoken", "tiktoken"),
        ("qwen.tiktoken", "tiktoken", "tiktoken"),
    ],
)
def test_a_vocabulary_without_its_reader_is_named(
    hub: LocalHub, repo: Path, puller: Puller, lacking: Any, file: str, module: str, package: str
) -> None:
    """Only where there is no tokenizer.json, which needs none of these."""
    lacking(module)
    (repo / "tokenizer" / file).write_bytes(b"x")
    assert puller.plan(SD, BACKEND).missing
    (repo / "tokenizer" / "tokenizer.json").unlink()
    with pytest.raises(LoadError, match=rf"component 'tokenizer' .*{module}") as caught:
        puller.ensure(SD, BACKEND)
    assert package in caught.value.hint
    assert no_weights(hub)


CODE: list[dict[str, Any]] = [
    {"auto_map": {"AutoModel": "evil.Model"}},
    {"AUTO_MAP": {"AutoModel": "evil--repo.Model"}},
    {"custom_pipelines": {"evil": {}}},
    {"trust_remote_code": True},
    {"_attn_implementation": "evil/kernel"},
    {"attn_implementation": {"text_config": "evil/kernel@v1:run"}},
    {"text_config": {"vision_config": [{"_attn_implementation_internal": "paged|evil/kernel"}]}},
    {"experts_implementation": "deepgemm"},
    {"kernel_config": {"kernel_mapping": {}, "use": "evil/kernel"}},
    {"attention_backend": "evil/kernel"},
    {"quantization_config": {"quant_method": "fp8"}},
    {"use_pretrained_backbone": True, "backbone": "evil/backbone"},
]


@pytest.mark.parametrize("entry", CODE, ids="-".join)
@pytest.mark.parametrize("name", ["text_encoder/config.json", "tokenizer/tokenizer_config.json"])
def test_nothing_in_a_configuration_loads_code(
    hub: LocalHub, repo: Path, puller: Puller, name: str, entry: dict[str, Any]
) -> None:
    """Classes of the repository, kernels of the hub, and weights of other repositories, however deep and spelt."""
    add(repo, name, entry)
    with pytest.raises(UnsafeFilesError) as caught:
        puller.ensure(SD, BACKEND)
    assert caught.value.hint
    assert no_weights(hub)


@pytest.mark.parametrize("entry", CODE[:6], ids="-".join)
def test_nor_in_a_folder(repo: Path, entry: dict[str, Any]) -> None:
    """A local checkpoint, and what another program put into the cache since the pull, are looked at when built."""
    add(repo, "text_encoder/config.json", entry)
    with pytest.raises(LoadError, match="text_encoder"):
        BACKEND.load(expert(repo), repo, names_in(repo), device="cpu", have={})


def test_an_adapter_inside_a_component_chooses_no_base(hub: LocalHub, repo: Path, puller: Puller) -> None:
    """Transformers would load the base that `adapter_config.json` names in place of the component."""
    (repo / "text_encoder" / "adapter_config.json").write_text('{"base_model_name_or_path": "evil/base"}')
    with pytest.raises(UnsafeFilesError, match="adapter"):
        puller.ensure(SD, BACKEND)
    assert no_weights(hub)


def test_a_pipeline_inside_a_pipeline_is_no_component(repo: Path, puller: Puller) -> None:
    """Diffusers would load it by its own index, which may name code."""
    add(repo, "model_index.json", {"vae": ["diffusers", "DiffusionPipeline"]})
    with pytest.raises(UnsafeFilesError, match="not a class of a component"):
        puller.ensure(SD, BACKEND)


def test_a_class_that_fetches_kernels_is_no_component(repo: Path, puller: Puller) -> None:
    """Some models of transformers do so when they are made, without being asked to."""
    add(repo, "model_index.json", {"text_encoder": ["transformers", "MraModel"]})
    with pytest.raises(UnsafeFilesError, match="MraModel"):
        puller.ensure(SD, BACKEND)


@pytest.mark.parametrize(
    "entry",
    [
        {"_attn_implementation": "sdpa", "_attn_implementation_autoset": True},
        {"attn_implementation": None, "auto_map": None, "trust_remote_code": False},
        {"conv_kernel_size": 3, "kernel_sizes": [3, 3], "lambda_min_clipped": float("-inf")},
        {"_name_or_path": "owner/base", "architectures": ["CLIPTextModel"]},
        {"quantization_config": None},
    ],
)
def test_what_ordinary_configurations_say_is_no_harm(repo: Path, puller: Puller, entry: dict[str, Any]) -> None:
    """Sizes of convolutions, infinities of schedulers, and the name of a base that is only remembered."""
    add(repo, "text_encoder/config.json", entry)
    assert puller.plan(SD, BACKEND).missing


@pytest.mark.parametrize(
    ("name", "entry"),
    [
        ("text_encoder/config.json", {"num_hidden_layers": 10**7}),
        ("text_encoder/config.json", {"text_config": {"num_hidden_layers": 10**400}}),
        ("unet/config.json", {"layers_per_block": [1, 10**9]}),
        ("unet/config.json", {"transformer_layers_per_block": [[1] * 2_000]}),
        ("unet/config.json", {"down_block_types": ["DownBlock2D"] * 100_000}),
        ("unet/config.json", {"sample_size": 10**6}),
        ("scheduler/scheduler_config.json", {"num_train_timesteps": 10**12}),
    ],
)
def test_no_configuration_has_more_built_than_models_have(
    hub: LocalHub, repo: Path, puller: Puller, name: str, entry: dict[str, Any]
) -> None:
    """Layers and tables are built before the weights are looked at: one number would take all time and memory."""
    add(repo, name, entry)
    with pytest.raises(LoadError, match=re.escape(f"{name} asks for more than")):
        puller.ensure(SD, BACKEND)
    assert no_weights(hub)


@pytest.mark.parametrize("raw", [b"", b"[]", b"null", b'{"a":' * 5000, b"\xff"])
def test_a_configuration_that_cannot_be_read_is_said_so(repo: Path, puller: Puller, raw: bytes) -> None:
    """Before the pull, by name."""
    (repo / "vae" / "config.json").write_bytes(raw)
    with pytest.raises(PullError, match=r"vae/config\.json"):
        puller.ensure(SD, BACKEND)
