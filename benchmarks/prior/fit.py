"""The prior as one Gaussian model over all published evidence, and what leaving something out says of it.

`u(model, kind) = level + offset`, in Elo points. Levels and offsets are Gaussian with what models share as covariance:
release date, size, being a service, being distilled or fine-tuned, family; offsets also covary between kinds as
the columns of the largest arena do. A figure of a table is `u` times the table's scale plus an offset of its column,
an error of the model in that table, and noise. All of it is one covariance matrix, so that every leave-out check is
exact and costs no further fit: `y - inv(K_ii)^-1 (inv(K) y)_i` predicts the rows `i` from all others.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
HERE = Path(__file__).parent
OVERALL = "overall"
MAIN = "Artificial Analysis"


@dataclass(frozen=True)
class Scales:
    """Standard deviations in Elo points, found by `python benchmarks/first_pick.py --search`."""

    date: float = 50.0
    bend: float = 54.0
    size: float = 27.0
    kind: float = 350.0
    tier: float = 72.0
    maker: float = 7.5
    family: float = 60.0
    kin: float = 100.0
    model: float = 55.0
    offset_shared: float = 0.25
    offset_family: float = 0.6
    offset_model: float = 0.8
    cell: float = 6.0
    noise: float = 1.3


@dataclass(frozen=True)
class Model:
    """A model that some table has, or that our zoo has."""

    name: str
    family: str
    maker: str
    released: float
    params: float
    kind: str
    tier: float
    repo: str


@dataclass(frozen=True)
class Row:
    """One figure of a table."""

    source: str
    column: str
    model: str
    value: float
    mixture: tuple[tuple[str, float], ...]
    noise: float


def norm(name: str) -> str:
    """A name without case, spaces and punctuation."""
    for greek, latin in (("Σ", "sigma"), ("α", "alpha"), ("δ", "delta"), ("&nbsp;", "")):
        name = name.replace(greek, latin)
    return re.sub(r"[^a-z0-9]", "", name.lower())


def read_models(path: Path = HERE / "models.csv") -> tuple[dict[str, Model], dict[str, str]]:
    """Models by name, and the name that each spelling stands for."""
    models, spelling = {}, {}
    with path.open(encoding="utf-8") as file:
        for row in csv.DictReader(file):
            year, month = map(int, row["released"].split("-"))
            size = float(row["params_b"] or "nan")
            name = row["model"]
            released, tier = year + (month - 0.5) / 12, float(row["tier"])
            models[name] = Model(name, row["family"], row["maker"], released, size, row["kind"], tier, row["repo"])
            spelling |= dict.fromkeys([name, *row["also"].split()], name)
    return models, spelling


def read_yaml(path: Path) -> Any:
    """A YAML file."""
    from ruamel.yaml import YAML

    return YAML(typ="safe").load(path.read_text(encoding="utf-8"))


VENDOR_TABLES = {
    "geneval_2026_04": "GenEval", "geneval_2026_05": "GenEval", "geneval_2025_04": "GenEval",
    "geneval_2025_12": "GenEval", "dpg_bench_2026_05": "DPG", "dpg_bench_2025_04": "DPG", "dpg_bench_2025_12": "DPG",
    "oneig_en_2026_04": "OneIG", "oneig_en_2025_12": "OneIG", "cvtg_2k_2026_05": "Text", "cvtg_2k_2025_12": "Text",
    "longtext_bench_2026_04": "Text", "longtext_bench_2026_05": "Text", "longtext_bench_2025_12": "Text",
    "hpsv3_12_categories_2026_05": "HPSv3", "hpsv2_1_styles_2025_04": "HPSv2", "kolors_human_2024_07": "MOS",
}  # fmt: skip
"""Tables that makers of models print: their names, and whose columns they have."""

CLAIMANTS = frozenset(
    {"hidream-o1", "hidream-i1", "ernie-image", "ovis-image", "ovis-u1", "glm-image", "longcat", "cogview4", "kolors"}
)
"""Families whose makers printed these tables: what they say of their own models is doubted twice as much."""

_COLUMNS = {
    **dict.fromkeys(["averaged", "all", "overall score", "average", "wa (average)", "longtext-bench-en"], OVERALL),
    "average overall satisfaction": OVERALL, "attribute binding": "color attribution", "attr": "color attribution",
    "count": "counting", "color": "colors",
}  # fmt: skip


def read_rows(data: Path) -> list[Row]:
    """Every figure that may ship, of the tables in a folder of the project's data; means of repeated ones."""
    _, spelling = read_models()
    kinds = read_yaml(HERE / "kinds.yaml")["columns"]
    found: dict[tuple[str, str, str], list[tuple[float, float]]] = {}
    for source, column, model, value, noise in chain(_arenas(data), _tables(data), _makers(data)):
        name = spelling.get(norm(model))
        if name is not None and value not in (None, ""):
            found.setdefault((source, column, name), []).append((float(str(value)), noise))
    rows = []
    for (source, column, model), figures in found.items():
        mixture = kinds.get(source.removesuffix(", makers"), {}).get(column)
        if source == MAIN:
            mixture = {} if column == OVERALL else {column: 1.0}
        if mixture is not None or column == OVERALL:
            value, noise = np.mean(figures, axis=0)
            rows.append(Row(source, column, model, float(value), tuple(sorted((mixture or {}).items())), float(noise)))
    return _enough(rows)


Figure = tuple[str, str, str, Any, float]
"""Source, column, model, value, and the standard deviation of its error, or 0 where the source does not say."""


def _arenas(data: Path) -> Iterator[Figure]:
    with (data / "artificial_analysis_t2i.csv").open(encoding="utf-8") as file:
        for row in csv.DictReader(file):
            error = max(float(row["ci95"].rpartition("+")[2] or 8) / 1.96, 3.0)
            # a kind has a twelfth of the votes
            yield from ((MAIN, column, row["name"], row[column], 3.5 * error) for column in list(row)[8:])
            yield MAIN, OVERALL, row["name"], row["elo"], error
    boards = read_yaml(data / "leaderboards.yaml")
    for name, one in boards["lmarena_text_to_image"]["models"].items():
        error = (one["ci95"][1] - one["ci95"][0]) / 3.92
        for column, value in one["elo"].items():
            if column not in ("chinese", "english", "russian"):
                yield "LMArena", column, name, value, error * (1 if column == OVERALL else 2.5)
    for date in ("2024-02-20", "2024-06-03", "2024-09-17"):
        for name, value in boards["genai_arena"][date]["elo_anony"].items():
            yield "GenAI-Arena", OVERALL, name, value, 0.0


def _tables(data: Path) -> Iterator[Figure]:
    files = {
        "HPSv2": "hpsv2_v2.1_by_style", "HPSv3": "hpsv3_by_category", "EvalMuse": "evalmuse_t2i_by_skill",
        "GenEval": "geneval_by_task",
    }  # fmt: skip
    for source, table in files.items():
        with (data / "tables" / f"{table}.csv").open(encoding="utf-8") as file:
            for row in csv.DictReader(file):
                name, *columns = row
                yield from ((source, _column(column, source), row[name], row[column], 0.0) for column in columns)
    with (data / "tables" / "model_by_skill.csv").open(encoding="utf-8") as file:
        for row in csv.DictReader(file):
            benchmark = row["benchmark"].removesuffix("-verified").removesuffix("-relaxed")
            # rewriting is a language model's work, not the image model's
            if benchmark in ("T2I-CoReBench", "WISE", "GenExam") and "rewriting" not in row["model"]:
                yield benchmark, row["skill"], row["model"], row["score"], 0.0


def _makers(data: Path) -> Iterator[Figure]:
    boards = read_yaml(data / "leaderboards.yaml")["vendor_reported"]
    for table, source in VENDOR_TABLES.items():
        for name, values in boards[table]["rows"].items():
            for column, value in zip(boards[table]["columns"], values, strict=True):
                yield f"{source}, makers", _column(column, source), name, value, 0.0


def _column(name: str, source: str) -> str:
    name = _COLUMNS.get(name.lower().strip(" .").replace("↑", ""), name)
    return name.lower() if source in ("GenEval", "OneIG", "DPG", "Text") else name


def _enough(rows: list[Row]) -> list[Row]:
    """Columns that say something of four models or more."""
    sizes: dict[tuple[str, str], int] = {}
    for row in rows:
        sizes[row.source, row.column] = sizes.get((row.source, row.column), 0) + 1
    return [row for row in rows if sizes[row.source, row.column] >= 4]


class Fit:
    """The posterior given some rows.

    Args:
        rows: Figures.
        models: What is known of every model.
        scales: Standard deviations.
    """

    def __init__(self, rows: list[Row], models: dict[str, Model], scales: Scales = Scales()) -> None:
        self.rows, self.models, self.scales = rows, models, scales
        self.names = sorted(models)
        self._at = {name: place for place, name in enumerate(self.names)}
        arena = sorted({row.column for row in rows if row.source == MAIN} - {OVERALL})
        self.kinds = [*arena, *read_yaml(HERE / "kinds.yaml")["own"]]
        self._kind = {kind: place for place, kind in enumerate(self.kinds)}
        self.covariance = self._kind_covariance(arena)
        self.level, self.offset = self._model_covariances()
        self.tables = sorted({row.source for row in rows})
        self.table_scale, self.table_error = self._table_scales()

    def mixture(self, weights: Any) -> Floats:
        """A vector over kinds."""
        vector = np.zeros(len(self.kinds))
        for kind, weight in dict(weights).items():
            if kind in self._kind:
                vector[self._kind[kind]] = weight
        return vector

    def _kind_covariance(self, arena: list[str]) -> Floats:
        """How offsets of kinds covary between models, by the main arena; own kinds stand alone."""
        values = {(row.model, row.column): row.value for row in self.rows if row.source == MAIN}
        full = [
            m for m in self.names if (m, OVERALL) in values and sum((m, k) in values for k in arena) > 0.8 * len(arena)
        ]
        table = np.array([[values.get((m, k), np.nan) - values[m, OVERALL] for k in arena] for m in full])
        table = table - np.nanmean(table, axis=0)
        table = np.where(np.isnan(table), 0.0, table)
        found = table.T @ table / max(len(table) - 1, 1)
        noise = 14.0**2
        values_, vectors = np.linalg.eigh(found - noise * np.eye(len(found)))
        smooth = (vectors * np.clip(values_, 4.0, None)) @ vectors.T
        whole = np.zeros((len(self.kinds), len(self.kinds)))
        whole[: len(arena), : len(arena)] = smooth
        own = np.arange(len(arena), len(self.kinds))
        whole[own, own] = 30.0**2
        return whole

    def _model_covariances(self) -> tuple[Floats, Floats]:
        s = self.scales
        every = [self.models[name] for name in self.names]
        date = np.array([m.released for m in every]) - 2024.5
        bend = np.maximum(date - 0.5, 0)
        size = np.log(np.array([m.params for m in every]) / 4)
        size = np.where(np.isnan(size), 0.0, size)
        flags = [np.array([m.kind == kind for m in every], float) for kind in ("service", "turbo", "tune")]
        family = np.array([[a.family == b.family for b in every] for a in every], float)
        level = 1e3**2 + s.date**2 * np.outer(date, date) + s.bend**2 * np.outer(bend, bend)
        level = level + s.size**2 * np.outer(size, size) + s.kind**2 * sum(np.outer(f, f) for f in flags)
        near = np.exp(-2 * np.abs(date[:, None] - date[None]))
        maker = np.array([[a.maker == b.maker for b in every] for a in every], float)
        tier = np.array([m.tier for m in every])
        level = level + s.tier**2 * np.outer(tier, tier) + s.maker**2 * maker
        level = level + s.family**2 * family + s.kin**2 * family * near + s.model**2 * np.eye(len(every))
        trend = np.outer(date, date) + np.outer(flags[0], flags[0]) + 0.3 * np.outer(size, size)
        offset = s.offset_shared**2 * trend + s.offset_family**2 * family + s.offset_model**2 * np.eye(len(every))
        return level, offset

    def _table_scales(self) -> tuple[dict[str, float], dict[str, float]]:
        """Points of each table for an Elo point, and its error of a model's level, by the means of models."""
        means: dict[str, dict[str, float]] = {}
        for row in self.rows:
            if row.column == OVERALL:
                means.setdefault(row.source, {})[row.model] = row.value
        known = dict(means.get("LMArena", {}))
        main = means.get(MAIN, {})
        both = sorted(set(known) & set(main))
        if both:
            slope = np.polyfit([known[m] for m in both], [main[m] for m in both], 1)
            known = {m: float(np.polyval(slope, value)) for m, value in known.items()}
        known |= main
        scale, error = {}, {}
        for table in self.tables:
            here = means.get(table, {})
            both = sorted(set(here) & set(known))
            if table == MAIN or len(both) < 3:
                scale[table], error[table] = 1.0, 3.0
                if table != MAIN:
                    values = [row.value for row in self.rows if row.source == table]
                    scale[table], error[table] = float(np.std(values)) / 80 or 1.0, 60.0
                continue
            x, y = np.array([known[m] for m in both]), np.array([here[m] for m in both])
            slope, _ = np.polyfit(x, y, 1)
            slope = max(slope, 0.3 * y.std() / x.std())
            rest = (y - y.mean()) / slope - (x - x.mean())
            scale[table] = float(slope)
            error[table] = max(float(rest.std()), 10.0)
        return scale, error

    @cached_property
    def _terms(self) -> tuple[NDArray[np.intp], Floats, Floats, Floats]:
        who = np.array([self._at[row.model] for row in self.rows])
        what = np.array([self.mixture(row.mixture) for row in self.rows])
        scale = np.array([self.table_scale[row.source] for row in self.rows])
        y = np.array([row.value for row in self.rows]) / scale
        return who, what, scale, y

    @cached_property
    def _inverse(self) -> tuple[Floats, Floats, Floats]:
        who, what, _, y = self._terms
        columns = np.unique([f"{row.source}/{row.column}" for row in self.rows], return_inverse=True)[1]
        tables = np.unique([row.source for row in self.rows], return_inverse=True)[1]
        centre = np.array([y[columns == column].mean() for column in range(columns.max() + 1)])[columns]
        same = who[:, None] == who[None]
        error = np.array([self._error(row) for row in self.rows])
        k = self.cross(who, what, who, what)
        k += (same & (tables[:, None] == tables[None])) * np.outer(error, error)
        k += (columns[:, None] == columns[None]) * 200.0**2
        noise = np.array([self._noise(row) for row in self.rows])
        k[np.diag_indices(len(k))] += noise**2
        inverse = np.linalg.inv(k)
        return inverse, inverse @ (y - centre), centre

    def _noise(self, row: Row) -> float:
        if row.noise:
            return self.scales.noise * row.noise / self.table_scale[row.source]
        return max(0.6 * self._error(row), 40.0) if row.column != OVERALL else 5.0

    def _error(self, row: Row) -> float:
        """How far the table is off about the level of a model, in Elo points."""
        own = row.source.endswith(", makers") and self.models[row.model].family in CLAIMANTS
        return max(self.table_error[row.source], 80.0) * 2 if own else self.table_error[row.source]

    def cross(self, who: Any, what: Floats, whom: Any, which: Floats) -> Floats:
        """Covariance of `u` at some cells with `u` at others."""
        shared = what @ self.covariance @ which.T
        cell = (what @ which.T) * self.scales.cell**2 * (np.asarray(who)[:, None] == np.asarray(whom)[None])
        return self.level[np.ix_(who, whom)] + self.offset[np.ix_(who, whom)] * shared + cell

    def without(self, groups: list[list[int]]) -> Floats:
        """What the other rows predict of the rows of each group, on the scale of Elo points."""
        inverse, weighed, _ = self._inverse
        *_, y = self._terms
        predicted = np.full(len(y), np.nan)
        for group in groups:
            block = inverse[np.ix_(group, group)]
            predicted[group] = y[group] - np.linalg.solve(block, weighed[group])
        return predicted

    @property
    def values(self) -> Floats:
        """What the tables say, on the scale of Elo points."""
        return self._terms[3]

    def weighed(self, group: list[int] | None = None) -> Floats:
        """Weights of all rows in a posterior mean, or those without a group of rows, whose weights are then 0."""
        inverse, weighed, _ = self._inverse
        if not group:
            return weighed
        return weighed - inverse[:, group] @ np.linalg.solve(inverse[np.ix_(group, group)], weighed[group])

    def cells(self, models: list[str], mixtures: Floats) -> Floats:
        """Covariance of each model's `u` at each mixture with every row, shape (models, mixtures, rows)."""
        who, what, *_ = self._terms
        at = np.array([self._at[model] for model in models])
        each = [self.cross(at, np.tile(mixture, (len(at), 1)), who, what) for mixture in mixtures]
        return np.stack(each, axis=1)

    def doubts(self, models: list[str]) -> Floats:
        """Posterior standard deviations of differences of levels from the best known one, in Elo points."""
        inverse, *_ = self._inverse
        none = np.zeros((len(models), len(self.kinds)))
        cross = self.cells(models, none[:1])[:, 0]
        at = np.array([self._at[model] for model in models])
        covariance = self.level[np.ix_(at, at)] - cross @ inverse @ cross.T
        spread = np.diag(covariance)[:, None] + np.diag(covariance)[None] - 2 * covariance
        best = int(spread.sum(axis=1).argmin())
        return np.sqrt(np.maximum(spread[:, best], 0.0))
