"""An LLM as thinker, through LangChain."""

from __future__ import annotations

from diffusiongpt.understanding.llm.form import (
    NONE,
    VOICES,
    Ballot,
    Reading,
    Voice,
    find_object,
    form_messages,
    one_of,
    read_reply,
)
from diffusiongpt.understanding.llm.limits import bound_clients
from diffusiongpt.understanding.llm.llm_thinker import MAX_NODES, LLMThinker
from diffusiongpt.understanding.llm.merge import weigh
from diffusiongpt.understanding.llm.models import Talk, model_from, name_of
from diffusiongpt.understanding.llm.structured import Failure, failure_of, methods_of

__all__ = [
    "MAX_NODES",
    "NONE",
    "VOICES",
    "Ballot",
    "Failure",
    "LLMThinker",
    "Reading",
    "Talk",
    "Voice",
    "bound_clients",
    "failure_of",
    "find_object",
    "form_messages",
    "methods_of",
    "model_from",
    "name_of",
    "one_of",
    "read_reply",
    "weigh",
]
