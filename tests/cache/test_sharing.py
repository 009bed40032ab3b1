"""The model-loader cache: nothing before the first request, then one pull and one load for all requests."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest
from fixtures_cache import KLEIN, SD, Counting, Toy, draw, touch
from miniature import expert

from diffusiongpt.cache import Checkpoint, Identities, Loader, ModelCache, SharedCall, SingleFlight
from diffusiongpt.errors import HubUnreachableError, LoadError, PullError, PullTooLargeError
from diffusiongpt.hub import Puller
from diffusiongpt.testing import Fault, LocalHub

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from diffusiongpt.settings import Settings
    from diffusiongpt.zoo import Expert


def test_only_what_is_leased_is_pulled_and_loaded(hub: LocalHub, online: Settings) -> None:
    """Nothing happens before the first lease, and then only for that expert."""
    cache, backend = ModelCache(online), Counting()
    assert hub.requests == []
    touch(cache, backend, SD, SD)
    assert set(hub.downloads) == {"t/sd"}
    assert backend.loads == ["sd"]
    assert cache.is_loaded(SD, device="cpu")
    assert not cache.is_loaded(KLEIN, device="cpu")


def test_many_requests_for_one_cold_model_make_one_download_and_one_load(hub: LocalHub, online: Settings) -> None:
    """Thirty-two requests at once: each file is requested once, and all draw the same."""
    cache, backend = ModelCache(online), Counting()
    barrier = threading.Barrier(32)

    def work(_: int) -> list[bytes]:
        barrier.wait()
        with cache.lease(SD, backend, device="cpu") as loaded:
            return draw(loaded, SD)

    with ThreadPoolExecutor(32) as pool:
        drawn = list(pool.map(work, range(32)))
    assert all(picture == drawn[0] for picture in drawn)
    assert backend.loads == ["sd"]
    gets = [path for method, path in hub.requests if method == "GET" and path.endswith(".safetensors")]
    assert sorted(gets) == sorted(set(gets))
    assert len(gets) == 3
    assert {row.leases for row in cache.explain().residents} == {0}


def test_a_plan_that_another_has_carried_out_is_not_announced_again(online: Settings) -> None:
    """A request that planned at the same time and arrives a moment too late finds the files on disk."""
    announced: list[str] = []
    puller = Puller(online, on_pull=lambda plan: announced.append(plan.repo))
    cache, backend = ModelCache(online, puller=puller), Counting()
    cache.fetch(SD, backend, check=lambda _: touch(cache, backend, SD))
    assert announced == ["t/sd"]


def test_a_load_that_another_has_done_meanwhile_is_not_done_again(
    settings: Settings, local: Callable[[str], Expert]
) -> None:
    """A request that found nothing loaded and arrives a moment too late uses what has been loaded by then."""
    cache, backend, who = ModelCache(settings), Toy(), local("a")
    touch(cache, backend, who)
    assert who.folder is not None
    found = Puller(settings).find(who, backend)
    assert found is not None
    model = Identities(settings.home).of(who, backend, found, "cpu")
    Loader(cache.memory).load(Checkpoint(expert=who, backend=backend, model=model), SharedCall(), offload=False)
    assert backend.loads == ["a"]


def test_two_ids_of_one_checkpoint_share_it(hub: LocalHub, online: Settings) -> None:
    """Content and place decide: another id, or the commit by name, loads nothing new."""
    cache, backend = ModelCache(online), Counting()
    touch(cache, backend, SD, expert("t/sd", "second"), expert("t/sd", "pinned", revision=hub.commit("t/sd")))
    assert backend.loads == ["sd"]
    assert cache.explain().residents[0].experts == ("pinned", "sd", "second")


def test_different_models_load_side_by_side(settings: Settings, local: Callable[[str], Expert]) -> None:
    """No lock is held during a load: two loads that wait for each other both finish."""
    meeting = threading.Barrier(2)
    cache, backend = ModelCache(settings), Toy(before_load=lambda _: meeting.wait(timeout=20))
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(lambda name: touch(cache, backend, local(name)), ("a", "b")))
    assert backend.alive == {"a", "b"}


def test_a_requester_that_leaves_neither_stops_nor_restarts_the_load(
    settings: Settings, local: Callable[[str], Expert]
) -> None:
    """The first of two requests fails in its own callback; the other still gets the shared load."""
    go, first_is_gone = threading.Event(), threading.Event()
    cache, backend = ModelCache(settings), Toy(before_load=lambda _: go.wait(20))
    who = local("a")

    def first() -> None:
        def leave(*_: Any) -> None:
            raise ZeroDivisionError

        with pytest.raises(ZeroDivisionError), cache.lease(who, backend, device="cpu", on_progress=leave):
            pass
        first_is_gone.set()

    def release() -> None:
        time.sleep(0.05)
        go.set()

    def second() -> str:
        assert first_is_gone.wait(20)
        with ThreadPoolExecutor(1) as helper:
            helper.submit(release)
            with cache.lease(who, backend, device="cpu") as loaded:
                return str(loaded.model)

    with ThreadPoolExecutor(2) as pool:
        one, two = pool.submit(first), pool.submit(second)
        assert two.result(30) == "a"
        one.result(30)
    assert backend.loads == ["a"]
    assert [row.leases for row in cache.explain().residents] == [0]


def test_a_requester_that_leaves_does_not_stop_the_download(hub: LocalHub, online: Settings) -> None:
    """The download continues and is not requested a second time."""
    hub.fail(Fault(match="unet/diffusion", stall_s=0.4, times=1))
    cache, backend = ModelCache(online), Counting()

    def leave(*_: Any) -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError), cache.lease(SD, backend, device="cpu", on_progress=leave):
        pass
    touch(cache, backend, SD)
    gets = [path for method, path in hub.requests if method == "GET" and "unet/diffusion" in path]
    assert len(gets) == 1


def test_a_failed_load_reaches_all_waiters_evicts_nothing_and_is_not_kept(
    settings: Settings, local: Callable[[str], Expert]
) -> None:
    """All waiters get the error; loaded models stay; the next attempt loads again."""
    broken = [True]
    meeting = threading.Barrier(5)

    def fail(name: str) -> None:
        if name == "b" and broken[0]:
            time.sleep(0.2)
            raise LoadError("no", hint="none")

    cache, backend = ModelCache(settings, budget_bytes=10), Toy(before_load=fail)
    touch(cache, backend, local("a"))
    who = local("b")

    def work(_: int) -> str:
        meeting.wait()
        try:
            touch(cache, backend, who)
        except LoadError as error:
            return str(error)
        return ""

    with ThreadPoolExecutor(5) as pool:
        assert list(pool.map(work, range(5))) == ["no"] * 5
    assert backend.loads == ["a", "b"]
    assert backend.alive == {"a"}
    broken[0] = False
    touch(cache, backend, who)
    assert backend.alive == {"b"}


def test_a_failed_pull_evicts_nothing_and_is_not_kept(hub: LocalHub, online: Settings) -> None:
    """When the hub is reachable again, the same cache works."""
    cache, backend = ModelCache(online, budget_bytes=1), Counting()
    touch(cache, backend, SD)
    fault = hub.fail(Fault(match="/api/", status=500))
    with pytest.raises(HubUnreachableError):
        touch(cache, backend, KLEIN)
    assert cache.is_loaded(SD, device="cpu")
    hub.faults.remove(fault)
    touch(cache, backend, KLEIN)
    assert cache.is_loaded(KLEIN, device="cpu")


def test_progress_goes_from_download_to_load(online: Settings) -> None:
    """Bytes of the download, then of the model, each up to its total, in the requester's own thread."""
    cache, backend = ModelCache(online), Counting()
    reported: list[tuple[str, int, int | None]] = []
    threads: set[int] = set()

    def on_progress(phase: str, done: int, total: int | None) -> None:
        reported.append((phase, done, total))
        threads.add(threading.get_ident())

    with cache.lease(SD, backend, device="cpu", on_progress=on_progress) as loaded:
        pass
    downloads = [entry for entry in reported if entry[0] == "download"]
    assert downloads[-1][1] == downloads[-1][2]
    assert reported[-1] == ("load", loaded.nbytes, loaded.nbytes)
    assert [phase for phase, _, _ in reported] == sorted(phase for phase, _, _ in reported)
    assert threads == {threading.get_ident()}


def test_agreement_is_asked_in_the_requesters_thread(online: Settings) -> None:
    """The question may be shown to a person; without an answer the pull is refused."""
    cache, backend = ModelCache(online.model_copy(update={"max_download_gb": 0.0})), Counting()
    with pytest.raises(PullTooLargeError):
        touch(cache, backend, SD)
    asked: list[int] = []

    def agree(_: Any) -> bool:
        asked.append(threading.get_ident())
        return True

    with cache.lease(SD, backend, device="cpu", agree=agree):
        assert asked == [threading.get_ident()]


def test_explain_says_what_is_where_and_why(online: Settings) -> None:
    """What is in memory comes first, then what is only on disk."""
    cache, backend = ModelCache(online), Counting()
    Puller(online).ensure(KLEIN, backend)
    with cache.lease(SD, backend, device="cpu") as loaded:
        held = cache.explain()
    unet, *_ = [row for row in held.on("host") if row.what.startswith("UNet")]
    assert (unet.experts, unet.leases, unet.uses, unet.goes) == (("sd",), 1, 2, None)
    assert unet.why.startswith("in use by 1; ")
    assert sum(row.nbytes for row in held.on("host")) == loaded.nbytes == held.ledgers[0].resident
    disk = held.on("disk")
    assert [row.experts for row in disk] == [("t/klein",), ("t/sd",)]
    assert disk[0].idle_s is None
    assert disk[0].nbytes > 300_000
    assert "cache clear" in disk[0].why
    idle = cache.explain().on("host")
    assert [row.goes for row in idle] == list(range(len(idle)))
    assert idle[0].why.startswith("goes first when room is needed; ")
    assert str(cache.explain()).startswith("host: 0.4 MB resident, ")


def test_a_closed_cache_lends_nothing_and_keeps_nothing(settings: Settings, local: Callable[[str], Expert]) -> None:
    """What is still leased is freed when its lease ends."""
    cache, backend = ModelCache(settings), Toy()
    touch(cache, backend, local("a"))
    with cache.lease(local("b"), backend, device="cpu"):
        cache.close()
        assert backend.alive == {"b"}
    assert backend.alive == set()
    with pytest.raises(LoadError, match="closed"):
        touch(cache, backend, local("a"))


def test_a_local_folder_that_is_missing_is_a_pull_error(settings: Settings, tmp_path: Path) -> None:
    """The cache reports this before anything is loaded."""
    with pytest.raises(PullError, match="does not exist"):
        touch(ModelCache(settings), Toy(), expert(tmp_path / "none"))


def test_work_ends_when_the_last_waiter_presses_ctrl_c() -> None:
    """After that, no request can join the ending load; a new one starts again."""
    flights: SingleFlight[str] = SingleFlight("test")
    stopped = threading.Event()

    def download(call: SharedCall[str]) -> str:
        call.report("download", 1, 2)
        while not call.may_stop():
            time.sleep(0.001)
        stopped.set()
        raise PullError("abandoned", hint="")

    def interrupt(*_: Any) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        flights.join("key", download, interrupt)
    assert stopped.wait(10)
    assert flights.join("key", lambda _: "afresh") == "afresh"


def test_work_goes_on_while_any_request_waits() -> None:
    """Ctrl-C ends the wait of one request and not that of the other."""
    flights: SingleFlight[bool] = SingleFlight("test")
    started, first_left, joined = threading.Event(), threading.Event(), threading.Event()

    def work(call: SharedCall[bool]) -> bool:
        started.set()
        call.report("download", 1, 2)
        assert first_left.wait(10)
        return call.may_stop()

    def interrupt(*_: Any) -> None:
        assert joined.wait(10)
        raise KeyboardInterrupt

    def first() -> None:
        with pytest.raises(KeyboardInterrupt):
            flights.join("key", work, interrupt)
        first_left.set()

    with ThreadPoolExecutor(2) as pool:
        one = pool.submit(first)
        assert started.wait(10)
        two = pool.submit(flights.join, "key", work, lambda *_: joined.set())
        one.result(20)
        assert two.result(20) is False
