"""A PostgreSQL server for the tests, in its own folder and on its own socket."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
import time
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import psutil
import sqlalchemy as sa

if TYPE_CHECKING:
    import pwd
    from collections.abc import Iterator

NEEDED = ("initdb", "postgres")
SYSTEM_FOLDERS = ("usr/lib/postgresql/*/bin", "usr/pgsql-*/bin", "opt/homebrew/opt/postgresql*/bin")
MISSING = "no PostgreSQL server here (initdb and postgres): apt-get install postgresql"
ADMIN = "diffusiongpt"


def server_folder() -> Path | None:
    """Folder of the server's binaries, if they are installed."""
    on_path = shutil.which(NEEDED[0])
    folders = [Path(on_path).resolve().parent] if on_path else []
    for pattern in SYSTEM_FOLDERS:
        folders += sorted(Path("/").glob(pattern), reverse=True)
    return next((folder for folder in folders if all((folder / name).exists() for name in NEEDED)), None)


class PostgresServer:
    """A running server; as a context manager, it is removed at the end."""

    def __init__(self, binaries: Path) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="dgpt-pg-"))
        self._binaries = binaries
        self._databases = 0
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        self._as_user = _other_user(self.folder)
        data = self.folder / "data"
        options = ["--username", ADMIN, "--auth", "trust", "--encoding", "UTF8", "--locale", "C", "--no-sync"]
        self._run("initdb", "--pgdata", data, *options)
        self._start()
        return self

    def _start(self) -> None:
        data, log = self.folder / "data", self.folder / "log"
        fast = ["-F", "-c", "shared_buffers=16MB", "-c", "max_connections=40", "-c", "dynamic_shared_memory_type=mmap"]
        command = [self._binaries / "postgres", "-D", data, "-k", self.folder, "-h", "", *fast]
        with log.open("ab") as output:
            self._process = subprocess.Popen(command, stdout=output, stderr=output, **self._as_user)
        self._wait(log)

    def __exit__(self, *_: object) -> None:
        if self._process is not None:
            self._process.send_signal(signal.SIGQUIT)  # immediately: the data is not needed
            self._process.wait(timeout=60)
        shutil.rmtree(self.folder, ignore_errors=True)

    def url(self, database: str, user: str = ADMIN) -> str:
        """SQLAlchemy's URL of a database."""
        return f"postgresql+psycopg://{user}@/{database}?host={self.folder}"

    def new_database(self) -> str:
        """URL of a new database."""
        self._databases += 1
        name = f"votes{self._databases}"
        self.execute(f"CREATE DATABASE {name}")
        return self.url(name)

    @contextmanager
    def stopped(self) -> Iterator[None]:
        """Nothing in the server runs: it takes connections, and answers nothing."""
        assert self._process is not None
        main = psutil.Process(self._process.pid)
        processes = [main, *main.children(recursive=True)]
        for process in processes:
            process.suspend()
        try:
            yield
        finally:
            for process in processes:
                process.resume()

    @contextmanager
    def unreachable(self) -> Iterator[None]:
        """The server runs, and takes no connections; those there were are ended."""
        address = self.folder / ".s.PGSQL.5432"
        engine = sa.create_engine(self.url("postgres"), isolation_level="AUTOCOMMIT", poolclass=sa.pool.NullPool)
        with engine.connect() as connection:
            address.rename(self.folder / "away")
            others = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid()"
            connection.exec_driver_sql(f"{others} AND backend_type = 'client backend'")
        try:
            yield
        finally:
            (self.folder / "away").rename(address)

    @contextmanager
    def down(self) -> Iterator[None]:
        """The server is killed with all its processes, and started again at the end."""
        assert self._process is not None
        main = psutil.Process(self._process.pid)
        processes = [main, *main.children(recursive=True)]
        for process in processes:
            with suppress(psutil.NoSuchProcess):
                process.kill()
        self._process.wait()
        psutil.wait_procs(processes)
        try:
            yield
        finally:
            self._start()

    def execute(self, statement: str, url: str | None = None) -> list[Any]:
        """Run one statement, outside a transaction, and return its rows."""
        engine = sa.create_engine(url or self.url("postgres"), isolation_level="AUTOCOMMIT", poolclass=sa.pool.NullPool)
        with engine.connect() as connection:
            result = connection.exec_driver_sql(statement)
            return list(result) if result.returns_rows else []

    def _run(self, program: str, *arguments: object) -> None:
        command = [str(self._binaries / program), *map(str, arguments)]
        done = subprocess.run(command, capture_output=True, text=True, check=False, **self._as_user)
        assert done.returncode == 0, done.stderr

    def _wait(self, log: Path) -> None:
        assert self._process is not None
        deadline = time.monotonic() + 60
        while True:
            try:
                self.execute("SELECT 1")
            except sa.exc.OperationalError:
                assert self._process.poll() is None, log.read_text()
                assert time.monotonic() < deadline, log.read_text()
                time.sleep(0.05)
            else:
                return


def _other_user(folder: Path) -> dict[str, Any]:
    """How to start a process as a user other than root, which the server requires; the user gets the folder."""
    if os.geteuid() != 0:
        return {}
    other = _somebody()
    folder.chmod(0o755)
    os.chown(folder, other.pw_uid, other.pw_gid)
    return {"user": other.pw_uid, "group": other.pw_gid, "extra_groups": [], "cwd": folder}


def _somebody() -> pwd.struct_passwd:
    import pwd

    try:
        return pwd.getpwnam("postgres")
    except KeyError:
        return pwd.getpwnam("nobody")
