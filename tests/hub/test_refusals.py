"""What the hub refused is not requested again for a while, and renamed or redirected repositories are handled."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from fixtures_adapters import adapter
from fixtures_cache import BACKEND, SD, UNET, touch
from miniature import expert
from pydantic import SecretStr

from diffusiongpt.cache import ModelCache
from diffusiongpt.errors import GatedRepoError, HubUnreachableError, PullError, RepoMissingError
from diffusiongpt.hub import Puller, read_small
from diffusiongpt.testing import Fault, LocalHub

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from diffusiongpt.settings import Settings

TOKEN = "hf_right"  # noqa: S105  # opens a gate of this test only
NONE = expert("t/none")


class Clock:
    """A clock that a test sets."""

    now = 1000.0

    def __call__(self) -> float:
        """The time."""
        return self.now


@pytest.fixture
def clock() -> Clock:
    """A clock that stands still."""
    return Clock()


def ask(puller: Puller, hub: LocalHub, who: object, kind: type[PullError]) -> tuple[int, str]:
    """Pull what is not available; return the number of requests and the error."""
    before = len(hub.requests)
    with pytest.raises(kind) as caught:
        puller.ensure(who, BACKEND)  # type: ignore[arg-type]
    return len(hub.requests) - before, f"{caught.value} {caught.value.hint}"


def test_a_refusal_is_remembered_for_ten_minutes(hub: LocalHub, online: Settings, clock: Clock) -> None:
    """Gated or missing: the same error is raised at once without a request, and says when the hub is asked again."""
    hub.gate("t/sd")
    puller = Puller(online, clock=clock)
    for who, kind in (
        (SD, GatedRepoError),
        (NONE, RepoMissingError),
        (expert("t/sd", revision="v9"), RepoMissingError),
    ):
        asked, said = ask(puller, hub, who, kind)
        assert asked > 0
        clock.now += 240
        again, told = ask(puller, hub, who, kind)
        assert again == 0
        assert told.startswith(said.split(" ", 1)[0])
        assert "asked again in 6 min" in told
        clock.now += 330
        assert "asked again in 30 s" in ask(puller, hub, who, kind)[1]
        clock.now += 31
        assert ask(puller, hub, who, kind)[0] > 0
    assert f"{hub.url}/t/sd" in ask(puller, hub, SD, GatedRepoError)[1]


def test_another_question_is_asked(hub: LocalHub, online: Settings, clock: Clock, repo: Path) -> None:
    """Token, endpoint and revision belong to the request; a new puller, and clearing, forget the refusal."""
    hub.gate("t/sd", token=TOKEN)
    puller = Puller(online, clock=clock)
    ask(puller, hub, SD, GatedRepoError)
    assert ask(puller, hub, expert("t/sd", revision=hub.commit("t/sd")), GatedRepoError)[0] > 0
    assert ask(Puller(online, clock=clock), hub, SD, GatedRepoError)[0] > 0
    puller.clear()
    assert ask(puller, hub, SD, GatedRepoError)[0] > 0
    with LocalHub({"t/sd": repo}) as other:
        puller.settings = online.model_copy(update={"hub_endpoint": other.url})
        assert puller.ensure(SD, BACKEND).is_dir()
        puller.clear()
    puller.settings = online.model_validate({**online.model_dump(), "hub_token": TOKEN})
    assert puller.ensure(SD, BACKEND).is_dir()


def test_a_login_meanwhile_is_another_question(
    hub: LocalHub, online: Settings, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The token that the hub client finds without our settings counts as well."""
    hub.gate("t/sd", token=TOKEN)
    puller = Puller(online, clock=clock)
    ask(puller, hub, SD, GatedRepoError)
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    assert puller.ensure(SD, BACKEND).is_dir()


def test_a_hub_that_is_down_is_asked_again(hub: LocalHub, online: Settings, clock: Clock) -> None:
    """Only an answer of the hub is remembered; a missing answer is not."""
    fault = hub.fail(Fault(match="/api/", status=500))
    puller = Puller(online, clock=clock)
    ask(puller, hub, SD, HubUnreachableError)
    hub.faults.remove(fault)
    assert puller.ensure(SD, BACKEND).is_dir()


def test_a_gate_met_at_the_weights_is_remembered_too(
    hub: LocalHub, online: Settings, clock: Clock, loras: Path
) -> None:
    """Nothing small is read for an adapter, so the gate appears only when the download begins."""
    hub.add("t/ink", loras / "ink")
    hub.gate("t/ink")
    puller = Puller(online, clock=clock)
    ink = adapter("ink", "t/ink", "t/sd")
    assert ask(puller, hub, ink, GatedRepoError)[0] > 0
    assert ask(puller, hub, ink, GatedRepoError)[0] == 0


def test_a_renamed_repository_is_followed_and_recorded(hub: LocalHub, online: Settings) -> None:
    """The endpoint redirects to the new name, as the real hub does: the pull works, and the new name is recorded."""
    hub.rename("t/sd", "o/better")
    told: list[str] = []
    puller = Puller(online, on_pull=lambda plan: told.append(str(plan)))
    with ModelCache(online, puller=puller).lease(SD, BACKEND, device="cpu") as loaded:
        assert loaded.nbytes > 0
    assert told[0].startswith("pulling t/sd (now o/better) for sd: ")
    (record,) = puller.pulled()
    assert (record.repo, record.moved_to) == ("t/sd", "o/better")
    hub.stop()
    assert Puller(online).ensure(SD, BACKEND) == puller.on_disk(SD)
    assert puller.clear() > 300_000


def test_a_name_that_did_not_change_is_not_recorded_as_new(puller: Puller) -> None:
    """Nothing is reported for a repository that was not renamed."""
    puller.ensure(SD, BACKEND)
    assert puller.pulled()[0].moved_to is None
    assert "now" not in str(puller.plan(SD, BACKEND))


@pytest.fixture
def elsewhere(repo: Path) -> Iterator[LocalHub]:
    """Another server with the same repository."""
    with LocalHub({"t/sd": repo}) as other:
        yield other


def with_token(settings: Settings) -> Settings:
    """Another server with the same repository, and a token that it must not see."""
    return settings.model_validate({**settings.model_dump(), "hub_token": TOKEN})


@pytest.mark.parametrize("match", ["/revision/", "/tree/", "/api/"])
def test_what_a_repository_holds_comes_from_the_endpoint(
    hub: LocalHub, elsewhere: LocalHub, online: Settings, match: str
) -> None:
    """A listing from another server is refused by name, and that server gets no request."""
    who = expert("t/sd", revision=hub.commit("t/sd"))
    hub.fail(Fault(match=match, redirect=elsewhere.url))
    with pytest.raises(HubUnreachableError, match="redirects to") as caught:
        touch(ModelCache(with_token(online)), BACKEND, who)
    assert elsewhere.url in str(caught.value)
    assert "HF_ENDPOINT" in caught.value.hint
    assert elsewhere.requests == []


def test_files_may_come_from_the_file_server_of_the_endpoint(
    hub: LocalHub, elsewhere: LocalHub, online: Settings
) -> None:
    """The other server sends the bytes, as for large files on the real hub, and never sees the token."""
    hub.fail(Fault(match=".safetensors", redirect=elsewhere.url))
    puller = Puller(with_token(online))
    plan = puller.plan(SD, BACKEND)
    assert plan.memory_bytes("float16") is not None
    folder = puller.ensure(SD, BACKEND)
    assert (folder / UNET).read_bytes() == (hub.repo("t/sd").folder / UNET).read_bytes()  # type: ignore[union-attr]
    assert not any(name.endswith(".safetensors") for name in hub.downloads["t/sd"])
    assert UNET in elsewhere.downloads["t/sd"]
    assert (hub.tokens, elsewhere.tokens) == ({TOKEN}, set())


def test_an_index_may_come_from_there_too_without_the_token(
    hub: LocalHub, elsewhere: LocalHub, online: Settings
) -> None:
    """A small file that the hub stores with the large ones is read in the same way."""
    hub.fail(Fault(match="model_index.json", redirect=elsewhere.url))
    found = read_small(with_token(online), "t/sd", hub.commit("t/sd"), "model_index.json")
    assert found == (elsewhere.repo("t/sd").folder / "model_index.json").read_bytes()  # type: ignore[union-attr]
    assert elsewhere.tokens == set()


def test_bytes_from_there_are_checked_against_the_endpoint(
    hub: LocalHub, elsewhere: LocalHub, online: Settings
) -> None:
    """A file server that sends other bytes of the right size is detected by the hash that the endpoint gave."""
    size = (hub.repo("t/sd").folder / UNET).stat().st_size  # type: ignore[union-attr]
    hub.fail(Fault(match=UNET, redirect=elsewhere.url))
    elsewhere.fail(Fault(match=UNET, garble=True, garble_from=size - 64))
    puller = Puller(online)
    with pytest.raises(PullError, match="does not have the content that its hash"):
        puller.ensure(SD, BACKEND)
    assert puller.on_disk(SD) is None
    assert not list((online.hub_cache / "models--t--sd" / "blobs").glob(hub.repo("t/sd").files()[UNET].etag))  # type: ignore[union-attr]


def test_a_circle_of_redirects_ends(hub: LocalHub, puller: Puller) -> None:
    """A hub that redirects in circles is an error of ours."""
    hub.fail(Fault(match="/api/", redirect=hub.url))
    with pytest.raises(HubUnreachableError, match="in circles"):
        puller.plan(SD, BACKEND)


def test_an_error_carries_no_token(online: Settings, hub: LocalHub) -> None:
    """Whoever logs an error with its cause logs the client's request, which has had the token in its headers."""
    hub.faults.append(Fault(match="/api/", status=500))
    settings = online.model_copy(update={"hub_token": SecretStr("hf_secret")})
    with pytest.raises(PullError) as caught:
        Puller(settings).plan(SD, BACKEND)
    seen: BaseException | None = caught.value
    while seen is not None:
        for holder in (seen, getattr(seen, "response", None)):
            request = None if holder is None else vars(holder).get("_request")
            assert "hf_secret" not in str(dict(request.headers) if request else "")
        seen = seen.__cause__ or seen.__context__
