"""A route is for a machine: it chooses what fits there, says what would change a rejection, and drawing follows it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from fixtures_routing import expert, local, pixel_folder, router_of, settings_in, zoo_of

from diffusiongpt.errors import NoRouteError, RequestError
from diffusiongpt.flow import MachineSpec, Placement, Policy, Request, Route
from diffusiongpt.studio import DiffusionGPT
from diffusiongpt.zoo import CallSettings, Capabilities, Zoo

if TYPE_CHECKING:
    from pathlib import Path

    from diffusiongpt.routing import Router

HERE = MachineSpec(device="cuda:0", device_bytes=24e9, host_bytes=64e9, flops=165e12)
PROMPT = "a pixel art fox"


def router_on(zoo: Zoo, votes: Path) -> Router:
    """A router of a machine with 24 GB, with everything on disk."""
    return router_of(zoo, votes, here=HERE)


def test_what_does_not_fit_is_rejected_with_the_number(tmp_path: Path) -> None:
    """Whatever its score, an expert that fits nowhere here is a rejection that says what it would need."""
    zoo = zoo_of(expert("huge", "pixel_art", size_gb=40.0), expert("small"))
    decision = router_on(zoo, tmp_path / "v.db").route(Request(prompt=PROMPT))
    assert decision.expert == "small"
    assert decision.placement is not None
    assert decision.placement.kind == "whole"
    assert decision.why_not("huge") == (
        "huge was rejected: needs 49 GB on the device; this machine has 22.4 GB and 59.6 GB of host memory."
    )


def test_a_memory_plans_for_another_machine(tmp_path: Path) -> None:
    """`memory` widens and narrows what may be chosen; `any` rejects no expert for its size."""
    zoo = zoo_of(expert("huge", "pixel_art", size_gb=40.0), expert("small"))
    router = router_on(zoo, tmp_path / "v.db")
    chosen = {
        memory: router.route(Request(prompt=PROMPT), Policy(memory=memory)).expert  # type: ignore[arg-type]  # parsed
        for memory in ("16GB", "80GB", "80GB+16GB", "any", "cpu")
    }
    assert chosen == {"16GB": "small", "80GB": "huge", "80GB+16GB": "small", "any": "huge", "cpu": "small"}


def test_a_need_that_only_a_larger_machine_could_meet_is_unmet(tmp_path: Path) -> None:
    """It is dropped and reported, and what fits draws."""
    zoo = zoo_of(expert("plain"), expert("huge", size_gb=90.0, capabilities=Capabilities(text_rendering_en="good")))
    prompt = 'a sign that says "OPEN"'
    router = router_on(zoo, tmp_path / "v.db")
    decision = router.route(Request(prompt=prompt))
    assert (decision.expert, decision.unmet) == ("plain", ("text in the picture",))
    assert router.route(Request(prompt=prompt), Policy(memory="any")).unmet == ()  # type: ignore[arg-type]


def test_an_expert_of_unknown_size_draws_only_when_asked_for_by_name(tmp_path: Path) -> None:
    """Not known never counts as fitting; asked for by name, its placement has no numbers."""
    zoo = zoo_of(expert("mystery", "pixel_art", size_gb=None), expert("small"))
    router = router_on(zoo, tmp_path / "v.db")
    assert router.route(Request(prompt=PROMPT)).expert == "small"
    named = router.route(Request(prompt=PROMPT, expert="mystery"))
    assert named.placement == Placement(kind="whole", device="cuda:0")


def test_when_nothing_fits_another_machine_is_offered(tmp_path: Path) -> None:
    """The error lists the reasons, and its hint names what to do."""
    zoo = zoo_of(expert("one", size_gb=40.0), expert("two", size_gb=60.0))
    with pytest.raises(NoRouteError) as caught:
        router_on(zoo, tmp_path / "v.db").route(Request(prompt=PROMPT))
    assert "zoo='tiny'" in caught.value.hint
    assert all("needs" in reason for _, reason in caught.value.rejected)


def test_fast_weighs_seconds(tmp_path: Path) -> None:
    """With equal scores the quicker expert is chosen, and quality does not look at the clock."""
    slow = expert("slow", size_gb=6.0, settings=CallSettings(num_inference_steps=50))
    quick = expert("quick", size_gb=6.0, settings=CallSettings(num_inference_steps=4))
    router = router_on(zoo_of(slow, quick), tmp_path / "v.db")
    assert router.route(Request(prompt="a fox")).expert == "slow"
    assert router.route(Request(prompt="a fox"), Policy(prefer="fast")).expert == "quick"


def test_a_size_of_the_picture_counts(tmp_path: Path) -> None:
    """A picture that is too large for the device is a rejection, not an accident."""
    zoo = zoo_of(expert("one", size_gb=14.0))
    router = router_on(zoo, tmp_path / "v.db")
    assert router.route(Request(prompt="a fox")).expert == "one"
    with pytest.raises(NoRouteError, match="on the device"):
        router.route(Request(prompt="a fox", width=4096, height=4096))


def test_rejections_are_grouped_and_lines_fit_a_terminal(tmp_path: Path) -> None:
    """Experts of one reason share a paragraph; no line after the first is wider than 78 characters."""
    zoo = Zoo.load("default")
    decision = router_on(zoo, tmp_path / "v.db").route(Request(prompt='a poster that says "你好"'))
    _, *lines = decision.explain().splitlines()
    assert max(map(len, lines)) <= 78
    text = " ".join(" ".join(lines).split())
    assert text.count("not known to support Chinese text in the picture") == 1
    assert text.count("more memory than there is") == 1
    assert Route.model_validate_json(decision.model_dump_json()).placement == decision.placement


def test_the_seconds_are_said_with_what_takes_them_and_a_faster_expert(tmp_path: Path) -> None:
    """Below the sentence: the time to the picture, and a near-tie that takes half of it."""
    steps = {"slow": 500, "quick": 4}
    zoo = zoo_of(
        *(expert(name, size_gb=14.0, settings=CallSettings(num_inference_steps=n)) for name, n in steps.items())
    )
    decision = router_on(zoo, tmp_path / "v.db").route(Request(prompt="a fox"))
    assert (decision.expert, decision.near_ties) == ("slow", ("quick",))
    told = " ".join(decision.explain().partition("\n\n")[0].splitlines()[1:])
    assert told.startswith("About ")
    assert "quick is nearly as good and takes " in told


@pytest.mark.parametrize("memory", ["lots", "0GB", "24", 3])
def test_a_memory_that_makes_no_sense_is_a_request_error(memory: Any) -> None:
    """The hint says what can be written."""
    with pytest.raises(RequestError, match="memory=") as caught:
        Policy(memory=memory)
    assert "24GB+64GB" in caught.value.hint


def test_the_settings_may_name_a_memory(tmp_path: Path) -> None:
    """Routes are planned for it, and a call may still ask for another."""
    zoo = zoo_of(expert("huge", "pixel_art", size_gb=40.0), expert("small"))
    with DiffusionGPT(zoo, settings=settings_in(tmp_path, memory="any")) as studio:
        assert studio.route(PROMPT).expert == "huge"
        assert studio.route(PROMPT, memory="2GB").expert == "small"


@pytest.mark.parametrize(
    ("entry", "lacks"),
    [
        ("repo: ./gone", "its folder gone does not exist; correct 'repo'"),
        ("repo: ./here, file: one.safetensors", "its folder here has no file one.safetensors; correct 'repo'"),
        ("repo: ./here/one.safetensors", "its folder here has no file one.safetensors; correct 'repo'"),
        ("repo: o/a, kind: adapter, base: ./gone", "its base's folder gone does not exist; correct 'base'"),
        ("repo: o/a, components: {vae: {repo: ./gone}}", "the vae's folder gone does not exist; correct"),
        (
            "repo: ./here, kind: adapter, base: o/b, adapters: [{repo: ./gone}]",
            "another adapter's folder gone does not exist; correct 'adapters'",
        ),
    ],
)
def test_an_expert_whose_local_files_do_not_exist_is_rejected(tmp_path: Path, entry: str, lacks: str) -> None:
    """Its size cannot be known, and the route says what is missing and what to do, also where it is asked for by name.

    Of the path it names the last folder alone, since a route is saved with its pictures.
    """
    (tmp_path / "here").mkdir()
    path = tmp_path / "zoo.yaml"
    path.write_text(f"experts:\n  - {{id: mine, {entry}, tags: {{styles: [pixel_art]}}}}\n")
    with DiffusionGPT(Zoo.load("tiny", path), settings=settings_in(tmp_path)) as studio:
        for memory in (None, "any", "80GB"):
            decision = studio.route(PROMPT, memory=memory)
            assert decision.expert == "tiny-pixel"
            assert decision.why_not("mine").startswith(f"mine was rejected: {lacks}")
            assert str(tmp_path) not in decision.model_dump_json()
        with pytest.raises(NoRouteError, match=lacks) as caught:
            studio.route(PROMPT, expert="mine")
        assert "zoo check" in caught.value.hint


def test_a_folder_that_appears_makes_its_expert_eligible(tmp_path: Path) -> None:
    """Each route looks at the disk, so what was rejected draws as soon as its files exist, without a new studio."""
    zoo = zoo_of(local("mine", tmp_path / "mine", size_gb=None), expert("other"))
    with DiffusionGPT(zoo, settings=settings_in(tmp_path)) as one:
        assert one.route(PROMPT).expert == "other"
        (tmp_path / "mine").symlink_to(pixel_folder())
        assert "mine" in {candidate.expert for candidate in one.route(PROMPT).candidates}


def test_the_record_says_how_it_was_drawn_and_whether_it_is_a_demonstration(tmp_path: Path) -> None:
    """The placement that was used is recorded, and a stand-in of the demonstration zoo is marked."""
    with DiffusionGPT(zoo_of(local("one", pixel_folder())), settings=settings_in(tmp_path)) as studio:
        (record,) = studio.route_and_generate(PROMPT, num_inference_steps=1).records
        assert record.placement is not None
        assert (record.placement.kind, record.demonstration) == ("cpu", False)
    with DiffusionGPT(zoo_of(expert("gone")), settings=settings_in(tmp_path)) as studio:
        (record,) = studio.route_and_generate(PROMPT, num_inference_steps=1).records
        assert (record.zoo, record.demonstration) == (("tiny",), True)
