"""What is particular about a store in a database server: how it is reached, and how long its answers may take."""

from __future__ import annotations

import os
import socket
from contextlib import contextmanager, suppress
from threading import Timer, local
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa
from sqlalchemy import exc

from diffusiongpt.errors import NeedsExtraError, SettingsError
from diffusiongpt.safe_text import keep_url_secrets
from diffusiongpt.votes import schema as tables

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


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


def set_limits(connection: sa.Connection, busy_seconds: float) -> None:
    """Have PostgreSQL itself end what takes too long in this transaction."""
    connection.exec_driver_sql(
        f"SET LOCAL lock_timeout = '{int(1000 * busy_seconds)}ms'; "
        f"SET LOCAL statement_timeout = '{int(1000 * (busy_seconds + WORK_S))}ms'"
    )


def lock(connection: sa.Connection) -> None:
    """Wait until no other process writes, until the transaction ends."""
    connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({POSTGRES_LOCK})")


def wipe(connection: sa.Connection, busy_seconds: float) -> None:
    """Rewrite the tables and the statistics about them, which both may still contain what was deleted."""
    free = connection.execution_options(isolation_level="AUTOCOMMIT")
    free.exec_driver_sql(f"SET lock_timeout = '{int(1000 * busy_seconds)}ms'")
    free.exec_driver_sql(f"VACUUM (FULL, ANALYZE) {', '.join(tables.metadata.tables)}")


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

    @contextmanager
    def _cut_after(self, seconds: float) -> Iterator[None]:
        mine = self._mine.__dict__
        timer = Timer(seconds, _cut, [mine])
        timer.daemon = True
        timer.start()
        try:
            yield
        finally:
            timer.cancel()


def _cut(mine: dict[str, Any]) -> None:
    """End the connection of a thread, so that the thread waiting for its server gets an error."""
    connection = mine.get("connection")
    with (
        suppress(OSError, AttributeError, ValueError),  # it is closed already, or its driver has no such method
        socket.socket(fileno=os.dup(connection.fileno())) as line,  # type: ignore[union-attr]
    ):
        line.shutdown(socket.SHUT_RDWR)
