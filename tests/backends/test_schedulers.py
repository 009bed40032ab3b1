"""A scheduler of an expert's own: what its adapter was distilled for, and nothing that other experts draw with."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from fixtures_adapters import family
from fixtures_cache import Counting
from fixtures_diffusers import BACKEND, ask, pixels
from miniature import expert
from miniatures import make_miniature, miniature_settings

from diffusiongpt.cache import ModelCache
from diffusiongpt.errors import LoadError, ZooError
from diffusiongpt.hub import names_in
from diffusiongpt.zoo import CallSettings, Expert, Scheduler, parse_zoo_text

if TYPE_CHECKING:
    from diffusiongpt.backends import Loaded
    from diffusiongpt.settings import Settings

DISTILLED: list[str | dict[str, Any]] = [
    "LCMScheduler",
    "TCDScheduler",
    {"name": "EulerDiscreteScheduler", "timestep_spacing": "trailing"},
    {"name": "EulerAncestralDiscreteScheduler", "timestep_spacing": "trailing"},
    {"name": "DPMSolverMultistepScheduler", "use_karras_sigmas": True},
]
"""The schedulers of LCM, Hyper-SD, Lightning and Turbo adapters, and what model cards of fine-tunes ask for."""


def name_of(entry: str | dict[str, Any]) -> str:
    """The class in an entry of a zoo file."""
    return entry if isinstance(entry, str) else entry["name"]


def directly(folder: Path, entry: str | dict[str, Any]) -> bytes:
    """What a user of diffusers draws after replacing the scheduler."""
    import diffusers
    import torch

    from diffusiongpt.backends.diffusers import quiet_construction

    with quiet_construction():
        pipe = diffusers.StableDiffusionPipeline.from_pretrained(folder, use_safetensors=True)
    pipe.set_progress_bar_config(disable=True)
    more = {} if isinstance(entry, str) else {key: value for key, value in entry.items() if key != "name"}
    pipe.scheduler = getattr(diffusers, name_of(entry)).from_config(pipe.scheduler.config, **more)
    call = ask(expert(folder))
    torch.manual_seed(7)
    made = pipe(call.prompt, generator=torch.Generator().manual_seed(7), guidance_scale=7.5, **call.arguments)
    return bytes(made.images[0].tobytes())


@pytest.mark.parametrize("entry", DISTILLED, ids=name_of)
def test_it_draws_as_diffusers_does(sd: Loaded, tiny_sd: Path, entry: str | dict[str, Any]) -> None:
    """The scheduler has the settings of the checkpoint's own and the arguments of the entry, which the record keeps."""
    who = expert(tiny_sd, scheduler=entry)
    made = BACKEND.draw(sd, ask(who, guidance_scale=7.5))
    assert made.images[0].tobytes() == directly(tiny_sd, entry)
    assert made.params["sampler"] == name_of(entry)
    assert CallSettings.model_validate({"scheduler": made.params["scheduler"]}) == CallSettings(
        scheduler=who.settings.scheduler
    )


def test_experts_share_components_and_not_the_scheduler(settings: Settings, tiny_sd: Path, loras: Path) -> None:
    """One load serves all of them, in whatever order they draw, and each draws what it draws alone."""
    plain, ink, _ = family(tiny_sd, loras / "ink", loras / "toy")
    others = [expert(tiny_sd, f"s{at}", scheduler=entry) for at, entry in enumerate(DISTILLED)]
    distilled = ink.model_copy(
        update={"id": "lcm", "settings": ink.settings.model_copy(update={"scheduler": Scheduler(name="LCMScheduler")})}
    )
    experts = (plain, distilled, *others, ink)

    def draw(cache: ModelCache, who: Expert, backend: Any) -> list[bytes]:
        with cache.lease(who, backend, device="cpu") as loaded:
            return pixels(BACKEND.draw(loaded, ask(who)))

    alone = {who.id: draw(ModelCache(settings), who, BACKEND) for who in experts}
    assert len({picture[0] for picture in alone.values()}) == len(experts)
    cache, backend = ModelCache(settings), Counting()
    for who in (*experts, *reversed(experts), plain):
        assert draw(cache, who, backend) == alone[who.id], who.id
    assert backend.loads == ["plain"]


def test_a_lease_has_it_too(sd: Loaded, tiny_sd: Path) -> None:
    """The pipeline that a caller is handed has the expert's scheduler, and the next one its own."""
    who = expert(tiny_sd, scheduler=DISTILLED[2])
    with BACKEND.opened(sd, expert=who) as pipe:
        assert type(pipe.scheduler).__name__ == "EulerDiscreteScheduler"
        assert pipe.scheduler.config.timestep_spacing == "trailing"
    with BACKEND.opened(sd) as pipe:
        assert type(pipe.scheduler).__name__ != "EulerDiscreteScheduler"


def test_a_flow_model_takes_the_scheduler_of_its_kind(tmp_path: Path) -> None:
    """The arguments replace those of the checkpoint; the rest of its settings stay."""
    folder = make_miniature("flux1", tmp_path / "flux")
    loaded = BACKEND.load(expert(folder), folder, names_in(folder), device="cpu", have={})
    pictures = {}
    for name, entry in {
        "own": None,
        "shifted": {"name": "FlowMatchEulerDiscreteScheduler", "use_dynamic_shifting": False, "shift": 5.0},
        "lcm": "FlowMatchLCMScheduler",
    }.items():
        who = expert(folder, scheduler=entry, extra=miniature_settings("flux1").extra)
        pictures[name] = pixels(BACKEND.draw(loaded, ask(who)))[0]
    assert len(set(pictures.values())) == 3


ZOO = """schema_version: 1
experts:
  - id: mini
    repo: owner/mini
    settings:
      scheduler: {0}
"""


@pytest.mark.parametrize(
    ("entry", "what", "nearest"),
    [
        ("EulerDiscretScheduler", "'EulerDiscretScheduler' is not a scheduler", "'EulerDiscreteScheduler'"),
        ("SchedulerMixin", "'SchedulerMixin' is not a scheduler", ""),
        ("{name: LCMScheduler, timestep_space: trailing}", "takes no argument 'timestep_space'", "'timestep_spacing'"),
        ("{name: EulerDiscreteScheduler, timestep_spacing: trail}", "is linspace or leading or trailing", ""),
        ("{timestep_spacing: trailing}", "Field required", ""),
        ("[LCMScheduler]", "valid dictionary", ""),
        (f"{{name: LCMScheduler, trained_betas: [{'0.1, ' * 2000}]}}", "more than 8000 characters", ""),
    ],
)
def test_a_mistake_is_one_of_the_zoo_file(entry: str, what: str, nearest: str) -> None:
    """Name, arguments and values are checked where the file is read, long before weights are pulled."""
    with pytest.raises(ZooError) as caught:
        parse_zoo_text(ZOO.format(entry), Path("zoo.yaml"))
    assert str(caught.value).startswith("zoo.yaml:6: experts.0.settings.scheduler")
    assert what in str(caught.value)
    assert nearest in str(caught.value)


def test_what_is_not_installed_is_named(sd: Loaded, tiny_sd: Path) -> None:
    """Some schedulers need a library that we do not depend on."""
    who = expert(tiny_sd, scheduler="DPMSolverSDEScheduler")
    with pytest.raises(LoadError, match="torchsde") as caught:
        BACKEND.draw(sd, ask(who))
    assert "zoo file" in caught.value.hint


def test_every_scheduler_that_is_accepted_exists() -> None:
    """The names are read from the source of diffusers, and it exports all of them with these arguments."""
    import inspect

    import diffusers

    from diffusiongpt.zoo import schedulers

    exported = {name for name in dir(diffusers) if name.endswith("Scheduler")}
    known = schedulers._places()
    assert len(known) > 40
    assert set(known) <= exported
    for name, file in known.items():
        taken = set(inspect.signature(getattr(diffusers, name).__init__).parameters) - {"self", "args", "kwargs"}
        assert not taken or set(schedulers._arguments(file, name)) >= taken
