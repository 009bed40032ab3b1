"""Work that is done for a client counts as its own, and reports to it."""

from __future__ import annotations

import threading

from diffusiongpt.requester import asked_by, client_of_thread, report, reporting


def test_what_is_done_in_a_block_is_done_for_its_client() -> None:
    """Also in a block within a block, and no longer than that; another thread knows nothing of it."""
    seen: list[object] = []
    assert client_of_thread() is None
    with asked_by("one"):
        with asked_by("two"):
            assert client_of_thread() == "two"
        assert client_of_thread() == "one"
        thread = threading.Thread(target=lambda: seen.append(client_of_thread()))
        thread.start()
        thread.join()
    assert seen == [None]
    assert client_of_thread() is None


def test_progress_reaches_the_client_and_the_studio() -> None:
    """A callback that was made in the block reports from any thread; without a client nothing is lost or raised."""
    heard: list[tuple[str, str, int, int | None]] = []

    def hear(who: str) -> object:
        return lambda phase, done, total: heard.append((who, phase, done, total))

    report("queue", 0, None)
    with asked_by("one", hear("client")):  # type: ignore[arg-type]  # mypy knows no nested lambdas
        report("queue", 0, None)
        both = reporting(hear("studio"))  # type: ignore[arg-type]
    thread = threading.Thread(target=both, args=("download", 1, 2))
    thread.start()
    thread.join()
    reporting(None)("draw", 1, 1)
    assert heard == [("client", "queue", 0, None), ("studio", "download", 1, 2), ("client", "download", 1, 2)]
