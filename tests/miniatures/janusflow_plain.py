"""What JanusFlow computes, in plain functions and by the published names of its weights, to compare with."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from safetensors.torch import load_file
from tokenizers import Tokenizer
from torch import Tensor
from torch.nn.functional import conv2d, gelu, linear, pixel_shuffle, silu
from transformers import LlamaConfig, LlamaModel

from miniatures.janusflow import CONFIG, SPECIAL, TOKENS

if TYPE_CHECKING:
    from pathlib import Path


class Plain:
    """The computation that the authors publish, in plain functions and without what makes it fast.

    Written from JanusFlow (arXiv 2411.07975, sections 3.1 and 3.2) and the shapes and formulas of the published
    modules: the whole prompt in each step, padding that is masked in the row without a prompt, a step as it is written.
    """

    def __init__(self, folder: Path) -> None:
        self.weights = load_file(folder / "model.safetensors")
        self.tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        self.model = LlamaModel(LlamaConfig(**CONFIG["language_config"]))
        at = "language_model.model."
        self.model.load_state_dict({k.removeprefix(at): v for k, v in self.weights.items() if k.startswith(at)})
        self.model.eval()

    def draw(self, prompt: str, z: Tensor, steps: int, scale: float) -> Tensor:
        """The latents of a picture."""
        text = self.tokenizer.encode(f"User: {prompt}\n\nAssistant:", add_special_tokens=False).ids
        begin, padding = (self.tokenizer.token_to_id(mark) for mark in (SPECIAL[0], SPECIAL[2]))
        rows = torch.tensor([[begin, *text], [begin] + [padding] * len(text)])
        seen = torch.ones(2, rows.shape[1] + 1 + TOKENS, dtype=torch.int)
        seen[1, 1 : rows.shape[1]] = 0
        with torch.no_grad():
            for step in range(steps):
                v = self.velocity(rows, seen, torch.cat([z, z]), step / steps * 1000)
                z = z + (scale * v[:1] - (scale - 1) * v[1:]) / steps
        return z

    def velocity(self, rows: Tensor, seen: Tensor, z: Tensor, time: float) -> Tensor:
        """Of both rows, (2, 4, height, width)."""
        w, encoder, decoder = self.weights, "vision_gen_enc_model", "vision_gen_dec_model"
        width = w[f"{encoder}.in_conv.bias"].numel()
        rates = torch.exp(-torch.log(torch.tensor(10000.0)) * torch.arange(width // 2) / (width // 2))
        waves = torch.cat([torch.cos(time * rates), torch.sin(time * rates)]).expand(2, -1)
        t = self.affine(f"{encoder}.time_embed.linear_1", waves)
        t = self.affine(f"{encoder}.time_embed.linear_2", silu(t))
        x = conv2d(z, w[f"{encoder}.in_conv.weight"], w[f"{encoder}.in_conv.bias"], stride=2)
        x = self.blocks(encoder, x, t)
        tokens = self.affine("vision_gen_enc_aligner", x.flatten(2).transpose(1, 2))
        read = torch.cat([self.model.embed_tokens(rows), t[:, None], tokens], dim=1)
        answer = self.model(inputs_embeds=read, attention_mask=seen).last_hidden_state[:, -TOKENS:]
        y = self.affine("vision_gen_dec_aligner", self.normed("vision_gen_dec_aligner_norm", answer))
        y = self.normed(f"{decoder}.input_norm", y).transpose(1, 2).reshape(x.shape)
        y = self.blocks(decoder, torch.cat([y, x], dim=1), t)
        y = self.normed(f"{decoder}.out_convs.0.norm", y.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
        last = f"{decoder}.out_convs.0.unpatch_conv"
        return pixel_shuffle(conv2d(y, w[f"{last}.weight"], w[f"{last}.bias"]), 2)

    def blocks(self, part: str, x: Tensor, t: Tensor) -> Tensor:
        """ConvNeXt blocks with global response normalisation, scaled and shifted by the time."""
        for block in range(2):
            at = f"{part}.mid_block.res_blocks.{block}"
            y = conv2d(
                x, self.weights[f"{at}.depthwise.weight"], self.weights[f"{at}.depthwise.bias"], padding=3,
                groups=x.shape[1],
            )  # fmt: skip
            y = gelu(self.affine(f"{at}.channelwise_linear_1", self.normed(f"{at}.norm", y.permute(0, 2, 3, 1))))
            size = (y**2).sum(dim=(1, 2), keepdim=True).sqrt()
            share = size / (size.mean(dim=-1, keepdim=True) + 1e-6)
            y = (self.weights[f"{at}.channelwise_norm.weight"] * share + 1) * y
            y = y + self.weights[f"{at}.channelwise_norm.bias"]
            x = x + self.affine(f"{at}.channelwise_linear_2", y).permute(0, 3, 1, 2)
            grow, shift = self.affine(f"{at}.cond_embeds_mapper", silu(t))[:, :, None, None].chunk(2, dim=1)
            x = x * (1 + grow) + shift
        return x

    def affine(self, name: str, x: Tensor) -> Tensor:
        """A linear layer."""
        return linear(x, self.weights[f"{name}.weight"], self.weights[f"{name}.bias"])

    def normed(self, name: str, x: Tensor) -> Tensor:
        """Normalised by the root of the mean square over the last side."""
        return x / (x**2).mean(dim=-1, keepdim=True).add(1e-6).sqrt() * self.weights[f"{name}.weight"]
