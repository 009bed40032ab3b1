"""A JanusFlow pipeline on the host, from the published weights and an autoencoder of diffusers'."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from diffusiongpt.bounded import read_bounded
from diffusiongpt.errors import LoadError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

    from diffusiongpt.backends.janusflow.config import JanusFlowConfig


UNDERSTANDING = ("vision_und_enc_model.", "vision_und_enc_aligner.", "beg_of_und_embed", "language_model.lm_head.")
"""Beginnings of the published names of what reads pictures and writes text, which drawing does not need."""

DRAWING = (
    "language_model.model.",
    "vision_gen_enc_model.",
    "vision_gen_enc_aligner.",
    "vision_gen_dec_model.",
    "vision_gen_dec_aligner",
)
"""Beginnings of the published names of what draws."""

_RENAMED = {
    "language_model.model.": "language_model.",
    ".channelwise_norm.weight": ".channelwise_norm.gamma",
    ".channelwise_norm.bias": ".channelwise_norm.beta",
}
"""What differs between the published names and those of the parts that are used here."""

_NOT_WHOLE = "Get a complete copy of the checkpoint, or choose another expert: its weights and its config.json differ."


def own_name(published: str) -> str:
    """The name that a published weight has in `VelocityNetwork`."""
    name = published
    for theirs, ours in _RENAMED.items():
        name = name.replace(theirs, ours)
    return name


def build_network(config: JanusFlowConfig, files: Iterable[Path], dtype: Any) -> Any:
    """The network with its weights, which are read one after another; the caller holds the lock of construction.

    Raises:
        LoadError: If weights are missing, or there are others.
    """
    from accelerate import init_empty_weights
    from safetensors import safe_open

    from diffusiongpt.backends.janusflow.network import VelocityNetwork

    # buffers are computed and in no file
    with init_empty_weights(include_buffers=False):
        network = VelocityNetwork(config)
    wanted = network.state_dict()
    weights: dict[str, Any] = {}
    for file in files:
        with safe_open(file, framework="pt") as content:
            for name in content.keys():  # noqa: SIM118  # it is not a mapping
                if not name.startswith(UNDERSTANDING):
                    weights[own_name(name)] = content.get_tensor(name).to(dtype)
    _check_same(wanted, weights)
    network.load_state_dict(weights, assign=True)
    return network.eval()


def build_pipeline(config: JanusFlowConfig, folder: Path, parts: Mapping[str, Any]) -> Any:
    """The pipeline of its parts, with the tokenizer of a folder; the caller holds the lock of construction.

    Raises:
        LoadError: If the tokenizer is of another kind.
    """
    from diffusers import FlowMatchEulerDiscreteScheduler
    from transformers import PreTrainedTokenizerFast

    from diffusiongpt.backends.janusflow.pipeline import JanusFlowPipeline

    # not by the class that the repository names, Llama's: in versions of transformers 5 that one takes all blanks from
    # prompts (huggingface/transformers#45488)
    tokenizer = PreTrainedTokenizerFast.from_pretrained(folder, local_files_only=True)
    if tokenizer.bos_token_id is None:
        raise LoadError("the tokenizer has no token that begins a text", hint=_NOT_WHOLE)
    scheduler = FlowMatchEulerDiscreteScheduler()  # type: ignore[no-untyped-call]  # upstream has no types here
    return JanusFlowPipeline(**parts, tokenizer=tokenizer, scheduler=scheduler, latent_side=config.latent_side)


def reader(folder: Path) -> Any:
    """What reads a small file of a folder."""
    return lambda name: read_bounded(folder / name)


def _check_same(wanted: Mapping[str, Any], there: Mapping[str, Any]) -> None:
    missing = sorted(wanted.keys() - there.keys())
    if missing:
        raise LoadError(f"the checkpoint lacks {len(missing)} of its weights, such as {missing[0]}", hint=_NOT_WHOLE)
    strange = sorted(there.keys() - wanted.keys())
    if strange:
        raise LoadError(
            f"the model has no place for {len(strange)} of the weights, such as {strange[0]}", hint=_NOT_WHOLE
        )
    for name, tensor in wanted.items():
        if tensor.shape != there[name].shape:
            raise LoadError(
                f"{name} has the shape {[*there[name].shape]}, and the model takes {[*tensor.shape]}", hint=_NOT_WHOLE
            )
