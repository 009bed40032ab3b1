"""What programs send that speak AUTOMATIC1111's dialect."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from diffusiongpt.apps.server.bodies import Asked, DrawBody, read_body
from diffusiongpt.apps.server.failures import RefusedError
from diffusiongpt.apps.server.profiles import Profiles
from diffusiongpt.apps.server.settings import ServerSettings

_USUAL_STEPS = (20, 50)
_USUAL_SCALE = 7.0
"""What these programs send unless their user chose something: SillyTavern and the web UI 20 steps, its API 50, and all
of them a scale of 7. They are meant for one kind of model, and an expert of another kind would draw badly with them,
so it draws with its own."""

_LEAST_STRENGTH = 0.01
_USUAL_STRENGTH = 0.75
"""How far from the picture img2img goes where that is not sent: the default of the web UI's API."""

_WITHOUT_EFFECT = frozenset(
    {
        "url",
        "auth",
        "sampler_name",
        "sampler_index",
        "scheduler",
        "send_images",
        "save_images",
        "do_not_save_samples",
        "do_not_save_grid",
        "override_settings_restore_afterwards",
    }
)
"""Fields that every client sends and that need no notice: what they ask for is done, or is the expert's own matter."""


class _Dialect(BaseModel):
    model_config = ConfigDict(extra="allow", frozen=True)


class OptionsBody(_Dialect):
    """Options to set; only the checkpoint is one here."""

    sd_model_checkpoint: str | None = Field(default=None, max_length=200, description="A name of `/sd-models`.")


class Txt2ImgBody(_Dialect):
    """A prompt to draw."""

    prompt: str = Field(default="", description="What to draw.")
    negative_prompt: str | None = Field(default=None, description="What must not be in the picture.")
    steps: int | None = Field(default=None, description="Denoising steps; 20 and 50 leave them to the expert.")
    cfg_scale: float | None = Field(default=None, description="Guidance scale; 7 leaves it to the expert.")
    width: int | None = Field(default=None, description="Width in pixels.")
    height: int | None = Field(default=None, description="Height in pixels.")
    seed: int | None = Field(default=None, description="Seed of the first picture; -1 for a fresh one.")
    batch_size: Annotated[int, BeforeValidator(lambda value: 1 if value is None else value)] = Field(
        default=1, ge=1, le=64, description="Pictures at a time."
    )
    n_iter: Annotated[int, BeforeValidator(lambda value: 1 if value is None else value)] = Field(
        default=1, ge=1, le=64, description="Times that so many are drawn."
    )
    override_settings: Mapping[str, Any] | None = Field(
        default=None, description="`sd_model_checkpoint` of it chooses a model for this request."
    )

    def read(self, profiles: Profiles, limits: ServerSettings, *, model: str | None, voter: str) -> Asked:
        """Understand the body.

        Args:
            profiles: What model names mean.
            limits: Limits of size and time.
            model: The model that the client has chosen before.
            voter: The voter that the client is.

        Raises:
            RefusedError: If a limit of this server is passed.
        """
        named = (self.override_settings or {}).get("sd_model_checkpoint")
        sent = {name: value for name, value in (self.model_extra or {}).items() if name not in _WITHOUT_EFFECT}
        body = DrawBody.model_validate(
            {
                **{name: value for name, value in sent.items() if name not in DrawBody.model_fields},
                "prompt": self.prompt,
                "model": named if isinstance(named, str) else model,
                "n": self.batch_size * self.n_iter,
                **self._arguments(),
            }
        )
        return read_body(body, profiles, limits, voter=voter)

    def echoed(self) -> dict[str, Any]:
        """The fields that were understood, as the web UI repeats them, without pictures."""
        return self.model_dump(mode="json", include=set(Txt2ImgBody.model_fields) - {"override_settings"})

    def _arguments(self) -> dict[str, Any]:
        """Our arguments; those that are `None` are left to the expert."""
        return {
            "negative_prompt": self.negative_prompt or None,
            "num_inference_steps": None if self.steps in _USUAL_STEPS else self.steps,
            "guidance_scale": None if self.cfg_scale == _USUAL_SCALE else self.cfg_scale,
            "width": self.width,
            "height": self.height,
            "seed": None if self.seed is None or self.seed < 0 else self.seed,
        }


class Img2ImgBody(Txt2ImgBody):
    """A picture to draw from."""

    init_images: tuple[str, ...] = Field(default=(), max_length=16, description="The picture, in base64.")
    denoising_strength: float | None = Field(default=None, ge=0, le=1, description="How far to go from it.")
    mask: str | None = Field(default=None, description="What of it is painted, in base64: white.")

    def _arguments(self) -> dict[str, Any]:
        if not self.init_images:
            raise RefusedError(400, "init_images is missing", code="invalid_request", param="init_images")
        if (self.model_extra or {}).get("inpainting_mask_invert"):
            raise RefusedError(
                400,
                "inpainting_mask_invert is not done here. Send a mask that is white where to paint.",
                code="invalid_request",
                param="inpainting_mask_invert",
            )
        strength = _USUAL_STRENGTH if self.denoising_strength is None else self.denoising_strength
        return {
            **super()._arguments(),
            "image": list(self.init_images),
            "mask_image": self.mask,
            "strength": max(_LEAST_STRENGTH, strength),
        }
