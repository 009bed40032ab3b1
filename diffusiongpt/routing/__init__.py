"""From what was understood to a route: search, eligibility, choice."""

from __future__ import annotations

from diffusiongpt.routing.choose import REPLICAS, near_ties, picked
from diffusiongpt.routing.compare import MOST_WEIGHED, Sampler, Slate, choose_ballot, choose_shown, worth_showing
from diffusiongpt.routing.eligibility import filter_experts, prompt_language
from diffusiongpt.routing.router import Router
from diffusiongpt.routing.search import BEAM_WIDTH, MAX_EXPANSIONS, search

__all__ = [
    "BEAM_WIDTH",
    "MAX_EXPANSIONS",
    "MOST_WEIGHED",
    "REPLICAS",
    "Router",
    "Sampler",
    "Slate",
    "choose_ballot",
    "choose_shown",
    "filter_experts",
    "near_ties",
    "picked",
    "prompt_language",
    "search",
    "worth_showing",
]
