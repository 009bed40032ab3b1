"""Placements count all memory of a machine, fit into it, and say what is missing where nothing fits."""

from __future__ import annotations

from math import inf

import pytest
from fixtures_routing import expert
from hypothesis import given, settings
from hypothesis import strategies as st

from diffusiongpt.errors import SettingsError
from diffusiongpt.flow import GIB, MachineSpec, Placement
from diffusiongpt.placement import USABLE, Measured, Planner, cost_of, planned_for, speed_of
from diffusiongpt.settings import Memory, load_settings
from diffusiongpt.zoo import CallSettings, Expert, Zoo

ZOO = Zoo.load("default")
EVERY_WAY = ("whole", "offload", "stream", "cpu")


def gpu(device_gb: float, host_gb: float = 128, **facts: object) -> MachineSpec:
    """A machine with a GPU, in GB of 1e9."""
    spec = {"flops": 165e12, "link_bytes_s": 25e9, **facts}
    return MachineSpec(device="cuda:0", device_bytes=device_gb * 1e9, host_bytes=host_gb * 1e9, **spec)  # type: ignore[arg-type]


def laptop(host_gb: float) -> MachineSpec:
    """A machine without a GPU."""
    return MachineSpec(device="cpu", device_bytes=host_gb * 1e9, host_bytes=host_gb * 1e9, flops=0.5e12)


def planner(machine: MachineSpec, **options: object) -> Planner:
    """A planner that knows all ways but quantising, with everything on disk."""
    return Planner(machine, **{"ways": EVERY_WAY, "tiles": True, "readiness": lambda _: "on_disk", **options})  # type: ignore[arg-type]


TABLE = {
    "sdxl-base": ("offload", "whole", "whole", "whole", "whole", "whole"),
    "flux1-dev": ("stream", "stream", "stream", "stream", "whole", "whole"),
    "flux2-dev": ("stream", "stream", "stream", "stream", "stream", "offload"),
    "flux2-klein-4b": ("stream", "offload", "offload", "whole", "whole", "whole"),
    "flux2-klein-9b": ("stream", "stream", "stream", "offload", "whole", "whole"),
    "qwen-image": ("stream", "stream", "stream", "stream", "offload", "whole"),
    "z-image": ("stream", "stream", "offload", "offload", "whole", "whole"),
    "ernie-image": ("stream", "stream", "stream", "offload", "whole", "whole"),
}
"""Seven families on 8 to 80 GB, worked out by hand from the sizes of components and reported peaks; there the host had
room for all parts of each."""


@pytest.mark.parametrize("name", TABLE)
def test_the_first_placement_is_the_one_worked_out_by_hand(name: str) -> None:
    """Seven families have the expected placement on 8, 12, 16, 24, 48 and 80 GB."""
    found = [planner(gpu(size, 256))(ZOO[name]).best for size in (8, 12, 16, 24, 48, 80)]
    assert tuple(best.kind if best else None for best in found) == TABLE[name]


@pytest.mark.parametrize(
    ("name", "kind", "gigabytes"),
    [
        ("sdxl-base", "whole", 17.0),
        ("flux1-dev", "whole", 38.9),
        ("flux1-dev", "offload", 24.9),
        ("flux2-dev", "offload", 66.3),
        ("flux2-klein-4b", "whole", 21.2),
        ("flux2-klein-9b", "offload", 19.6),
        ("qwen-image", "whole", 68.5),
        ("qwen-image", "offload", 41.9),
        ("z-image", "offload", 14.0),
        ("ernie-image", "whole", 36.0),
        ("ernie-image", "offload", 18.4),
    ],
)
def test_peaks_agree_with_those_that_were_reported(name: str, kind: str, gigabytes: float) -> None:
    """The planned peak on the device is within 10 % of the figure that was reported for it."""
    plan = planner(gpu(200, 400), tiles=False)(ZOO[name])
    found = next(one for one in plan.placements if one.kind == kind)
    assert found.device_bytes == pytest.approx(gigabytes * 1e9, rel=0.1)


def test_tiles_make_room_for_sdxl_on_8_gb() -> None:
    """SDXL's float32 decoding does not fit on 8 GB untiled, and the placement says that it decodes in tiles."""
    assert planner(gpu(8, 8), tiles=False)(ZOO["sdxl-base"]).best is None
    tiled = planner(gpu(8))(ZOO["sdxl-base"]).best
    assert tiled is not None
    assert (tiled.kind, tiled.tiled) == ("offload", True)


@settings(deadline=None)  # the first one reads the figures
@given(st.floats(2, 200), st.floats(2, 400), st.sampled_from(list(ZOO)))
def test_a_placement_fits_and_more_memory_never_hurts(device: float, host: float, name: str) -> None:
    """Whatever the machine, each placement fits into nine tenths of it, and stays possible on a larger machine."""
    plan = planner(gpu(device, host))(ZOO[name])
    larger = planner(gpu(device + 8, host + 8))(ZOO[name])
    assert {one.kind for one in plan.placements} <= {one.kind for one in larger.placements}
    assert bool(plan.placements) != bool(plan.reason)
    for one in plan.placements:
        assert one.device_bytes is not None
        assert one.host_bytes is not None
        assert one.device_bytes <= device * 1e9 * USABLE + 1
        assert one.host_bytes <= host * 1e9 * USABLE + 1


@settings(deadline=None)  # the first one reads the figures
@given(st.floats(2, 60), st.floats(2, 60), st.sampled_from([one for one in ZOO if ZOO[one].components]))
def test_the_number_in_a_rejection_is_the_one_that_changes_it(device: float, host: float, name: str) -> None:
    """A machine with the memory that a rejection asks for can draw."""
    import re

    reason = planner(gpu(device, host))(ZOO[name]).reason
    for wish in re.sub("^needs |; this.*", "", reason).split(" or ") if reason else []:
        on_device = re.search(r"([\d.]+) GB on the device", wish)
        on_host = re.search(r"([\d.]+) GB of host memory", wish)
        enough = gpu(
            float(on_device[1]) * GIB / 1e9 if on_device else device,
            float(on_host[1]) * GIB / 1e9 if on_host else host,
        )
        assert planner(enough)(ZOO[name]).placements, (reason, wish)


def test_a_rejection_names_both_memories() -> None:
    """Where a larger device or a larger host would do, both numbers are said, and what the machine has."""
    reason = planner(gpu(8, 24), ways=("whole", "offload", "cpu"))(ZOO["flux2-klein-4b"]).reason
    has = "this machine has 7.5 GB and 22.4 GB of host memory"
    assert reason == f"needs 11 GB on the device or 43 GB of host memory; {has}"
    assert "needs 35 GB of host memory" in planner(gpu(48, 32))(ZOO["flux1-dev"]).reason


def test_what_is_not_known_does_not_fit() -> None:
    """An expert of unknown size, and a machine of unknown memory, have no placement; neither is an error."""
    plan = planner(gpu(80))(expert("mystery", size_gb=None))
    assert plan.best is None
    assert "size is not known" in plan.reason
    blind = MachineSpec(device="cuda:0", device_bytes=None, host_bytes=None)
    assert "unknown" in planner(blind)(ZOO["sdxl-base"]).reason


def test_a_size_without_components_is_placed_whole_or_not_at_all() -> None:
    """What is not known to have parts cannot be moved by parts."""
    lump = expert("lump", size_gb=20.0)
    assert [one.kind for one in planner(gpu(48))(lump).placements] == ["whole"]
    assert not planner(gpu(16))(lump).placements


def test_sizes_on_disk_are_taken_before_those_of_the_zoo() -> None:
    """Headers are exact, and the zoo is what somebody wrote."""
    found = planner(gpu(24), weigh=lambda _: {"unet": 1_000_000_000, "vae": 0})(ZOO["flux1-dev"]).best
    assert found is not None
    assert found.host_bytes == 1_000_000_000


def test_an_adapter_is_placed_with_its_base() -> None:
    """It takes the memory of its base and more, and is not offloaded: its base stays on the device."""
    for one in ZOO.values():
        if one.kind == "adapter":
            # the largest base, FLUX.2 [dev], takes more than any card of 80 GB
            plan = planner(gpu(180, host_gb=256))(one)
            assert plan.best is not None
            assert {placement.kind for placement in plan.placements} <= {"whole", "cpu"}


def test_a_processor_computes_in_float32() -> None:
    """Without a GPU the only way is the processor, with twice the bytes, and without end if need be."""
    plan = planner(laptop(64))(ZOO["z-image"])
    assert [one.kind for one in plan.placements] == ["cpu"]
    assert plan.best is not None
    assert plan.best.host_bytes is not None
    assert plan.best.host_bytes > 2 * 20.5e9
    assert "needs 80 GB of host memory" in planner(laptop(64))(ZOO["flux1-dev"]).reason


def test_beside_a_gpu_the_processor_is_the_last_resort_for_quick_ones() -> None:
    """It counts only where it would take minutes and not hours, and after everything else."""
    assert planner(gpu(8))(ZOO["sd15-base"]).placements[-1].kind == "cpu"
    assert "cpu" not in {one.kind for one in planner(gpu(8, 200))(ZOO["z-image"]).placements}


def test_one_memory_gains_nothing_from_offloading() -> None:
    """On a Mac there is one way, and its bytes are counted once."""
    mac = MachineSpec(device="mps", device_bytes=48e9, host_bytes=64e9, flops=15e12)
    assert [one.kind for one in planner(mac)(ZOO["flux1-dev"]).placements] == ["whole"]
    assert planner(mac)(ZOO["qwen-image"]).reason.endswith("this machine has 44.7 GB")


def test_a_gpu_without_bfloat16_needs_twice_the_bytes() -> None:
    """Such weights are float32 there."""
    old, new = planner(gpu(48, bfloat16=False)), planner(gpu(48))
    assert new(ZOO["flux2-klein-9b"]).placements[0].kind == "whole"
    assert old(ZOO["flux2-klein-9b"]).placements[0].kind == "offload"
    assert old(ZOO["sdxl-base"]) == new(ZOO["sdxl-base"])


def test_only_what_the_backends_can_do_is_planned() -> None:
    """A way that nothing here can carry out is not a placement."""
    assert not planner(gpu(16), ways=("whole", "offload"))(ZOO["flux1-dev"]).placements
    quantised = planner(gpu(24), ways=("whole", "offload", "quantised"), quantise=True)(ZOO["flux2-dev"]).best
    assert quantised is not None
    assert quantised.kind == "quantised"
    assert 0 < quantised.device_bytes <= 24 * GIB * USABLE


def test_weights_of_4_bits_are_only_for_those_who_want_them() -> None:
    """The user's setting, or the zoo entry's type, allows them; where the package is missing, the reason says so."""
    ways, machine = (*EVERY_WAY, "quantised"), gpu(24, 110)
    assert planner(machine, ways=ways)(ZOO["flux2-dev"]).best is None
    allowed = planner(machine, ways=ways, quantise=True)(ZOO["flux2-dev"]).best
    assert allowed is not None
    assert allowed.kind == "quantised"
    missing = planner(machine, quantise=True)(ZOO["flux2-dev"])
    assert missing.best is None
    assert missing.reason.endswith("with weights of 4 bits it would fit: pip install 'diffusiongpt[quantised]'")
    assert "4 bits" not in planner(machine)(ZOO["flux2-dev"]).reason
    small = {"settings": ZOO["flux2-dev"].settings.model_copy(update={"dtype": "nf4"})}
    named = planner(gpu(80, 110), ways=ways)(ZOO["flux2-dev"].model_copy(update=small))
    assert [one.kind for one in named.placements] == ["quantised"]
    assert "pip install" in planner(gpu(80, 110))(ZOO["flux2-dev"].model_copy(update=small)).reason


def test_8_bits_come_before_4() -> None:
    """Both are ways to quantise: what fits with more bits is tried first, and the type in the zoo is the only one."""
    ways = ("whole", "offload", "quantised")
    large = planner(gpu(48, 256), ways=ways, quantise=True)(ZOO["qwen-image"]).placements
    assert [(one.kind, one.bits) for one in large if one.kind == "quantised"] == [("quantised", 8), ("quantised", 4)]
    eight, four = large[-2:]
    assert (four.device_bytes or 0) < (eight.device_bytes or 0)
    small = planner(gpu(16, 256), ways=ways, quantise=True)(ZOO["qwen-image"]).placements
    assert [one.bits for one in small] == [4]
    asked = ZOO["qwen-image"].settings.model_copy(update={"dtype": "int8"})
    who = ZOO["qwen-image"].model_copy(update={"settings": asked})
    assert [one.bits for one in planner(gpu(48, 256), ways=ways)(who).placements] == [8]
    only = planner(gpu(48, 256), ways=ways, quantise=True, bits=(8,))(ZOO["qwen-image"]).placements
    assert {one.bits for one in only if one.kind == "quantised"} == {8}
    lacking = planner(gpu(16, 256), ways=ways, quantise=True, bits=(8,))(ZOO["qwen-image"])
    assert lacking.reason.endswith("with weights of 4 bits it would fit: pip install 'diffusiongpt[quantised]'")


def test_a_service_takes_no_memory() -> None:
    """A hosted expert has a placement on every machine, and how long it takes is not known."""
    found = planner(gpu(1, 1))(ZOO["gpt-image-2"]).placements
    assert found == (Placement(kind="hosted", device="openai", device_bytes=0, host_bytes=0, download_bytes=0),)


def test_seconds_hold_download_loading_and_drawing() -> None:
    """More steps, more pixels and a download take longer; streaming a large model takes longer than holding it."""
    plan = planner(gpu(80, flops=989e12))
    seconds = {one.kind: one.seconds or inf for one in plan(ZOO["flux1-dev"]).placements}
    assert seconds["whole"] < seconds["stream"]
    usual = plan(ZOO["z-image"]).placements[0].seconds or 0
    assert (plan(ZOO["z-image"], steps=100).placements[0].seconds or 0) > usual
    assert (plan(ZOO["z-image"], width=2048, height=2048).placements[0].seconds or 0) > usual
    pulled = planner(gpu(80, flops=989e12), readiness=lambda _: "download")(ZOO["z-image"]).placements[0]
    assert (pulled.seconds or 0) > usual + 400
    assert pulled.download_bytes == 20_530_000_000
    loaded = planner(gpu(80, flops=989e12), readiness=lambda _: "loaded")(ZOO["z-image"]).placements[0]
    assert (loaded.seconds or 0) < usual


def test_what_was_measured_corrects_the_estimate() -> None:
    """Seconds and activations are multiplied by what was measured here for the architecture."""
    slow = planner(
        gpu(24), measured=lambda name, _: Measured(seconds=3.0, activations=2.0) if name == "z-image" else Measured()
    )
    assert (slow(ZOO["z-image"]).placements[0].seconds or 0) > (
        planner(gpu(24))(ZOO["z-image"]).placements[0].seconds or 0
    )
    assert slow(ZOO["ernie-image"]) == planner(gpu(24))(ZOO["ernie-image"])


def test_nearly_all_of_the_shipped_zoo_has_a_placement_on_24_and_64_gb() -> None:
    """Of the experts below 60 GB nine in ten have component sizes, or a base that has, and a placement there."""
    small = [one for one in ZOO.values() if one.backend == "diffusers" and (one.size_bytes or 0) < 60e9]
    sized = [one for one in small if (one.base_expert or one).components]
    able = [one for one in small if planner(planned_for(Memory.parse("24GB+64GB"), laptop(16)))(one).placements]
    assert len(sized) >= 0.9 * len(small)
    assert len(able) >= 0.9 * len(small)


def test_a_memory_is_read_as_it_is_sold() -> None:
    """A card of "24GB" has 24 GiB; a second size is the host's, which else is the usual, or this one's if larger."""
    here = laptop(32)
    alone = planned_for(Memory.parse("24GB"), here)
    assert (alone.device_bytes, alone.host_bytes) == (24 * GIB, 64 * GIB)
    assert planned_for(Memory.parse("24GB"), laptop(128)).host_bytes == 128e9
    both = planned_for(Memory.parse(" 24 gb + 64GiB"), here)
    assert (both.device_bytes, both.host_bytes) == (24 * GIB, 64 * GIB)
    assert planned_for(Memory.parse("cpu"), gpu(24, 32)).device == "cpu"
    assert planned_for(Memory.parse("any"), here).device_bytes == inf
    assert planned_for(None, here) == here
    assert planner(planned_for(Memory.parse("any"), here))(ZOO["flux2-dev"]).placements[0].seconds is None
    assert str(Memory.parse("24GB+64GB")) == "24GB+64GB"
    assert str(Memory.parse("any")) == "any"


@pytest.mark.parametrize("text", ["lots", "0GB", "", "-8GB", "24", "24GB+0GB", "1GB+2GB+3GB", "nanGB", "infGB", None])
def test_a_memory_that_makes_no_sense_is_refused(text: object) -> None:
    """The message says what can be written, and the setting names its variable."""
    with pytest.raises(ValueError, match="write 24GB"):
        Memory.parse(text)
    if text is not None:
        with pytest.raises(SettingsError, match=r"memory.*write 24GB"):
            load_settings(memory=text)


def test_a_device_has_the_speed_that_is_listed_for_it() -> None:
    """By its name, and by its memory where no name is known."""
    assert speed_of("cuda:0", "NVIDIA GeForce RTX 4090", 25e9)[0] == 165e12
    assert speed_of("cuda:0", "somebody's own", 8e9)[0] == 30e12
    assert speed_of("cpu", "", 8e9)[0] == 0.5e12
    assert cost_of("never-heard-of") == cost_of(None)


def test_the_same_machine_has_the_same_plan() -> None:
    """A plan depends on nothing but the machine and the picture."""
    assert [planner(gpu(24))(one) for one in ZOO.values()] == [planner(gpu(24))(one) for one in ZOO.values()]
    sized = expert("own", components={"unet": 1.0, "vae": 0.2}, settings=CallSettings(width=512, height=512))
    assert planner(gpu(8))(sized, width=512, height=512) == planner(gpu(8))(sized)


def test_a_packed_component_neither_doubles_nor_shrinks() -> None:
    """A GGUF file is counted with its own bytes on every device, and as the parameters that it stands for in time."""
    facts = {"id": "few", "repo": "a/flux", "architecture": "flux1", "settings": {"num_inference_steps": 20}}
    source = {"repo": "b/gguf", "file": "flux-Q4_K_S.gguf", "size_gb": 6.8}
    others = {"text_encoder": 0.25, "text_encoder_2": 9.52, "vae": 0.17}
    packed = Expert.model_validate({**facts, "components": {"transformer": source, **others}})
    plain = Expert.model_validate({**facts, "components": {"transformer": 6.8, **others}})
    whole = Expert.model_validate({**facts, "components": {"transformer": 23.8, **others}})
    few, same, full = (
        planner(gpu(80, 200), ways=(*EVERY_WAY, "quantised"), quantise=True)(one) for one in (packed, plain, whole)
    )
    assert few.best is not None
    assert same.best is not None
    assert full.best is not None
    assert few.best.device_bytes == same.best.device_bytes < full.best.device_bytes
    assert few.best.seconds > same.best.seconds
    shrunk = [next(one for one in plan.placements if one.kind == "quantised") for plan in (few, same)]
    assert shrunk[0].device_bytes > shrunk[1].device_bytes
    on_cpu = [planner(laptop(200))(one).best for one in (packed, plain)]
    assert on_cpu[0] is not None
    assert on_cpu[1] is not None
    assert on_cpu[1].host_bytes - on_cpu[0].host_bytes == pytest.approx(6.8e9, rel=0.01)
