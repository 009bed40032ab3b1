"""From `"provider:model"` to a chat model, with a clear error for what is wrong with it."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from diffusiongpt.errors import NeedsExtraError, SettingsError
from diffusiongpt.thinkers.llm_call import Failure

if TYPE_CHECKING:
    from langchain_core.language_models import BaseChatModel

_SPEC_HINT = "Write it as 'provider:model', for example 'openai:MODEL' or 'ollama:MODEL'."


def model_from(llm: str | BaseChatModel, timeout_s: float) -> Any:
    """The chat model that was meant.

    Returns:
        A LangChain model, or a `Failure` if only its key is missing: without a key there is still a route.

    Raises:
        SettingsError: If `llm` names no provider that LangChain knows, or is no chat model.
        NeedsExtraError: If the provider's package is not installed.
    """
    if isinstance(llm, str):
        return _from_spec(llm, timeout_s)
    from langchain_core.runnables import Runnable

    if not isinstance(llm, Runnable):
        raise SettingsError(f"llm must be text or a LangChain chat model, not {type(llm).__name__}", hint=_SPEC_HINT)
    return llm


def name_of(llm: object) -> str:
    """A name for people: the spec, or the class; never the settings, which may hold a key."""
    return llm if isinstance(llm, str) else type(llm).__name__


def _from_spec(spec: str, timeout_s: float) -> Any:
    provider, _, model = (part.strip() for part in spec.partition(":"))
    if not provider or not model:
        raise SettingsError(f"llm={spec!r} is not a model", hint=_SPEC_HINT)
    from langchain.chat_models import init_chat_model

    try:
        # hidden retries would cost calls that nobody counts
        return init_chat_model(model, model_provider=provider, timeout=timeout_s, max_retries=0)
    except ImportError as error:
        package = re.search(r"pip install (?:-U )?([\w.-]+\w)", str(error))
        name = package[1] if package else f"langchain-{provider.replace('_', '-')}"
        raise NeedsExtraError(f"llm={spec!r} needs the package {name}", hint=f"pip install {name}") from error
    except Exception as error:  # every provider has its own error for a missing key
        if _is_unknown_provider(error):
            raise SettingsError(f"llm={spec!r}: LangChain knows no provider {provider!r}", hint=_SPEC_HINT) from error
        return Failure(reason=f"the LLM {spec} is not set up: its key is missing or wrong", remedy="nothing")


def _is_unknown_provider(error: Exception) -> bool:
    return type(error) is ValueError and "provider" in str(error)
