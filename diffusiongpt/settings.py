"""Settings of one process: where the user's data lives and what may be spent.

Read from the environment (`DIFFUSIONGPT_...`); `HF_HOME`, `HF_ENDPOINT`, `HF_TOKEN` and `HF_HUB_OFFLINE`
keep their usual names and meaning, and so do the keys and addresses of services: `OPENAI_API_KEY`, `OPENAI_BASE_URL`,
`IDEOGRAM_API_KEY`, `STABILITY_API_KEY`.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cache
from math import inf
from pathlib import Path
from typing import Annotated, Literal, TypeVar
from urllib.parse import urlsplit

from pydantic import (
    AfterValidator,
    AliasChoices,
    BeforeValidator,
    ByteSize,
    Field,
    PlainSerializer,
    SecretStr,
    TypeAdapter,
    ValidationError,
    field_validator,
)
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict
from pydantic_settings import SettingsError as UnreadableError

from diffusiongpt.address import Address
from diffusiongpt.errors import SettingsError
from diffusiongpt.files import expand_home
from diffusiongpt.safe_text import keep_secret, keep_url_secrets, logger

log = logger("diffusiongpt.settings")

_PERCENT = re.compile(r"(?P<number>\d+(?:\.\d+)?)\s*%")
_BYTES = TypeAdapter(ByteSize)


@dataclass(frozen=True)
class Budget:
    """A number of bytes, or a share of what there is.

    Attributes:
        nbytes: Bytes; `None` if it is a share.
        share: From 0 to 1; `None` if it is bytes.
    """

    nbytes: int | None = None
    share: float | None = None

    @classmethod
    def parse(cls, text: object) -> Budget:
        """Read `"60%"`, `"12GB"`, `"8 GiB"`, or bytes as a number.

        Raises:
            ValueError: If it is none of these, or more than 100 %.
        """
        if isinstance(text, Budget):
            return text
        percent = _PERCENT.fullmatch(str(text).strip())
        share = float(percent["number"]) / 100 if percent else None
        try:
            if share is None:
                return cls(nbytes=int(_BYTES.validate_python(text)))
        except ValidationError:
            raise ValueError(f"{text!r} is not a budget; write bytes such as 12GB, or a share such as 50%") from None
        if not 0 < share <= 1:
            raise ValueError(f"{text!r} is not a share; write one above 0% and up to 100%")
        return cls(share=share)

    def __str__(self) -> str:
        """As it may be written in the settings."""
        return str(self.nbytes) if self.nbytes is not None else f"{(self.share or 0) * 100:g}%"

    def of(self, total: int) -> int:
        """Bytes of a memory of `total` bytes."""
        return self.nbytes if self.nbytes is not None else round(total * (self.share or 0))


_GIB = 1 << 30
_SIZE = re.compile(r"(?P<number>\d{1,5}(?:\.\d+)?)\s*(?P<unit>[mgt])i?b", re.IGNORECASE)
_UNITS = {"m": _GIB >> 10, "g": _GIB, "t": _GIB << 10}


@dataclass(frozen=True)
class Memory:
    """The memory of a machine to plan for.

    Attributes:
        kind: `"device"` for a GPU, `"cpu"` for none, `"any"` for no machine in particular.
        device: Bytes of the GPU, with `"device"`.
        host: Bytes of the host; `None` if only the device was named.
    """

    kind: Literal["device", "cpu", "any"]
    device: int | None = None
    host: int | None = None

    @classmethod
    def parse(cls, text: object) -> Memory:
        """Read `"24GB"`, `"24GB+64GB"` (device and host), `"cpu"` or `"any"`.

        A size is meant as memory is sold: `24GB` is what a card with that label has, 24 times 2**30 bytes.

        Raises:
            ValueError: If it is none of these, or a size is zero.
        """
        if isinstance(text, Memory):
            return text
        said = str(text).strip().casefold()
        if said in ("cpu", "any"):
            return cls("cpu" if said == "cpu" else "any")
        sizes = [_SIZE.fullmatch(part.strip()) for part in said.split("+")]
        found = [round(float(size["number"]) * _UNITS[size["unit"]]) for size in sizes if size]
        if len(found) != len(sizes) or len(found) > 2:
            raise ValueError(f"{text!r} is not a memory; write 24GB, 24GB+64GB (device and host), cpu or any")
        if not all(found):
            raise ValueError(
                f"{text!r} has no memory to draw with; write 24GB, 24GB+64GB (device and host), cpu or any"
            )
        return cls("device", found[0], found[1] if len(found) > 1 else None)

    def __str__(self) -> str:
        """As it may be written in the settings."""
        if self.kind != "device":
            return self.kind
        return "+".join(f"{size / _GIB:g}GB" for size in (self.device, self.host) if size is not None)


Dollars = Annotated[float, Field(ge=0, allow_inf_nan=True)]
"""An amount of US dollars as a setting; `inf` stands for any."""


MemorySetting = Annotated[Memory, NoDecode, BeforeValidator(Memory.parse), PlainSerializer(str)]
"""A memory as a setting: `24GB`, `24GB+64GB`, `cpu`, `any`."""


BudgetSetting = Annotated[Budget, NoDecode, BeforeValidator(Budget.parse), PlainSerializer(str)]
"""A budget as a setting: `60%`, `12GB`."""


def read_secret(value: object) -> object:
    """A key or token as its service takes it, without the line break that files and CI secrets end with.

    Raises:
        ValueError: If characters are left that no key has; the message does not show the value.
    """
    text = value.get_secret_value() if isinstance(value, SecretStr) else value
    if not isinstance(text, str):
        return value
    text = text.strip().strip("\ufeff\u200b").strip()
    keep_secret(text)
    if not (text.isascii() and text.isprintable()) or " " in text:
        raise ValueError("it holds characters that are not part of any key; copy it again, without quotes or blanks")
    return text or None


Secret = Annotated[SecretStr | None, BeforeValidator(read_secret)]
"""A key or token as a setting: checked once, hidden in every text, and absent if it is blank."""


def _keep_url_secrets(place: str | None) -> str | None:
    if place and "://" in place:
        place = place.strip()
        keep_url_secrets(place)
    return place


def _user_home() -> Path:
    from platformdirs import user_data_path

    return user_data_path("diffusiongpt", appauthor=False)


def _hub_cache() -> Path:
    from huggingface_hub.constants import HF_HUB_CACHE

    return Path(HF_HUB_CACHE)


class Settings(BaseSettings):
    """The settings in the environment, checked.

    Attributes:
        zoo: Zoo layers used when none are named, separated by commas: `default`, `tiny`, or files. Unless it is
            set, `own_zoo` lies over the default zoo.
        llm: LLM that reads prompts, as LangChain's `init_chat_model` names it, such as `openai:gpt-5-mini`;
            `None` for the local thinker.
        home: Folder of the user's data: votes, and the record of what was pulled.
        votes: Where votes are kept instead: a file, or a database URL such as
            `postgresql+psycopg://user@host/name`.
        hub_cache: Folder where the hub client keeps checkpoints, shared with other tools.
        hub_endpoint: The only server that checkpoints are pulled from.
        hub_token: Token for gated or private repositories; never logged.
        openai_api_key: Key for experts hosted at OpenAI, or at a server that speaks as it does; never logged.
        openai_base_url: Address of that server.
        ideogram_api_key: Key for experts hosted at Ideogram; never logged.
        ideogram_base_url: Address of its service.
        stability_api_key: Key for experts hosted at Stability AI; never logged.
        stability_base_url: Address of its service.
        server_keys: Keys for servers that zoo files name, as `host:port=key`, separated by commas; each is sent to its
            own server only, and none of the others is ever sent there. Never logged.
        offline: Never touch the network.
        max_download_gb: Pulls above this many GB ask on a terminal and raise otherwise.
        spend_per_picture: Most US dollars that one picture of a hosted expert may cost, whatever `max_price` a request
            has.
        spend_per_run: Most US dollars that one request may cost, with all its pictures and all experts that are tried.
        spend_per_day: Most US dollars that all processes of the user may spend on a day, in UTC. These limits are a
            guess at what would surprise people, not measured; `inf` is none.
        free_experts: Hosted experts that cost nothing, by their ids or backends, separated by commas: a zoo file, which
            may be a stranger's, cannot say so.
        stall_s: Seconds without a byte after which a download counts as stalled, and is begun again once.
        allow_unsafe_weights: Whether weights that are not safetensors may be pulled and opened, for an expert
            whose zoo entry says `unsafe_weights`. They can run code when opened.
        host_budget: Host memory that experts which are not in use may keep: bytes such as `12GB`, or a share of
            what this process may use, such as `50%`.
        device_budget: The same for the memory of a GPU.
        prefetch: While one picture is drawn, `"stage"` brings the next experts of the queue into memory,
            `"download"` also pulls the experts that could stand in for them, `"off"` does neither.
        device: `"cuda"`, `"mps"`, `"cpu"`, or `None` for the best one present.
        memory: Memory that routes are planned for in place of this machine's: `24GB`, `24GB+64GB` (device and host),
            `cpu`, or `any`.
        quantise: Whether an expert that does not fit otherwise may draw with weights of 8 bits, or of 4 with the extra
            `quantised`, which changes its pictures a little.
        stand_in: Whether the demonstration zoo draws when no expert that was asked for can.
        profiles: Policies under names of your own, which programs may ask for: a JSON object such as
            `{"thrifty": {"max_price": 0.01, "commercial_use": true}}`, with the arguments that limit a request.
    """

    model_config = SettingsConfigDict(
        env_prefix="DIFFUSIONGPT_",
        env_ignore_empty=True,
        populate_by_name=True,
        frozen=True,
        extra="ignore",
        hide_input_in_errors=True,  # an input may be a secret
    )

    zoo: str = "default"
    llm: str | None = None
    home: Path = Field(default_factory=_user_home)
    # a URL may hold a password
    votes: Annotated[str | None, AfterValidator(_keep_url_secrets)] = Field(default=None, repr=False)
    hub_cache: Path = Field(default_factory=_hub_cache)
    hub_endpoint: Address = Field(
        default="https://huggingface.co",
        validation_alias=AliasChoices("DIFFUSIONGPT_HUB_ENDPOINT", "HF_ENDPOINT"),
    )
    hub_token: Secret = Field(default=None, validation_alias=AliasChoices("DIFFUSIONGPT_HUB_TOKEN", "HF_TOKEN"))
    openai_api_key: Secret = Field(
        default=None, validation_alias=AliasChoices("DIFFUSIONGPT_OPENAI_API_KEY", "OPENAI_API_KEY")
    )
    openai_base_url: Address = Field(
        default="https://api.openai.com/v1",
        validation_alias=AliasChoices("DIFFUSIONGPT_OPENAI_BASE_URL", "OPENAI_BASE_URL"),
    )
    ideogram_api_key: Secret = Field(
        default=None, validation_alias=AliasChoices("DIFFUSIONGPT_IDEOGRAM_API_KEY", "IDEOGRAM_API_KEY")
    )
    ideogram_base_url: Address = Field(
        default="https://api.ideogram.ai",
        validation_alias=AliasChoices("DIFFUSIONGPT_IDEOGRAM_BASE_URL", "IDEOGRAM_BASE_URL"),
    )
    stability_api_key: Secret = Field(
        default=None, validation_alias=AliasChoices("DIFFUSIONGPT_STABILITY_API_KEY", "STABILITY_API_KEY")
    )
    stability_base_url: Address = Field(
        default="https://api.stability.ai",
        validation_alias=AliasChoices("DIFFUSIONGPT_STABILITY_BASE_URL", "STABILITY_BASE_URL"),
    )
    server_keys: Secret = None
    safety: Literal["off", "standard", "strict"] = "off"
    mark_pictures: bool = True
    c2pa_certificate: Path | None = None
    c2pa_key: Path | None = Field(default=None, repr=False)
    offline: bool = Field(default=False, validation_alias=AliasChoices("DIFFUSIONGPT_OFFLINE", "HF_HUB_OFFLINE"))
    max_download_gb: float = Field(default=10.0, ge=0)
    spend_per_picture: Dollars = inf
    spend_per_run: Dollars = 1.0
    spend_per_day: Dollars = 5.0
    free_experts: str = ""
    stall_s: float = Field(default=30.0, gt=0)
    allow_unsafe_weights: bool = False
    host_budget: BudgetSetting = Budget(share=0.5)
    device_budget: BudgetSetting = Budget(share=0.8)
    prefetch: Literal["off", "stage", "download"] = "stage"
    device: str | None = None
    memory: MemorySetting | None = None
    quantise: bool = False
    stand_in: bool = True
    profiles: Mapping[str, Mapping[str, bool | float | str | None]] = Field(default_factory=dict)

    @field_validator("server_keys")
    @classmethod
    def _names_servers(cls, keys: SecretStr | None) -> SecretStr | None:
        for part in keys.get_secret_value().split(",") if keys else ():
            server, _, key = part.partition("=")
            if not server or not key or "/" in server:
                raise ValueError("write it as host:port=key, separated by commas")
            keep_secret(key)
        return keys

    def key_for(self, url: str) -> str | None:
        """The key for a server that a zoo file names; `None` if it has none."""
        pairs = self.server_keys.get_secret_value().split(",") if self.server_keys else []
        keys = dict(pair.split("=", 1) for pair in pairs)
        return keys.get(urlsplit(url).netloc)

    @field_validator("home", "hub_cache", "c2pa_certificate", "c2pa_key")
    @classmethod
    def _expand(cls, path: Path | None) -> Path | None:
        # a shell leaves `~` alone inside quotes, and a service file always does
        return None if path is None else expand_home(path)

    @property
    def free(self) -> frozenset[str]:
        """Ids and backends of hosted experts that cost nothing by the word of the user."""
        return frozenset(name.strip() for name in self.free_experts.split(",") if name.strip())

    @property
    def zoo_layers(self) -> tuple[str, ...]:
        """The layers of `zoo`; where it is not set, with the user's own zoo file on top."""
        own = (str(self.own_zoo),) if "zoo" not in self.model_fields_set and self.own_zoo.is_file() else ()
        return (*(layer.strip() for layer in self.zoo.split(",") if layer.strip()), *own)

    @property
    def own_zoo(self) -> Path:
        """The zoo file that `zoo add` writes when none is named."""
        return self.home / "zoo.yaml"

    @property
    def votes_place(self) -> str | Path:
        """File or URL of the user's votes."""
        return self.votes or self.home / "votes.db"


PREFIX = "DIFFUSIONGPT_"
"""What the names of our own variables begin with."""

_NEAR = 0.8
"""How alike, from 0 to 1, a name has to be to one of ours to count as a slip even where it begins otherwise."""


_OF_DOORS = ("DIFFUSIONGPT_SERVE_",)
"""What the names of variables begin with that a door reads by itself."""

S = TypeVar("S", bound=BaseSettings)


def variables(kind: type[BaseSettings] | None = None) -> dict[str, tuple[str, ...]]:
    """Setting -> the environment variables that it is read from, the first of them our own.

    Args:
        kind: The settings of a door; `Settings` if absent.
    """
    names = {}
    kind = kind or Settings
    for name, field in kind.model_fields.items():
        alias = field.validation_alias
        choices = alias.choices if isinstance(alias, AliasChoices) else [f"{_prefix(kind)}{name.upper()}"]
        names[name] = tuple(str(choice) for choice in choices)
    return names


def misspelt_variables(kind: type[BaseSettings] | None = None) -> dict[str, str]:
    """Variables of the environment that look like a setting and are none -> the nearest one, or an empty text.

    Args:
        kind: The settings of a door; `Settings` if absent, which the variables of doors are not compared with.
    """
    kind = kind or Settings
    prefix, known = _prefix(kind), [names[0] for names in variables(kind).values()]
    found = {}
    for name in os.environ:
        said = name.upper()
        if said in known or (kind is Settings and said.startswith(_OF_DOORS)):
            continue
        if said.startswith(prefix):
            # the part that all names share would make any two of them alike
            near = get_close_matches(said.removeprefix(prefix), [one.removeprefix(prefix) for one in known], n=1)
            found[name] = f"{prefix}{near[0]}" if near else ""
        elif kind is Settings and said.startswith("DIFFUSION") and (near := get_close_matches(said, known, 1, _NEAR)):
            found[name] = near[0]
    return found


def _prefix(kind: type[BaseSettings]) -> str:
    return kind.model_config.get("env_prefix", PREFIX)


@cache
def _warn_of_variable(name: str, nearest: str) -> None:
    log.warning("%s is not a setting%s", name, f"; did you mean {nearest}?" if nearest else "")


def load_settings(**overrides: object) -> Settings:
    """Read the environment; keyword arguments win over it, and a misspelt variable is a warning, once.

    Raises:
        SettingsError: If a value cannot be used; the message names the setting.
    """
    return read_settings(Settings, **overrides)


def read_settings(kind: type[S], **overrides: object) -> S:
    """The settings of a door; see `load_settings`.

    Raises:
        SettingsError: If a value cannot be used; the message names the setting.
    """
    for name, nearest in misspelt_variables(kind).items():
        _warn_of_variable(name, nearest)
    hint = f"Settings come from environment variables that start with {_prefix(kind)}."
    try:
        return kind(**overrides)  # type: ignore[arg-type]  # pydantic checks the values
    except ValidationError as error:
        first = error.errors()[0]
        name = ".".join(str(part) for part in first["loc"])
        # a variable that has two names is reported by one of them
        variable = name if name.isupper() else f"{_prefix(kind)}{name.upper()}"
        message = first["msg"].removeprefix("Value error, ")
        about = f"setting {name!r} ({variable}): " if name else ""
        raise SettingsError(f"{about}{message}", hint=hint) from error
    except UnreadableError as error:  # a variable that should hold JSON
        raise SettingsError(f"{error}", hint=f"Write it as JSON. {hint}") from error
    except RecursionError as error:
        raise SettingsError("a setting that is JSON, such as profiles, is nested too deeply", hint=hint) from error
