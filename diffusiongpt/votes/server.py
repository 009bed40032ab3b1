"""What is particular about a store in a database server: how it is reached, and how long its answers may take."""

from __future__ import annotations

import os
import socket
from contextlib import contextmanager, suppress
from functools import partial
from hashlib import blake2b
from threading import local
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa
from sqlalchemy import exc

from diffusiongpt.errors import NeedsExtraError, SettingsError
from diffusiongpt.safe_text import keep_url_secrets
from diffusiongpt.stopping import called_after
from diffusiongpt.votes import schema as tables

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from contextlib import AbstractContextManager


POSTGRES_LOCK = 0x64_67_70_74
"""Advisory lock for writing. It makes row numbers follow the order of commits, as they do in SQLite."""

ANSWER_S = 5
"""Seconds for a server to accept a connection, and to answer that it is there. A stated bound: a server across the
world takes one."""

WORK_S = 60.0
"""Seconds for one transaction beyond those for which it waits for other writers. A stated bound: a million votes are
read in less."""

_DRIVERS = ("psycopg", "psycopg2")


def engine_of(url: str, json_deserializer: Callable[[str | bytes], Any]) -> sa.Engine:
    """The engine for a database URL.

    Raises:
        SettingsError: If the URL is not valid.
        NeedsExtraError: If its driver is not installed.
    """
    keep_url_secrets(url)
    try:
        place = sa.make_url(url)
        timeout = {} if "connect_timeout" in place.query else {"connect_timeout": ANSWER_S}
        arguments = timeout if place.get_driver_name() in _DRIVERS else {}
        return sa.create_engine(url, connect_args=arguments, json_deserializer=json_deserializer)
    except exc.ArgumentError as error:
        raise SettingsError(
            f"the URL of the vote store is not valid: {error}",
            hint="Write it like postgresql+psycopg://user@host/name.",
        ) from None
    except ImportError as error:
        raise NeedsExtraError(
            f"the driver for the URL of the vote store is not installed: {error}",
            hint='pip install "diffusiongpt[postgres]"',
        ) from None
    except ValueError:
        # The error is not shown, because the text in place of the port may be the rest of a password.
        raise SettingsError(
            "the URL of the vote store is not valid: its port is not a number",
            hint="Write it like postgresql+psycopg://user@host:5432/name, and %40 for an '@' in the password.",
        ) from None


def key_of(place: sa.URL) -> str:
    """Names the server and the database of a URL, whoever logs in and with whatever driver."""
    where = [place.query[name] for name in ("host", "port") if name in place.query]
    named = repr((place.get_backend_name(), place.host, place.port, place.database, where))
    return blake2b(named.encode(), digest_size=6).hexdigest()


def is_unreachable(error: BaseException, engine: sa.Engine) -> bool:
    """Whether an error means that the server is not there for anyone now, not that it refuses something."""
    if isinstance(error, exc.TimeoutError):  # all connections of this process wait for an answer
        return True
    if not isinstance(error, exc.DBAPIError) or engine.dialect.name == "sqlite":
        return False
    state = _state_of(error)
    if state is not None:
        return state.startswith("08") or state in _NOT_NOW
    if error.connection_invalidated:
        return True
    return isinstance(error, exc.OperationalError) and not _refuses(engine, str(error.orig))


_NOT_NOW = {"57P01", "57P02", "57P03", "53300"}
"""States in which PostgreSQL serves no one: it is shut down, has crashed, is starting, or has no connection left."""


_BUSY = {"55P03", "57014", "40P01"}
"""States of a transaction that others kept waiting for too long."""


def is_busy(error: BaseException) -> bool:
    """Whether a server was kept from an answer by others, so that it may give one later."""
    return isinstance(error, exc.DBAPIError) and _state_of(error) in _BUSY


def _state_of(error: exc.DBAPIError) -> str | None:
    """The SQLSTATE of an error; `None` for one of the driver, such as of a connection that could not be made."""
    return getattr(error.orig, "sqlstate", None) or getattr(error.orig, "pgcode", None)


def _refuses(engine: sa.Engine, cause: str) -> bool:
    """Whether a server that accepts connections has refused this one, whose error has no state.

    What it says is in the language of the server, so libpq is asked, which needs neither user nor password for that.
    """
    if engine.dialect.driver != "psycopg":
        return True  # rather an error than a vote that waits for nothing
    from psycopg import conninfo, pq

    if "imeout" in cause or "too many c" in cause or "connection slots" in cause:
        return False
    arguments, named = engine.dialect.create_connect_args(engine.url)
    # SQLAlchemy adds an object that is for psycopg alone
    for_libpq: dict[str, Any] = {name: value for name, value in named.items() if isinstance(value, str | int)}
    where = conninfo.make_conninfo(*arguments, **{"connect_timeout": ANSWER_S, **for_libpq})
    answer = pq.Ping(pq.PGconn.ping(where.encode()))
    return answer in (pq.Ping.OK, pq.Ping.NO_ATTEMPT)


def set_limits(connection: sa.Connection, busy_seconds: float, work_seconds: float = WORK_S) -> None:
    """Have PostgreSQL itself end what takes too long in this transaction: waits for others, and its own work."""
    connection.exec_driver_sql(
        f"SET LOCAL lock_timeout = '{int(1000 * busy_seconds)}ms'; "
        f"SET LOCAL statement_timeout = '{int(1000 * (busy_seconds + work_seconds))}ms'"
    )


def lock(connection: sa.Connection) -> None:
    """Wait until no other process writes, until the transaction ends."""
    connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({POSTGRES_LOCK})")


def wipe(connection: sa.Connection, busy_seconds: float, more: Sequence[str]) -> None:
    """Rewrite the tables, and more by their names, with the statistics; both may still contain what was deleted."""
    free = connection.execution_options(isolation_level="AUTOCOMMIT")
    free.exec_driver_sql(f"SET lock_timeout = '{int(1000 * busy_seconds)}ms'")
    free.exec_driver_sql(f"VACUUM (FULL, ANALYZE) {', '.join((*tables.metadata.tables, *more))}")


class Deadlines:
    """Cuts connections whose server has stopped to answer: a stopped server, or a host that was switched off.

    Timeouts of the server do not help there, and a driver waits for an answer for as long as the connection stands.

    Args:
        engine: Engine whose connections are watched.
    """

    def __init__(self, engine: sa.Engine) -> None:
        self._mine = local()
        self._dialect = engine.dialect
        sa.event.listen(engine, "checkout", self._check)

    @contextmanager
    def within(self, seconds: float) -> Iterator[None]:
        """Cut the connection that is used in the block when it takes longer."""
        self._mine.connection = None
        with self._cut_after(seconds):
            yield

    def _check(self, connection: Any, *_: object) -> None:
        """Ask a connection from the pool whether its server is there, which is cheap and must be quick.

        Raises:
            DisconnectionError: If it is not; the pool then opens another connection.
        """
        self._mine.connection = connection
        try:
            with self._cut_after(ANSWER_S):
                self._dialect.do_ping(connection)
        except self._dialect.loaded_dbapi.Error as error:
            raise exc.DisconnectionError(str(error)) from error

    def _cut_after(self, seconds: float) -> AbstractContextManager[None]:
        return called_after(seconds, partial(_cut, self._mine.__dict__))


def _cut(mine: dict[str, Any]) -> None:
    """End the connection of a thread, so that the thread waiting for its server gets an error."""
    connection = mine.get("connection")
    with (
        suppress(OSError, AttributeError, ValueError),  # it is closed already, or its driver has no such method
        socket.socket(fileno=os.dup(connection.fileno())) as line,  # type: ignore[union-attr]  # suppressed above
    ):
        line.shutdown(socket.SHUT_RDWR)
