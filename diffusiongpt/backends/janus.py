"""Draws with Janus and Janus-Pro, language models that write a picture as tokens, through transformers."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, cast

from diffusiongpt.backends.base import FROM_TEXT, Component, Loaded, OnStep, Part
from diffusiongpt.backends.guarded import guarded
from diffusiongpt.errors import DrawError, LoadError, OutOfMemoryError, PullError, UnsafeFilesError
from diffusiongpt.flow import Call, Drawing, Dropped
from diffusiongpt.weights import HOST, Weights, finish, slot

if TYPE_CHECKING:
    from pathlib import Path

    from PIL.Image import Image

    from diffusiongpt.flow import Task
    from diffusiongpt.zoo import Expert


KIND = "JanusForConditionalGeneration"
NAME = "model"
"""Its only component."""

GUIDANCE = 5.0
"""Guidance scale where none is given: that of the model's authors (Janus, arXiv 2410.13848)."""

_CONFIG = "config.json"
_SMALL = (".json", ".txt", ".model", ".jinja")

_NOT_TAKEN = {
    "num_inference_steps": "it draws token by token, always as many",
    "negative_prompt": "it takes no negative prompt",
    "callback_on_step_end": "its steps are tokens, without latents",
    "strength": "it draws from text alone",
}


@dataclass(frozen=True, kw_only=True)
class _Model:
    """A tokenizer, and the weights of the language model with all that is around it."""

    tokenizer: Any
    weights: Weights


class JanusBackend:
    """Text to image by `transformers.JanusForConditionalGeneration`; safetensors only, no remote code.

    Tokens are drawn by the Gumbel-max rule with noise of a generator of their own: nothing of torch's global state is
    read or changed, so that the same seed gives the same picture whatever else is drawn meanwhile.
    """

    hosted: Literal[False] = False
    index = _CONFIG
    small_bytes = 0

    def files(
        self, names: Sequence[str], read: Callable[[str], bytes], *, variant: str | None, allow_unsafe: bool = False
    ) -> tuple[str, ...]:
        """See `Backend.files`."""
        del variant, allow_unsafe
        if _CONFIG not in names:
            raise PullError(f"no {_CONFIG} in the repository", hint="Choose a repository in transformers' layout.")
        _check_config(read(_CONFIG))
        top = [name for name in names if "/" not in name]
        weights = [name for name in top if name.endswith(".safetensors")]
        if not weights:
            raise UnsafeFilesError(
                "the repository has no safetensors weights", hint="Choose deepseek-community/Janus-Pro-1B or -7B."
            )
        return tuple(sorted({*weights, *(name for name in top if name.endswith(_SMALL))}))

    def tasks(self, expert: Expert) -> frozenset[Task]:
        """See `Backend.tasks`."""
        del expert
        return FROM_TEXT

    def prepare(self) -> None:
        """See `Backend.prepare`."""
        import transformers  # noqa: F401  # importing it is the preparation

    def components(self, expert: Expert, folder: Path, files: Sequence[str], *, device: str) -> tuple[Component, ...]:
        """See `Backend.components`."""
        _check_config((folder / _CONFIG).read_bytes())
        weights = tuple(name for name in files if name.endswith(".safetensors"))
        dtype = _dtype(expert, device)
        return (Component(name=NAME, kind=KIND, config=_CONFIG, weights=weights, dtype=dtype),)

    def load(
        self, expert: Expert, folder: Path, files: Sequence[str], *, device: str, have: Mapping[str, Part]
    ) -> Loaded:
        """See `Backend.load`."""
        del files
        from diffusiongpt.backends.diffusers import quiet_construction

        def load() -> _Model:
            with quiet_construction():
                import torch
                from transformers import AutoTokenizer, JanusForConditionalGeneration

                tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
                if NAME in have:
                    return _Model(tokenizer=tokenizer, weights=cast("Weights", have[NAME]))
                module = JanusForConditionalGeneration.from_pretrained(
                    folder, dtype=getattr(torch, _dtype(expert, device)), local_files_only=True, use_safetensors=True
                )
            # it comes in the mode for drawing
            return _Model(tokenizer=tokenizer, weights=Weights.pack(module))

        model = guarded(load, expert, LoadError, f"could not be built from {folder}")
        return Loaded(model=model, device=device, parts={NAME: model.weights})

    @contextmanager
    def opened(self, loaded: Loaded, *, expert: Expert | None = None) -> Iterator[Any]:
        """See `Backend.opened`; it has neither a scheduler nor adapters."""
        del expert
        with slot(loaded.device):
            try:
                yield loaded.model.weights.outline(loaded.device)
            finally:
                finish(loaded.device, everywhere=True)
                loaded.model.weights.restore(loaded.device)

    def draw(
        self,
        loaded: Loaded,
        resolved: Call,
        *,
        on_step: OnStep | None = None,
        offload: bool = False,
        stream: bool = False,
        tile: bool = False,
    ) -> Drawing:
        """See `Backend.draw`; one picture after another, each with its own seed."""
        if (offload or stream or tile) and loaded.device != HOST:
            raise OutOfMemoryError(
                f"{resolved.expert.id} draws only as a whole", hint="Choose a smaller expert, or the processor."
            )
        guidance = float(resolved.arguments.get("guidance_scale", GUIDANCE))
        images: list[Image] = []
        with self.opened(loaded) as module:
            for seed in resolved.seeds:
                sampler = _Sampler(guidance, seed, on_step, len(images), len(resolved.seeds), _tokens_of(module))
                work = _Work(module=module, tokenizer=loaded.model.tokenizer, prompt=resolved.prompt, sampler=sampler)
                images.append(guarded(work, resolved.expert, DrawError, "failed while drawing", steps=sampler))
        size = {"width": images[0].width, "height": images[0].height}
        dtype = str(next(module.parameters()).dtype).removeprefix("torch.")
        params = {"guidance_scale": guidance, **dict.fromkeys(_NOT_TAKEN), **size}
        return Drawing(images=tuple(images), params=params, dropped=_dropped(resolved), dtype=dtype)


class _Sampler:
    """Chooses each token: guidance between the prompt and an empty one, and noise of its own generator."""

    def __init__(
        self, guidance: float, seed: int, on_step: OnStep | None, picture: int, pictures: int, tokens: int
    ) -> None:
        import torch

        self.raised: BaseException | None = None
        self._guidance = guidance
        self._generator = torch.Generator("cpu").manual_seed(seed)
        self._on_step = on_step
        self._done = picture * tokens
        self._all = pictures * tokens

    def __call__(self, _: Any, scores: Any) -> Any:
        import torch

        asked, empty = scores.float().chunk(2)
        logits = empty + self._guidance * (asked - empty)
        # the largest of logits with Gumbel noise is a sample of their softmax
        uniform = torch.rand(logits.shape, generator=self._generator).clamp_(1e-20, 1 - 1e-7)
        self._report()
        return logits - torch.log(-torch.log(uniform)).to(logits.device)

    def _report(self) -> None:
        self._done += 1
        if self._on_step is None:
            return
        try:
            self._on_step(self._done, self._all)
        except BaseException as error:  # of whatever kind, it is raised on
            self.raised = error
            raise


@dataclass(frozen=True, kw_only=True)
class _Work:
    """Draws one picture."""

    module: Any
    tokenizer: Any
    prompt: str
    sampler: _Sampler

    def __call__(self) -> Image:
        import numpy as np
        import torch
        from PIL import Image
        from transformers import LogitsProcessorList

        begin = self.tokenizer.boi_token
        inputs = self.tokenizer(self._chat() + begin, return_tensors="pt").to(self.module.device)
        # a copy: `generate` writes into it, and loading loses what it says of the first token of a picture
        config = copy.deepcopy(self.module.generation_config)
        config.generation_kwargs = {"boi_token_id": self.tokenizer.convert_tokens_to_ids(begin)}
        config.bos_token_id = self.tokenizer.bos_token_id
        config.pad_token_id = self.tokenizer.pad_token_id
        # the sampler guides and samples; the greatest of its scores is the sample
        config.do_sample, config.guidance_scale = False, 1.0
        config.temperature = config.top_p = config.top_k = None
        try:
            with torch.inference_mode():
                tokens = self.module.generate(
                    inputs["input_ids"],
                    attention_mask=inputs["attention_mask"],
                    generation_mode="image",
                    generation_config=config,
                    logits_processor=LogitsProcessorList([self.sampler]),
                )
                pixels = self.module.decode_image_tokens(tokens)[0].float().cpu().numpy()
        finally:
            # it keeps the keys and values of a whole picture for the next one
            self.module.__dict__.pop("_cache", None)
        if not np.isfinite(pixels).all():
            raise DrawError("the picture has numbers that are not finite", hint="Write 'dtype: float32' in settings.")
        return Image.fromarray(((pixels * 0.5 + 0.5) * 255).clip(0, 255).round().astype("uint8"))

    def _chat(self) -> str:
        """The prompt in the form of a conversation, as the model was trained; marks in it are not its own."""
        said = self.prompt
        for mark in self.tokenizer.all_special_tokens:
            said = said.replace(mark, " ")
        if not self.tokenizer.chat_template:
            return f"<|User|>: {said}\n\n<|Assistant|>:"
        turn = {"role": "user", "content": [{"type": "text", "text": said}]}
        return str(self.tokenizer.apply_chat_template([turn], add_generation_prompt=True, tokenize=False))


def _tokens_of(module: Any) -> int:
    return int(module.model.vision_model.config.num_image_tokens)


def _dropped(call: Call) -> tuple[Dropped, ...]:
    asked = {name: call.arguments.get(name) for name in call.explicit}
    if call.negative_prompt:
        asked["negative_prompt"] = call.negative_prompt
    return tuple(
        Dropped(name=name, value=asked[name], reason=why) for name, why in _NOT_TAKEN.items() if asked.get(name)
    )


def _dtype(expert: Expert, device: str) -> str:
    if device == HOST:
        return "float32"
    return expert.settings.dtype if expert.settings.dtype in ("float16", "float32") else "bfloat16"


def _check_config(raw: bytes) -> None:
    """Refuse what is not Janus in transformers' layout.

    Raises:
        LoadError: If it is not.
    """
    from diffusiongpt.bounded import parse_json

    try:
        config = parse_json(raw)
    except ValueError:
        config = None
    kinds = config.get("architectures") if isinstance(config, dict) else None
    if kinds != [KIND]:
        said = kinds[0] if isinstance(kinds, list) and kinds else "nothing that is known"
        raise LoadError(
            f"{_CONFIG} is of {said}, not of {KIND}",
            hint="The repositories deepseek-community/Janus-Pro-1B and -7B have the layout that is needed; those of "
            "deepseek-ai need code of their own, which is never run.",
        )
