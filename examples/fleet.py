"""A fleet of three replicas on the processors of this machine, with votes in a PostgreSQL of its own: `make fleet`.

    python examples/fleet.py [PORT]

The tab Machine of the page shows the replicas with their processes. End one of them with `kill -9 PROCESS` while
pictures are drawn: others draw what it had, and another one starts. Ctrl-C ends everything.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests"))

import postgres  # noqa: E402  # the server of the tests


def main() -> int:
    """Run it until Ctrl-C."""
    port = sys.argv[1] if len(sys.argv) > 1 else "8000"
    binaries = postgres.server_folder()
    if binaries is None:
        print(postgres.MISSING, file=sys.stderr)
        return 1
    # also where a script that started this one ignores Ctrl-C for it
    for one in (signal.SIGINT, signal.SIGTERM):
        signal.signal(one, signal.default_int_handler)
    with tempfile.TemporaryDirectory(prefix="dgpt-fleet-") as home, postgres.PostgresServer(binaries) as database:
        env = {
            **os.environ,
            "DIFFUSIONGPT_HOME": home,
            "DIFFUSIONGPT_VOTES": database.new_database(),
            "RAY_USAGE_STATS_ENABLED": "0",
            "PYTHONPATH": str(ROOT),
        }
        command = [sys.executable, "-m", "diffusiongpt", "serve", "--ray", "--replicas", "3", "--zoo", "tiny"]
        # in a session of its own: Ctrl-C reaches this process alone, which then ends the other, and the database last
        fleet = subprocess.Popen([*command, "--port", port], env=env, start_new_session=True)
        try:
            print(f"The page will be at http://127.0.0.1:{port}; Ctrl-C ends it.", file=sys.stderr)
            return fleet.wait()
        except KeyboardInterrupt:
            print("Ending.", file=sys.stderr)
            fleet.send_signal(signal.SIGINT)
            fleet.wait(timeout=120)
            return 0
        finally:
            fleet.kill()


if __name__ == "__main__":
    sys.exit(main())
