"""The machine around us: proxies, certificates, addresses, locales and folders that other libraries fail on."""

from __future__ import annotations

import random
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from hostile import Attack
from hostile._command import call

KIND = "edge"
VARIABLES: tuple[dict[str, str], ...] = (
    {"ALL_PROXY": "socks5://127.0.0.1:9"},
    {"HTTPS_PROXY": "socks5h://127.0.0.1:9", "HTTP_PROXY": "socks5h://127.0.0.1:9"},
    {"HTTP_PROXY": "nosuch://127.0.0.1:9"},
    {"HTTP_PROXY": "http://[::1"},
    {"HTTP_PROXY": "127.0.0.1:port"},
    {"SSL_CERT_FILE": "/no/such/file.pem"},
    {"SSL_CERT_FILE": "/dev/null"},
    {"SSL_CERT_DIR": "/no/such/folder"},
    {"HF_ENDPOINT": "http://127.0.0.1 :9"},
    {"HF_ENDPOINT": "https://127.0.0.1:99999"},
    {"HF_ENDPOINT": "http://127.0.0.1:9\x01"},
    {"HF_TOKEN": "hf_ünï"},
    {"OPENAI_BASE_URL": "http://127.0.0.1:9/ v1"},
    {"OPENAI_API_KEY": "ключ"},
    {"DIFFUSIONGPT_HOME": "/dev/null/home"},
    {"DIFFUSIONGPT_HOME": "/proc/nosuch"},
    {"HF_HUB_CACHE": "/dev/null/hub"},
    {"DIFFUSIONGPT_DEVICE": "cuda:99"},
    {"DIFFUSIONGPT_MEMORY": "9" * 400 + "GB"},
    {"DIFFUSIONGPT_HOST_BUDGET": "9" * 5_000},
    {"DIFFUSIONGPT_MAX_DOWNLOAD_GB": "nan"},
    {"DIFFUSIONGPT_STALL_S": "inf"},
    {"DIFFUSIONGPT_VOTES": "sqlite:////dev/null/x"},
    {"DIFFUSIONGPT_ZOO": "\x1b[31m"},
    {"DIFFUSIONGPT_LLM": "nosuch:model"},
    {"no_proxy": "\x00".replace("\x00", "[::"), "HTTP_PROXY": "http://127.0.0.1:9"},
)


def attacks(seed: int, count: int) -> Iterator[Attack]:
    """See `hostile`."""
    for number in range(count):
        rng = random.Random(f"{seed} {KIND} {number}")  # noqa: S311  # a mess, not a secret
        chosen = dict(VARIABLES[number % len(VARIABLES)])
        if number >= len(VARIABLES):
            chosen |= rng.choice(VARIABLES)
        yield Attack(KIND, f"{' '.join(chosen)} {number}", partial(_meet, chosen, rng))


def _meet(variables: dict[str, str], rng: random.Random, folder: Path) -> None:
    """Route, draw from a hub, draw at a service, ask an LLM: each meets another library."""
    local = {
        "HF_ENDPOINT": "http://127.0.0.1:9",
        "OPENAI_BASE_URL": "http://127.0.0.1:9/v1",
        "OPENAI_API_KEY": "sk-any",
    }
    zoo = folder / "zoo.yaml"
    zoo.write_text(
        "experts:\n"
        "  - {id: cloud, backend: openai, repo: openai/gpt-image-1, price: {usd: 0.01}}\n"
        "  - {id: fox, repo: somebody/fox, size_gb: 0.1}\n",
        encoding="utf-8",
    )
    command = rng.choice(
        (
            ["route", "a fox", "--zoo", "tiny"],
            ["route", "a fox", "--zoo", "tiny", "--llm", "openai:m"],
            ["generate", "a fox", "--zoo", str(zoo), "--expert", "fox", "--out", str(folder / "out")],
            [
                "generate",
                "a fox",
                "--zoo",
                str(zoo),
                "--expert",
                "cloud",
                "--max-price",
                "1",
                "--out",
                str(folder / "out"),
            ],
            ["votes", "export"],
            ["zoo", "check", str(zoo), "--online"],
            ["cache", "explain"],
        )
    )
    call(folder, *command, *rng.choice(([], ["--json"])), **{**local, **variables})
