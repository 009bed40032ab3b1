"""From a prompt to what it says and needs."""

from __future__ import annotations

from diffusiongpt.understanding.backgrounds import is_cut_out
from diffusiongpt.understanding.colors import asks_for_color
from diffusiongpt.understanding.follow_up import FollowUp, read_follow_up
from diffusiongpt.understanding.kinds import KindReader
from diffusiongpt.understanding.languages import language_of, scripts_of, simplified
from diffusiongpt.understanding.lexicon import Lexicon, name_key, names_of
from diffusiongpt.understanding.literal import read_literals
from diffusiongpt.understanding.local import LocalThinker
from diffusiongpt.understanding.meaning import Meaning
from diffusiongpt.understanding.needs import NeedReader
from diffusiongpt.understanding.negation import without_denials
from diffusiongpt.understanding.references import Shown
from diffusiongpt.understanding.rewriting import Asked, asked_of
from diffusiongpt.understanding.subject_class import fit_classes, likeliest_class
from diffusiongpt.understanding.terms import safety_lists, without_harmless
from diffusiongpt.understanding.thinker import Thinker, Thought
from diffusiongpt.understanding.turn_kinds import TurnKind, TurnReader, is_small_talk, kind_by_words, turn_groups
from diffusiongpt.understanding.turn_thinker import TurnThinker
from diffusiongpt.understanding.word_lists import WordList, WordsByLanguage, read_word_file
from diffusiongpt.understanding.wording import prompt_form, read_wording

__all__ = [
    "Asked",
    "FollowUp",
    "KindReader",
    "Lexicon",
    "LocalThinker",
    "Meaning",
    "NeedReader",
    "Shown",
    "Thinker",
    "Thought",
    "TurnKind",
    "TurnReader",
    "TurnThinker",
    "WordList",
    "WordsByLanguage",
    "asked_of",
    "asks_for_color",
    "fit_classes",
    "is_cut_out",
    "is_small_talk",
    "kind_by_words",
    "language_of",
    "likeliest_class",
    "name_key",
    "names_of",
    "prompt_form",
    "read_follow_up",
    "read_literals",
    "read_word_file",
    "read_wording",
    "safety_lists",
    "scripts_of",
    "simplified",
    "turn_groups",
    "without_denials",
    "without_harmless",
]
