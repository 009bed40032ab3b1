"""Text that leaves the process holds no secrets and steers no terminal."""

from __future__ import annotations

import json
import re
import traceback
import unicodedata
from pathlib import Path
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from diffusiongpt import safe_text
from diffusiongpt.errors import LoadError, NoRouteError, ZooError
from diffusiongpt.files import read_regular
from diffusiongpt.safe_text import keep_secret, keep_url_secrets, logger, printable, safe, without_secrets, words_of
from diffusiongpt.zoo import parse_zoo_text

SECRET = 'Kq7 zV/p@9&"w\\xY'  # noqa: S105  # no one's
"""A password with every character that addresses, JSON and Python write differently."""


@pytest.fixture(autouse=True)
def _known_here_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(safe_text, "_known", set())


@pytest.mark.parametrize(
    "spelling", [SECRET, quote(SECRET, safe=""), json.dumps(SECRET), repr(SECRET), f"b{SECRET!r}", f"x{SECRET}y"]
)
def test_a_known_secret_is_hidden_in_every_spelling(spelling: str) -> None:
    """As it is, in an address, in JSON, as Python shows it, and within other words."""
    keep_secret(SECRET)
    shown = without_secrets(f"could not open {spelling} here")
    assert "zV" not in shown
    assert shown.startswith("could not open")
    assert shown.endswith("here")


def test_a_short_secret_is_hidden_as_a_word_alone() -> None:
    """A secret that may be an ordinary word is not taken out of other words."""
    keep_secret("fox7")
    assert without_secrets("fox7 and fox77, 'fox7'") == "… and fox77, '…'"
    keep_secret("a")
    assert without_secrets("a fox") == "a fox"


@pytest.mark.parametrize(
    "text",
    [
        "Illegal header value b'Bearer S3CR3TS3CR3T\\n'",
        "{'Authorization': 'Basic S3CR3TS3CR3T'}",
        "postgresql+psycopg://me:S3CR3T@S3CR3T@host:5432/name",
        "postgresql://me@host/name?sslmode=require&password=S3CR3T&x=1",
        "host=h user=me password='S3CR3T' dbname=d",
        "https://host/file?X-Amz-Signature=S3CR3T&e=1",
        "Incorrect API key provided: sk-S3CR3TS3CR3T.",
        "token hf_S3CR3TS3CR3TS3CR3T is invalid",
        '{"api_key": "S3CR3T", "model": "m"}',
    ],
)
def test_what_looks_like_a_secret_is_hidden(text: str) -> None:
    """Headers, addresses, queries, connection strings, keys by their look: nothing has to be known before."""
    assert "S3CR3T" not in without_secrets(text)


@pytest.mark.parametrize(
    "text",
    [
        "Write it like postgresql+psycopg://user@host:5432/name, and %40 for an '@' in the password.",
        "https://huggingface.co/a/b cannot be reached: 'hf_hub_download' failed",
        "the token is expired; set HF_TOKEN to another one",
        "a keyboard=fine monkey=1 on a disk-based-rack-of-things",
    ],
)
def test_ordinary_text_stays(text: str) -> None:
    """Words about secrets, and addresses without any, are shown as they are."""
    assert without_secrets(text) == text


def test_keys_that_other_libraries_read_are_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the environment calls a key, a token, a secret or a password, for providers not known here too."""
    for name in ("SOME_PROVIDER_API_KEY", "GH_TOKEN", "DB_PASSWORD", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, f" value-of-{name.lower()}\n")
        assert name.lower() not in without_secrets(f"wrong: value-of-{name.lower()}")
    monkeypatch.setenv("EDITOR", "value-of-editor")
    assert without_secrets("value-of-editor") == "value-of-editor"


def test_the_secrets_of_an_address_are_known_afterwards() -> None:
    """Drivers report a password without the address that it came from, and decoded."""
    keep_url_secrets("postgresql://me:p%40ss-of-user@h/d?password=in-the-query&sslmode=require")
    shown = without_secrets("p@ss-of-user / p%40ss-of-user / in-the-query / require")
    assert shown == "… / … / … / require"


def test_an_error_and_what_led_to_it_hold_no_secret() -> None:
    """Message, hint, rejections and the messages of its causes: a traceback shows them all."""
    secret = "s3cret" * 3
    keep_secret(secret)

    def fail() -> None:
        try:
            float(secret)
        except ValueError as inner:
            try:
                Path(f"{secret}/x").read_text(encoding="utf-8")
            except OSError as outer:
                raise LoadError(f"no: {inner} {outer}", hint=f"not {secret}") from outer

    with pytest.raises(LoadError) as caught:
        fail()
    error = caught.value
    assert secret not in "".join(traceback.format_exception(error, chain=True))
    assert secret not in error.hint
    assert secret not in NoRouteError("no", rejected=[("a", secret)]).rejected[0][1]


def test_words_are_cut_after_secrets_are_hidden() -> None:
    """Half a secret at the end of a shortened text would be shown."""
    keep_secret("s3cret-of-mine-which-is-long")
    assert "s3cr" not in words_of(ValueError("x " * 5 + "s3cret-of-mine-which-is-long tail"), limit=22)
    assert words_of(KeyError()) == "KeyError"
    assert "\n" not in words_of(ValueError("two\nlines"))


def test_log_records_are_safe(caplog: pytest.LogCaptureFixture) -> None:
    """Message, arguments and traceback of a record are."""
    keep_secret("s3cret-of-mine")
    log = logger("diffusiongpt.somewhere")
    try:
        float("s3cret-of-mine")
    except ValueError:
        log.warning("\x1b[31m%s", "s3cret-of-mine", exc_info=True)
    assert "s3cret" not in caplog.text
    assert "\\x1b[31m" in caplog.text


def test_every_log_of_the_package_is_safe() -> None:
    """No module takes a logger that does not pass its records through `safe_text`."""
    package = Path(safe_text.__file__).parent
    takes = re.compile(r"""getLogger\((?:__name__|["']diffusiongpt)""")
    found = [file.name for file in package.rglob("*.py") if takes.search(file.read_text(encoding="utf-8"))]
    assert found == []


@given(st.text(st.characters()))
def test_nothing_steers_the_terminal(text: str) -> None:
    """No control character but line feed and tab is left, nothing that turns text round, and no text is lost."""
    shown = printable(text)
    left = {unicodedata.category(one) for one in shown.replace("\n", "").replace("\t", "")}
    assert not left & {"Cc", "Cs", "Zl", "Zp"}
    assert not set(shown) & set("\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
    assert "\n" not in printable(text, lines=False)
    assert printable(shown) == shown
    assert safe("a fox 狐狸 🦊") == "a fox 狐狸 🦊"


def test_only_regular_files_of_a_bounded_size_are_read(tmp_path: Path) -> None:
    """A device, a pipe, a folder and a file that is too large are an `OSError`, at once."""
    import os

    file = tmp_path / "file"
    file.write_bytes(b"12345")
    assert read_regular(file, 5) == b"12345"
    os.mkfifo(tmp_path / "pipe")
    for path, why in [(file, "larger"), (tmp_path / "pipe", "regular"), (Path("/dev/zero"), "regular")]:
        with pytest.raises(OSError, match=why):
            read_regular(path, 4)
    with pytest.raises(IsADirectoryError):
        read_regular(tmp_path, 5)


def test_a_zoo_file_says_nothing_of_secrets() -> None:
    """Its addresses may hold any word as a password; such a file is refused, and the word is shown as before."""
    for url in ("http://me:beautiful@host", "http://host/?token=beautiful&key=picture"):
        text = f"experts: [{{id: a, repo: o/a, backend: openai, server: {{url: '{url}'}}}}]"
        with pytest.raises(ZooError, match="has no user, password or query"):
            parse_zoo_text(text, Path("zoo.yaml"))
    assert safe("a beautiful picture") == "a beautiful picture"
