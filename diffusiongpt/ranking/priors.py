"""What is expected of an expert before any vote: published evidence, its declared tags, and the form of the prompt."""

from __future__ import annotations

from hashlib import sha256
from typing import TYPE_CHECKING, Protocol

import numpy as np

from diffusiongpt.ranking.published import (
    ELO_PER_LOG_ODDS,
    OVERALL,
    REWRITTEN,
    SEVERAL_PICTURES,
    Published,
    Standing,
    log_odds,
    published,
)
from diffusiongpt.zoo import ROOT, Tags, is_editing

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, Sequence

    from numpy.typing import NDArray

    from diffusiongpt.zoo import Expert


STYLE_POINTS = 1.0
"""Log-odds that a declared style adds to the level of the base, where nothing is measured."""

MEASURED_STYLE_POINTS = 0.62
"""The same where fine-tunes are measured with their base: what the seven fine-tunes of Stable Diffusion 1.x in HPSv2
gain in the styles they declare, with a spread of .27 (`benchmarks/first_pick.py`). They gain no less in other styles,
so that little of it is due to the style."""

MEASURED_STYLES = (
    "photo",
    "digital_art",
    "fantasy_art",
    "illustration",
    "oil_painting",
    "watercolor",
    "anime",
    "cartoon",
)
"""Styles that the columns of HPSv2 are about: Photo, Concept-art, Painting, Animation."""

HARD_STYLE_POINTS = {"pixel_art": 2.2}
"""Log-odds for styles that a base model cannot draw whatever the prompt says: a latent decoder leaves pixels that are
off the grid and of a thousand colours. https://huggingface.co/nerijs/pixel-art-xl (downscale by 8 for perfect pixels),
https://pixie.haus/blog_post/the-mathematics-of-nostalgia-why-true-grid-snapping-is-the-secret-to-ai-pixel-art."""

TUNED_BASE_ELO = 656.0
"""Level of Stable Diffusion 1.x, whose fine-tunes `MEASURED_STYLE_POINTS` is about."""

FADES_ELO, LEAST_SHARE = 480.0, 0.1
"""The better the base, the less a fine-tune adds: Playground v2.5 gains .53 log-odds over SDXL, and FLUX.1
Krea and SRPO gain .01 and .26 over FLUX.1 (the arena's Elo, `benchmarks/first_pick.py`). The line through these and the
fine-tunes of Stable Diffusion 1.x, by the level of the base, is at zero after so many points; a tenth is left."""

_POINTS_BY_STYLE = dict.fromkeys(MEASURED_STYLES, MEASURED_STYLE_POINTS) | HARD_STYLE_POINTS

FURTHER_STYLE_POINTS = 0.1
"""Log-odds taken off for each further style an expert declares: of equals, one made for one style beats one made for
four, 57 of 100."""

STRENGTH_POINTS = 0.2
"""Log-odds for a style that a generalist calls a strength; a stated belief, as it is a claim without a figure."""

SUBJECT_POINTS = 0.1
"""Log-odds for a declared subject: 52 of 100. Half for a generalist."""

GENERALIST_POINTS = 1.0
"""Log-odds for a generalist when the prompt names no style, and against a specialist when it names another style: what
a specialist gains in its style it loses elsewhere."""

DANBOORU, LONG = "danbooru_tags", "long_description"
"""Evidence about the form of a prompt; see `understanding.literal.prompt_form`."""

FORM_POINTS = {
    DANBOORU: {"danbooru": 2.5},
    LONG: {"short_keywords": -0.5},
}
"""Log-odds by the first prompt style that an expert declares. Models trained on danbooru tags know thousands of them by
name (https://huggingface.co/cagliostrolab/animagine-xl-4.0); others read a list of tags as loose words. CLIP reads 77
tokens and drops the rest of a description (https://huggingface.co/docs/transformers/model_doc/clip). The sizes are
stated beliefs: the first is what separates the fine-tunes of SDXL from the best open models, and a little more."""

_SPOKEN_FOR = Tags(generalist=True)
"""Tags of an expert of which figures say more than a claim: its own, or for the strengths of a generalist those of its
kin."""

LANGUAGE = "language_"
"""Prefix of the evidence that holds the language of the prompt."""

KIND = "kind_"
"""Prefix of the evidence that holds the kind of the prompt: a column of the arena."""

SUBJECT_SHARE, NEED_SHARE = 0.7, 1.0
"""How far the offsets of subjects and needs count, in what no style took; chosen on held-out cells of the arena."""

FLOOR_ELO = 60.0
"""Elo points of doubt that no table removes: two arenas with thousands of votes a model disagree by 31 (root mean
square), and their voters and prompts are not yours."""

LEVEL_ELO = 200.0
"""Elo points of doubt about a model of which nothing is known; the usual doubt."""


class Priors(Protocol):
    """Prior of every expert for a prompt."""

    @property
    def fingerprint(self) -> str:
        """Changes whenever a prior may."""

    def points(self, expert_ids: Sequence[str], evidence: Mapping[str, float]) -> NDArray[np.float64]:
        """Prior log-odds, one per expert; 0 for an expert nothing is known about. The sum of `parts`."""

    def parts(self, expert_ids: Sequence[str], evidence: Mapping[str, float]) -> dict[str, NDArray[np.float64]]:
        """What the prior log-odds are made of, by name."""

    def doubt(self, expert_ids: Sequence[str], *, editing: bool = False) -> NDArray[np.float64]:
        """Share of the usual doubt about an expert's level that is left, above 0 and at most 1, one per expert.

        Args:
            expert_ids: Experts, in the order of the answer.
            editing: Whether it is about changing pictures, and not about drawing them.
        """


class TagPriors:
    """Points for the tags that experts declare.

    Args:
        tags: Tags per expert id.
        levels: Elo of each expert's base, by which what was measured on an old base fades; that base's if absent.
    """

    def __init__(self, tags: Mapping[str, Tags], levels: Mapping[str, float] | None = None) -> None:
        shares = {expert: _share(level) for expert, level in (levels or {}).items()}
        constants = (STYLE_POINTS, FURTHER_STYLE_POINTS, STRENGTH_POINTS, SUBJECT_POINTS, GENERALIST_POINTS)
        known = sorted(tags.items())
        declared = [(name, one.styles, one.subjects, one.generalist, shares.get(name, 1.0)) for name, one in known]
        self._fingerprint = sha256(repr((constants, sorted(_POINTS_BY_STYLE.items()), declared)).encode()).hexdigest()
        self._rows = {expert: index for index, (expert, _) in enumerate(known)}
        styles = {style for _, one in known for style in one.styles}
        points = [_points_of(one, styles, shares.get(name, 1.0)) for name, one in known]
        self._nodes = sorted({node for row in points for node in row})
        # the last row is that of an unknown expert
        self._points = np.array([[row.get(node, 0.0) for node in self._nodes] for row in [*points, {}]])

    @classmethod
    def of(cls, experts: Iterable[Expert]) -> TagPriors:
        """The priors of these experts."""
        return cls({expert.id: expert.tags for expert in experts})

    @property
    def fingerprint(self) -> str:
        """Changes whenever a tag or a constant does."""
        return self._fingerprint

    def points(self, expert_ids: Sequence[str], evidence: Mapping[str, float]) -> NDArray[np.float64]:
        """Points per style times the probability of the declared styles, plus the same for subjects.

        Generalists, and experts without a style, get `GENERALIST_POINTS · p(root)` as well; the others lose as much for
        every other style that some expert declares. Unknown experts get 0.

        Args:
            expert_ids: Experts, in the order of the answer.
            evidence: Probability per taxonomy node.

        Returns:
            Log-odds, shape (experts,).
        """
        rows = [self._rows.get(expert, -1) for expert in expert_ids]
        asked = np.array([evidence.get(node, 0.0) for node in self._nodes])
        return np.asarray(self._points[rows] @ asked, dtype=np.float64)

    def parts(self, expert_ids: Sequence[str], evidence: Mapping[str, float]) -> dict[str, NDArray[np.float64]]:
        """All of it is `tags`."""
        return {"tags": self.points(expert_ids, evidence)}

    def doubt(self, expert_ids: Sequence[str], *, editing: bool = False) -> NDArray[np.float64]:  # noqa: ARG002 - as of `Priors`
        """A tag says what an expert draws, not how well."""
        return np.ones(len(expert_ids))


def _share(level: float) -> float:
    """Share of `MEASURED_STYLE_POINTS` that is left for fine-tunes of a base of this level."""
    return min(max(1.0 - (level - TUNED_BASE_ELO) / FADES_ELO, LEAST_SHARE), 1.0)


def _points_of(tags: Tags, styles: set[str], share: float) -> dict[str, float]:
    """Points per node, were the prompt sure to belong to it.

    Args:
        tags: What the expert declares.
        styles: Styles that any expert declares.
        share: Share of `MEASURED_STYLE_POINTS` that it gets.
    """
    points = dict.fromkeys(tags.subjects, SUBJECT_POINTS * (0.5 if tags.generalist else 1.0))
    if tags.generalist:
        points |= dict.fromkeys(tags.styles, STRENGTH_POINTS)
    else:
        further = FURTHER_STYLE_POINTS * (len(tags.styles) - 1)
        full = {style: _POINTS_BY_STYLE.get(style, STYLE_POINTS) for style in tags.styles}
        full |= {style: worth * share for style, worth in full.items() if style in MEASURED_STYLES}
        points |= dict.fromkeys(styles, -GENERALIST_POINTS if tags.styles else 0.0)
        points |= {style: max(worth - further, 0.0) for style, worth in full.items()}
    return points | {ROOT: GENERALIST_POINTS} if tags.generalist or not tags.styles else points


class PublishedPriors:
    """Published evidence, points for tags, and what the form and the language of the prompt are worth.

    Where pictures are changed by instruction, an editor has the level of an arena of edits, and nothing of how well it
    draws. An expert that is none, which may only start from the picture, has its level of drawing.

    Args:
        experts: The experts.
        evidence: What is published.
        editors: Ids of the experts that change pictures by instruction; by default those that declare it.
    """

    def __init__(
        self, experts: Iterable[Expert], evidence: Published, *, editors: Collection[str] | None = None
    ) -> None:
        known = {expert.id: expert for expert in experts}
        if editors is None:
            editors = {name for name, one in known.items() if one.capabilities.image_editing}
        self._standings = {name: evidence.standing(expert) for name, expert in sorted(known.items())}
        # the level of a measured expert is over all prompts, and holds what its maker claims
        spoken = {name: _SPOKEN_FOR if self._is_spoken_for(one) else one.tags for name, one in known.items()}
        self._tags = TagPriors(spoken, {name: standing.level for name, standing in self._standings.items()})
        self._columns, self._styles = evidence.columns, evidence.styles
        # the last row is that of an unknown expert
        table = [*self._standings.values(), evidence.unknown]
        self._rows = {name: index for index, name in enumerate(self._standings)}
        self._nodes = sorted({node for standing in table for node in standing.offsets})
        self._groups = np.array([_group(node, evidence) for node in self._nodes], dtype=np.intp)
        self._levels = np.array([log_odds(standing.level) for standing in table])
        self._offsets = _table(table, self._nodes) / ELO_PER_LOG_ODDS
        self._doubts = _doubts(table)
        self._edits = {name: evidence.edits.standing(known[name]) for name in self._standings if name in editors}
        edits = [self._edits.get(name, standing) for name, standing in zip([*self._standings, ""], table, strict=True)]
        self._edit_levels = np.array([log_odds(standing.level) for standing in edits])
        self._edit_several = np.array([one.offsets.get(SEVERAL_PICTURES, 0.0) for one in edits]) / ELO_PER_LOG_ODDS
        self._edit_doubts = _doubts(edits)
        gains = [evidence.rewriting.of(known[name]) or 0.0 for name in self._standings]
        self._rewriting = np.array([*gains, evidence.rewriting.usual or 0.0]) / ELO_PER_LOG_ODDS
        self._form, self._forms = _forms([*(known[name] for name in self._standings), None], table)
        levels = (self._levels, self._offsets, self._doubts, self._edit_levels, self._edit_several, self._edit_doubts)
        arrays = [values.tolist() for values in (*levels, self._forms, self._rewriting)]
        content = (self._tags.fingerprint, arrays, self._nodes, self._form, _SHARES, *self._standings)
        self._fingerprint = sha256(repr(content).encode()).hexdigest()

    def _is_spoken_for(self, expert: Expert) -> bool:
        standing = self._standings[expert.id]
        return standing.measured or bool(expert.tags.generalist and standing.offsets)

    @classmethod
    def of(
        cls,
        experts: Iterable[Expert],
        evidence: Published | None = None,
        *,
        editors: Collection[str] | None = None,
    ) -> PublishedPriors:
        """The priors of these experts by the evidence of the package, or by other evidence."""
        return cls(experts, evidence or published(), editors=editors)

    @property
    def fingerprint(self) -> str:
        """Changes whenever a tag, a constant or a published figure does."""
        return self._fingerprint

    def points(self, expert_ids: Sequence[str], evidence: Mapping[str, float]) -> NDArray[np.float64]:
        """The sum of `parts`, shape (experts,)."""
        return np.asarray(sum(self.parts(expert_ids, evidence).values()), dtype=np.float64)

    def parts(self, expert_ids: Sequence[str], evidence: Mapping[str, float]) -> dict[str, NDArray[np.float64]]:
        """`published`, the log-odds against `REFERENCE_ELO`; `tags`; and `wording`, for the form and the language.

        Where an LLM rewrote a prompt that takes thought, also `rewriting`: what that was measured to gain.
        """
        rows = [self._rows.get(expert, -1) for expert in expert_ids]
        if is_editing(evidence):
            level = self._edit_levels[rows] + self._edit_several[rows] * evidence.get(SEVERAL_PICTURES, 0.0)
        else:
            level = self._levels[rows] + self._offsets[rows] @ self._weights(evidence)
        # a part of its own, and only where a prompt was rewritten
        rewritten = evidence.get(REWRITTEN, 0.0)
        return {
            **({"rewriting": self._rewriting[rows] * rewritten} if rewritten else {}),
            "published": level,
            "tags": self._tags.points(expert_ids, evidence),
            "wording": self._forms[rows] @ np.array([evidence.get(node, 0.0) for node in self._form]),
        }

    def doubt(self, expert_ids: Sequence[str], *, editing: bool = False) -> NDArray[np.float64]:
        """Less for an expert with figures of its own than for one of a known family, and that less than for others."""
        rows = [self._rows.get(expert, -1) for expert in expert_ids]
        return np.asarray((self._edit_doubts if editing else self._doubts)[rows], dtype=np.float64)

    def evidence(self, expert: str, others: Sequence[str], node: str | None, *, editing: bool = False) -> str:
        """What speaks for an expert, for a sentence in parentheses.

        Args:
            expert: Its id.
            others: Experts it is compared with: the first of them that the same table has with a lower figure.
            node: The style or subject that was asked for, if any.
            editing: Whether it is to change a picture.

        Returns:
            Such as "Artificial Analysis, cartoon: 1,153 against 1,086 for z-image", or where the prior is from.
        """
        standings = self._edits if editing else self._standings
        one = standings.get(expert)
        if one is None:
            return ""
        column = self._columns.get(node or "", OVERALL)
        for source, figures in one.figures.items():
            name = column if column in figures else OVERALL
            if name in figures:
                theirs = ((_figure(standings.get(other), source, name), other) for other in others)
                lower = next((pair for pair in theirs if pair[0] < figures[name]), None)
                against = f" against {lower[0]:,.0f} for {lower[1]}" if lower else ""
                about = "" if name == OVERALL else f", {name.replace('_', ' ').replace('-', ' ')}"
                return f"{source}{about}: {figures[name]:,.0f}{against}"
        return one.source

    def _weights(self, evidence: Mapping[str, float]) -> NDArray[np.float64]:
        """Weight of each node's offset: styles first, subjects and needs share what is left, and kinds add theirs."""
        asked = np.array([evidence.get(node, 0.0) for node in self._nodes])
        left = max(1.0 - sum(evidence.get(style, 0.0) for style in self._styles), 0.0)
        needs = max(float(asked[self._groups == _NEED].sum()), 1.0)
        shares = np.array([1.0, SUBJECT_SHARE * left, NEED_SHARE * left / needs, 1.0])
        return np.asarray(asked * shares[self._groups])


def _figure(standing: Standing | None, source: str, column: str) -> float:
    """A figure of a table, infinite if it does not have the expert."""
    return standing.figures.get(source, {}).get(column, np.inf) if standing else np.inf


def _doubts(standings: Sequence[Standing]) -> NDArray[np.float64]:
    """Share of the usual doubt that is left for each."""
    doubts = np.array([standing.doubt for standing in standings])
    return np.asarray(np.minimum(np.hypot(doubts, FLOOR_ELO) / LEVEL_ELO, 1.0))


_STYLE, _SUBJECT, _NEED, _KIND = range(4)
_SHARES = (SUBJECT_SHARE, NEED_SHARE)


def _group(node: str, evidence: Published) -> int:
    """What a node is: a style, a subject, a need or a kind."""
    if node.startswith(KIND):
        return _KIND
    return _STYLE if node in evidence.styles else _NEED if node in evidence.needs else _SUBJECT


def _table(standings: Sequence[Standing], nodes: Sequence[str]) -> NDArray[np.float64]:
    return np.array([[one.offsets.get(node, 0.0) for node in nodes] for one in standings])


def _forms(experts: Sequence[Expert | None], standings: Sequence[Standing]) -> tuple[list[str], NDArray[np.float64]]:
    """Evidence about form and language, and what each piece is worth to each expert, shape (experts, pieces)."""
    languages = sorted({language for standing in standings for language in standing.languages})
    names = [*FORM_POINTS, *(f"{LANGUAGE}{language}" for language in languages)]
    rows = []
    for expert, standing in zip(experts, standings, strict=True):
        style = expert.prompt_style[0] if expert and expert.prompt_style else ""
        form = [points.get(style, 0.0) for points in FORM_POINTS.values()]
        rows.append([*form, *(standing.languages.get(language, 0.0) / ELO_PER_LOG_ODDS for language in languages)])
    return names, np.array(rows)
