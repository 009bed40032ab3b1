"""The files for containers: linted, checked against the code, and their entry point run without a container."""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import socket
import subprocess
import sys
import time
import tomllib
from pathlib import Path

import httpx2
import yaml

from diffusiongpt.apps.server.settings import ServerSettings
from diffusiongpt.settings import Settings

ROOT = Path(__file__).parents[1]
DOCKERFILE = (ROOT / "Dockerfile").read_text(encoding="utf-8")
COMPOSE = yaml.safe_load((ROOT / "compose.yaml").read_text(encoding="utf-8"))
SCRIPTS = Path(sys.executable).parent


def entry_point() -> list[str]:
    """The command that a container runs."""
    words: list[str] = []
    for name in ("ENTRYPOINT", "CMD"):
        found = re.findall(rf"^{name} (\[.*\])$", DOCKERFILE, re.MULTILINE)
        assert len(found) == 1
        words += json.loads(found[0])
    return [str(SCRIPTS / words[0]), *words[1:]]


def environment() -> dict[str, str]:
    """What the image sets for it, of our own settings."""
    return dict(re.findall(r"(DIFFUSIONGPT_\w+)=(\S+)", DOCKERFILE.split("USER ")[1]))


def test_the_files_are_as_their_tools_want_them() -> None:
    """By hadolint, and by the schema of Compose."""
    lint = subprocess.run([SCRIPTS / "hadolint", ROOT / "Dockerfile"], capture_output=True, text=True, check=False)
    assert lint.returncode == 0, lint.stdout
    schema = [SCRIPTS / "check-jsonschema", "--builtin-schema", "vendor.compose-spec", ROOT / "compose.yaml"]
    found = subprocess.run(schema, capture_output=True, text=True, check=False)
    assert found.returncode == 0, found.stdout


def test_what_they_name_exists() -> None:
    """Files that are copied, and not held back by `.dockerignore`; extras; our settings."""
    kept = {line[1:] for line in (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines() if line[0] == "!"}
    for line in re.findall(r"^COPY (.*)$", DOCKERFILE, re.MULTILINE):
        for name in shlex.split(line)[:-1]:
            assert (ROOT / name).exists()
            assert name in kept
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    (extras,) = re.findall(r'"\.\[([\w,]+)\]"', DOCKERFILE)
    assert set(extras.split(",")) <= project["optional-dependencies"].keys()
    ours = {f"DIFFUSIONGPT_SERVE_{name.upper()}" for name in ServerSettings.model_fields}
    ours |= {f"DIFFUSIONGPT_{name.upper()}" for name in Settings.model_fields}
    named = {name for name in COMPOSE["services"]["diffusiongpt"]["environment"] if name.startswith("DIFFUSIONGPT")}
    assert named | environment().keys() <= ours


def test_what_compose_asks_for_is_in_the_example() -> None:
    """Everything that has to be filled in is in `.env.example`, without a value of ours."""
    example = dict(re.findall(r"^(\w+)=(.*)$", (ROOT / ".env.example").read_text(encoding="utf-8"), re.MULTILINE))
    text = (ROOT / "compose.yaml").read_text(encoding="utf-8")
    assert set(re.findall(r"\$\{(\w+)", text)) == example.keys()
    assert {name for name in re.findall(r"\$\{(\w+):\?", text) if example[name]} == set()


def test_the_entry_point_asks_for_a_key_and_then_serves(tmp_path: Path) -> None:
    """A container is reachable by others, so without a key it ends with what to do."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    own = {"DIFFUSIONGPT_HOME": str(tmp_path), "DIFFUSIONGPT_SERVE_PORT": str(port), "DIFFUSIONGPT_ZOO": "tiny"}
    given = {**os.environ, **environment(), **own}
    refused = subprocess.run(entry_point(), env=given, capture_output=True, text=True, check=False, timeout=120)
    assert refused.returncode == 2
    assert "DIFFUSIONGPT_SERVE_API_KEYS" in refused.stderr
    served = subprocess.Popen(
        entry_point(),
        env={**given, "DIFFUSIONGPT_SERVE_API_KEYS": "a-key-of-mine"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        assert _answers(f"http://127.0.0.1:{port}/healthz", served)
        answer = httpx2.get(f"http://127.0.0.1:{port}/v1/models", headers={"Authorization": "Bearer a-key-of-mine"})
        assert answer.json()["data"][0]["id"] == "auto"
    finally:
        served.terminate()
        # uvicorn ends by the signal once it has finished
        assert served.wait(60) in (0, -signal.SIGTERM)


def _answers(address: str, process: subprocess.Popen[bytes]) -> bool:
    for _ in range(240):
        assert process.poll() is None
        try:
            if httpx2.get(address).status_code == 200:
                return True
        except httpx2.TransportError:
            time.sleep(0.25)
    return False
