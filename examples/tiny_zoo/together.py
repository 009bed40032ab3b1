"""Several processes of one machine that train one model; with a single process everything here is a no-op."""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist

# Where the processes meet; empty when there is only one.
_MEETING_PLACE: list[Any] = []


def join(rank: int, processes: int, port: int = 29_517) -> None:
    """Make this process one of several that train together.

    Args:
        rank: Its number.
        processes: How many there are.
        port: A free port of this machine.
    """
    torch.set_num_threads(1)
    if processes > 1:
        tcp_store: Any = dist.TCPStore  # type: ignore[attr-defined]
        store = tcp_store("127.0.0.1", port, processes, is_master=rank == 0)
        dist.init_process_group("gloo", store=store, rank=rank, world_size=processes)
        _MEETING_PLACE.append(store)


def my_rank() -> int:
    """The number of this process; the first is 0."""
    return dist.get_rank() if _MEETING_PLACE else 0


def agree(over: bool) -> bool:
    """Whether any process says that time is over: all must stop at the same step."""
    if not _MEETING_PLACE:
        return over
    flag = torch.tensor(float(over))
    dist.all_reduce(flag)
    return bool(flag > 0)


def take_ticket(counter: str, taken_here: int) -> int:
    """Draw the next number of a counter that all processes share, from 1.

    Args:
        counter: Its name.
        taken_here: How many this process has drawn already, this one included.
    """
    return int(_MEETING_PLACE[0].add(counter, 1)) if _MEETING_PLACE else taken_here


def add_up(values: torch.Tensor) -> torch.Tensor:
    """Add a tensor over all processes, in place."""
    if _MEETING_PLACE:
        dist.all_reduce(values)
    return values
