"""Settings come from the environment, are checked, and keep secrets."""

from __future__ import annotations

from pathlib import Path

import pytest

from diffusiongpt import errors
from diffusiongpt.errors import DiffusionGPTError, NoRouteError, SettingsError
from diffusiongpt.settings import load_settings, misspelt_variables


def test_the_environment_is_read(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Our variables start with DIFFUSIONGPT_, those of the hub keep their names, and arguments take precedence."""
    monkeypatch.setenv("DIFFUSIONGPT_HOME", str(tmp_path))
    monkeypatch.setenv("HF_ENDPOINT", "http://mirror")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    settings = load_settings(max_download_gb=3)
    assert (settings.home, settings.hub_endpoint, settings.offline) == (tmp_path, "http://mirror", True)
    assert settings.max_download_gb == 3
    assert settings.hub_token is not None
    assert settings.hub_token.get_secret_value() == "hf_secret"
    assert "hf_secret" not in repr(settings)
    assert load_settings(offline=False, hub_endpoint="http://other").hub_endpoint == "http://other"


def test_our_own_name_wins_over_the_hubs(monkeypatch: pytest.MonkeyPatch) -> None:
    """If both are set, our own variable takes precedence."""
    monkeypatch.setenv("HF_ENDPOINT", "http://everyone")
    monkeypatch.setenv("DIFFUSIONGPT_HUB_ENDPOINT", "http://us")
    assert load_settings().hub_endpoint == "http://us"


def test_a_variable_of_somebody_else_is_not_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """Plain words such as OFFLINE belong to other programs."""
    for name in ("OFFLINE", "HUB_TOKEN", "HUB_ENDPOINT", "HOME_", "DEVICE"):
        monkeypatch.setenv(name, "1")
    settings = load_settings()
    assert not settings.offline
    assert settings.hub_token is None
    assert settings.device is None


@pytest.mark.parametrize("name", ["HF_HUB_OFFLINE", "HF_TOKEN", "DIFFUSIONGPT_DEVICE", "DIFFUSIONGPT_HOST_BUDGET"])
def test_an_empty_variable_is_no_variable(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """`NAME=` is how a service file writes "not set"."""
    before = load_settings()
    monkeypatch.setenv(name, "")
    assert load_settings() == before


def test_a_tilde_is_the_home_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    """`~` in a variable is expanded, since no shell did so."""
    monkeypatch.setenv("DIFFUSIONGPT_HOME", "~/mine")
    assert load_settings().home == Path.home() / "mine"


@pytest.mark.parametrize(
    ("text", "nbytes"),
    [("50%", 1_000_000_000), ("12GB", 12_000_000_000), ("2 GiB", 2 << 30), ("12.5 %", 250_000_000), ("4096", 4096)],
)
def test_a_budget_is_bytes_or_a_share(monkeypatch: pytest.MonkeyPatch, text: str, nbytes: int) -> None:
    """Decimal and binary units, percentages and plain bytes are read; written out, they are read back the same."""
    monkeypatch.setenv("DIFFUSIONGPT_HOST_BUDGET", text)
    settings = load_settings()
    assert settings.host_budget.of(2_000_000_000) == nbytes
    assert load_settings(**settings.model_dump()).host_budget == settings.host_budget


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("DIFFUSIONGPT_OFFLINE", "perhaps"),
        ("DIFFUSIONGPT_MAX_DOWNLOAD_GB", "-1"),
        ("DIFFUSIONGPT_HOST_BUDGET", "lots"),
        ("DIFFUSIONGPT_DEVICE_BUDGET", "120%"),
        ("DIFFUSIONGPT_PROFILES", "{"),
        ("DIFFUSIONGPT_PROFILES", "[" * 60_000),
    ],
    ids=lambda text: text[:24],
)
def test_a_value_without_sense_is_refused(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    """A variable that cannot be used is a `SettingsError` that names it."""
    monkeypatch.setenv(name, value)
    with pytest.raises(SettingsError) as caught:
        load_settings()
    assert name.removeprefix("DIFFUSIONGPT_").lower() in str(caught.value).lower()
    assert "DIFFUSIONGPT_" in caught.value.hint


SECRETS = [
    "HF_TOKEN",
    "DIFFUSIONGPT_HUB_TOKEN",
    "OPENAI_API_KEY",
    "DIFFUSIONGPT_OPENAI_API_KEY",
    "IDEOGRAM_API_KEY",
    "STABILITY_API_KEY",
]


@pytest.mark.parametrize("name", SECRETS)
@pytest.mark.parametrize("around", ["\n", "\r\n", " ", "\t", "\u00a0", "\ufeff"])
def test_a_key_is_taken_without_blanks_around_it(monkeypatch: pytest.MonkeyPatch, name: str, around: str) -> None:
    """Files and CI secrets end with a line break, which no server accepts."""
    monkeypatch.setenv(name, f"{around}key-of-someone{around}")
    settings = load_settings()
    keys = (settings.hub_token, settings.openai_api_key, settings.ideogram_api_key, settings.stability_api_key)
    key = next(filter(None, keys), None)
    assert key is not None
    assert key.get_secret_value() == "key-of-someone"


@pytest.mark.parametrize("name", SECRETS)
@pytest.mark.parametrize("value", ["key-ö-x", "key\nof", "key of", "key\x1bof", "“key”", "key\x7f1"])
def test_what_is_no_key_is_refused_without_showing_it(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    """Letters that no header takes, and blanks within, are a `SettingsError` that names the variable alone."""
    monkeypatch.setenv(name, value)
    with pytest.raises(SettingsError, match="characters that are not part of any key") as caught:
        load_settings()
    import traceback

    shown = "".join(traceback.format_exception(caught.value))
    assert value not in shown
    assert value.encode("unicode_escape").decode() not in shown


@pytest.mark.parametrize("name", SECRETS)
def test_a_blank_key_is_no_key(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """A variable of blanks is how a missing CI secret arrives."""
    monkeypatch.setenv(name, " \n")
    settings = load_settings()
    assert settings.hub_token is None
    assert settings.openai_api_key is None


@pytest.mark.parametrize("name", ["HF_ENDPOINT", "OPENAI_BASE_URL"])
@pytest.mark.parametrize(
    "value",
    ["http://h ost", "host", "ftp://host", "http://", "http://host:port", "http://[::1", "http://hö st", "http://a\nb"],
)
def test_what_is_no_address_is_refused(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    """An address that no client could use is refused when it is read, by its variable's name."""
    monkeypatch.setenv(name, value)
    with pytest.raises(SettingsError, match=f"(?i){name.removeprefix('HF_')}.*not an address"):
        load_settings()


def test_an_address_is_taken_without_blanks_and_slash(monkeypatch: pytest.MonkeyPatch) -> None:
    """Both come with copying."""
    monkeypatch.setenv("HF_ENDPOINT", " http://mirror:80/hub/ \n")
    monkeypatch.setenv("OPENAI_BASE_URL", "http://[::1]:80/v1/")
    settings = load_settings()
    assert (settings.hub_endpoint, settings.openai_base_url) == ("http://mirror:80/hub", "http://[::1]:80/v1")


@pytest.mark.parametrize(
    ("name", "nearest"),
    [
        ("DIFFUSIONGPT_MAX_DOWNLOADS_GB", "DIFFUSIONGPT_MAX_DOWNLOAD_GB"),
        ("DIFFUSIONGPT_DEVICES", "DIFFUSIONGPT_DEVICE"),
        ("DIFFUSION_GPT_HOME", "DIFFUSIONGPT_HOME"),
        ("DIFFUSIONGTP_LLM", "DIFFUSIONGPT_LLM"),
        ("DIFFUSIONGPT_QQQQQQ", ""),
        ("diffusiongpt_offline", None),
        ("DIFFUSIONGPT_HUB_TOKEN", None),
        ("DIFFUSION_STEPS", None),
    ],
)
def test_a_misspelt_variable_is_reported_once(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, name: str, nearest: str | None
) -> None:
    """A variable that looks like a setting and is none is a warning with the nearest setting, whatever its case."""
    monkeypatch.setenv(name, "1")
    assert misspelt_variables().get(name) == nearest
    load_settings()
    load_settings()
    said = [record.message for record in caplog.records if name in record.message]
    assert len(said) == (nearest is not None)
    assert all(message.endswith(f"did you mean {nearest}?" if nearest else "is not a setting") for message in said)


def test_every_error_is_in_one_tree_and_drawn_there() -> None:
    """All errors have one base class, state whether a retry can help, and are in the module's diagram."""
    kinds = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, Exception)]
    assert len(kinds) > 15
    for kind in kinds:
        assert issubclass(kind, DiffusionGPTError)
        assert isinstance(kind.retryable, bool)
        assert kind.__name__ in (errors.__doc__ or "")


def test_a_hint_is_told_with_the_traceback() -> None:
    """The hint is an attribute, and a note under the traceback; without a hint there is no note."""
    assert DiffusionGPTError("no", hint="do this").__notes__ == ["hint: do this"]
    assert not hasattr(DiffusionGPTError("no"), "__notes__")
    assert NoRouteError("no", rejected=[("a", "b")]).rejected == (("a", "b"),)
