"""A JanusFlow pipeline on the host, from the published weights and an autoencoder of diffusers'."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from diffusiongpt.backends.diffusers import NOT_WHOLE, difference
from diffusiongpt.errors import LoadError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

    from diffusiongpt.backends.janusflow.config import JanusFlowConfig
    from diffusiongpt.backends.single_file import Shapes


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
    weights: dict[str, Any] = {}
    for file in files:
        with safe_open(file, framework="pt") as content:
            for name in content.keys():  # noqa: SIM118  # it is not a mapping
                if not name.startswith(UNDERSTANDING):
                    weights[own_name(name)] = content.get_tensor(name).to(dtype)
    wrong = difference(_shapes(network.state_dict()), _shapes(weights))
    if wrong:
        raise LoadError(f"the checkpoint is not the JanusFlow of its configuration: {wrong}", hint=NOT_WHOLE)
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
        raise LoadError("the tokenizer has no token that begins a text", hint=NOT_WHOLE)
    scheduler = FlowMatchEulerDiscreteScheduler()  # type: ignore[no-untyped-call]  # upstream has no types here
    return JanusFlowPipeline(**parts, tokenizer=tokenizer, scheduler=scheduler, latent_side=config.latent_side)


def _shapes(tensors: Mapping[str, Any]) -> Shapes:
    return {name: tuple(tensor.shape) for name, tensor in tensors.items()}
