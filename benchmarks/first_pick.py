"""The first pick: how well published evidence predicts what people prefer, and which experts it picks before any vote.

    python benchmarks/first_pick.py --data DIR [--write]

prints how well the fit (`benchmarks/prior/fit.py`) predicts a model from all others, one table from the others, and a
kind of prompt from the other kinds; what fine-tunes gain in their style; and for prompts of the 25 kinds of the
Artificial Analysis arena (2026-07-10, https://artificialanalysis.ai), English and Chinese, the Elo of the experts that
the router picks, against always the best single one. Elo of a kind is that of the arena; a pick never knows the column
it is scored by: the fit is without it. `--write` makes `diffusiongpt/ranking/prior.json` from the same fit.

DIR holds `artificial_analysis_t2i.csv`, `leaderboards.yaml` and `tables/`.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Callable, Iterable, Mapping
from functools import cache, cached_property
from math import log
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
from scipy.stats import spearmanr

sys.path.insert(0, str(Path(__file__).parent / "prior"))

from editing import edits
from fit import HERE, MAIN, OVERALL, Fit, Floats, Model, Row, Scales, read_models, read_rows, read_yaml
from latency import percentiles
from skills import counting, read_reasoning, rewriting

from diffusiongpt.backends import is_hosted
from diffusiongpt.embedding import LexicalEmbedder, SentenceEmbedder
from diffusiongpt.flow import MachineSpec, Request
from diffusiongpt.placement import Planner, planned_for
from diffusiongpt.ranking import ELO_PER_LOG_ODDS, KIND, LiveTable, Published, PublishedPriors, read_published
from diffusiongpt.routing import Router
from diffusiongpt.settings import Memory
from diffusiongpt.understanding import KindReader, LocalThinker
from diffusiongpt.zoo import Expert, Zoo

TARGET = Path(__file__).parents[1] / "diffusiongpt" / "ranking" / "prior.json"

TUNES = {
    "Realistic Vision": ("Photo",), "Dreamlike Photoreal 2.0": ("Photo",), "MajicMix Realistic": ("Photo",),
    "ChilloutMix": ("Photo",), "Deliberate": ("Concept-art", "Painting"),
    "Openjourney": ("Animation", "Concept-art", "Painting"), "Epic Diffusion": ("Concept-art", "Painting"),
}  # fmt: skip
"""Fine-tunes of Stable Diffusion 1.x in HPSv2, and the styles that their model cards promise."""

TUNED_FROM = "Stable Diffusion v1.4"

LATER_TUNES = (("playgroundv25", "stablediffusionxl10"), ("flux1kreadev", "flux1dev"), ("srpo", "flux1dev"))
"""Fine-tunes of later bases that the main arena lists beside them."""

Fits = Callable[[Expert], bool]

Knows = Literal["nothing", "kind", "figures"]
"""What picks may know of a kind of prompts: nothing, as of a kind that no table has; what such prompts look like, but
none of the arena's figures; or these too, as the package has them."""

KNOWN = get_args(Knows)

UNLISTED = 0.5
"""Standard deviations that a model is expected below those like it if no table lists it: tables list what somebody
found worth comparing. Stated, as nothing can measure it."""


def by_model(fit: Fit, *sources: str) -> list[list[int]]:
    """Rows of each model, of all tables or of some."""
    found: dict[str, list[int]] = {}
    for place, row in enumerate(fit.rows):
        if not sources or row.source in sources:
            found.setdefault(row.model, []).append(place)
    return list(found.values())


def rank(predicted: Floats, fit: Fit, chosen: Iterable[int]) -> float:
    """Rank correlation over some rows."""
    rows = list(chosen)
    return float(spearmanr(predicted[rows], fit.values[rows])[0])


def leave_out(fit: Fit) -> dict[str, float]:
    """Rank correlations of what the rest of the evidence predicts."""
    models = fit.without(by_model(fit))
    report = {}
    for source in (MAIN, "LMArena"):
        rows = [place for place, row in enumerate(fit.rows) if row.source == source]
        overall = [place for place in rows if fit.rows[place].column == OVERALL]
        open_weights = [place for place in overall if fit.models[fit.rows[place].model].kind != "service"]
        kinds = [place for place in rows if fit.rows[place].column != OVERALL]
        report[f"{source}, a model unseen, overall, {len(overall)} models"] = rank(models, fit, overall)
        report[f"  of these {len(open_weights)} with open weights"] = rank(models, fit, open_weights)
        report[f"{source}, a model unseen, {len(kinds)} cells by kind"] = rank(models, fit, kinds)
        here = fit.without([rows])
        seen = {row.model for row in fit.rows if row.source != source}
        both = [place for place in overall if fit.rows[place].model in seen]
        report[f"{source} from the other tables, overall, {len(both)} models in both"] = rank(here, fit, both)
        own = fit.without([group for group in by_model(fit, source) if fit.rows[group[0]].model in seen])
        cells = [place for place in kinds if fit.rows[place].model in seen]
        report[f"{source}, a model by its other tables, {len(cells)} cells by kind"] = rank(own, fit, cells)
    return report


def style_gain(fit: Fit, data: Path) -> tuple[Floats, Floats]:
    """Log-odds that fine-tunes gain over their base in the styles they declare, and in the others."""
    import csv

    with (data / "tables" / "hpsv2_v2.1_by_style.csv").open(encoding="utf-8") as file:
        table = {row["Model"]: row for row in csv.DictReader(file)}
    styles = ("Animation", "Concept-art", "Painting", "Photo")
    unit = fit.table_scale["HPSv2"] * ELO_PER_LOG_ODDS
    own, others = [], []
    for name, declared in TUNES.items():
        gains = {style: (float(table[name][style]) - float(table[TUNED_FROM][style])) / unit for style in styles}
        own.append(np.mean([gains[style] for style in declared]))
        others.append(np.mean([gain for style, gain in gains.items() if style not in declared]))
    return np.array(own), np.array(others)


class Export:
    """The prior as data: levels and offsets of every model that has weights or a service of ours.

    Args:
        fit: The fit, which has a model for each family too.
        zoo: For the line through levels and sizes.
        further: What else the prior holds, which no kind of prompts changes: edits, counting and rewriting.
    """

    def __init__(self, fit: Fit, zoo: Zoo, further: dict[str, Any]) -> None:
        self.fit = fit
        self._further = further
        arena = sorted({row.column for row in fit.rows if row.source == MAIN} - {OVERALL})
        self.nodes = read_yaml(HERE / "kinds.yaml")["nodes"] | {f"{KIND}{kind}": {kind: 1.0} for kind in arena}
        self.about = read_yaml(HERE / "sources.yaml")
        self._zoo = zoo
        self._names = [name for name, model in fit.models.items() if model.repo or name.startswith("family:")]
        mixtures = np.array([np.zeros(len(fit.kinds)), *(fit.mixture(mixture) for mixture in self.nodes.values())])
        self._cells = fit.cells(self._names, mixtures)
        self._doubts = fit.doubts(self._names)
        self._shown = {row.model for row in fit.rows}
        self._without: dict[str, Published] = {}

    def data(self, without: list[int] | None = None) -> dict[str, Any]:
        """What `prior.json` holds.

        Args:
            without: Rows that the prior must not know.
        """
        means = self._cells @ self.fit.weighed(without)
        hidden = set(without or ())
        main = [p for p, row in enumerate(self.fit.rows) if row.source == MAIN and row.column == OVERALL]
        at = {name: place for place, name in enumerate(self._names)}
        known = [p for p in main if self.fit.rows[p].model in at]
        start = np.mean([self.fit.values[p] - means[at[self.fit.rows[p].model], 0] for p in known])
        standings = {
            name: {
                "level": round(float(means[place, 0] + start), 1),
                "doubt": round(float(self._doubts[place]), 1),
                "offsets": {
                    node: round(float(means[place, number] - means[place, 0]))
                    for number, node in enumerate(self.nodes, 1)
                },
            }
            for name, place in at.items()
        }
        figures: dict[str, dict[str, dict[str, float]]] = {}
        for place, row in enumerate(self.fit.rows):
            if row.source in (MAIN, "LMArena") and place not in hidden:
                figures.setdefault(row.model, {}).setdefault(row.source, {})[row.column] = round(row.value, 1)
        experts, families = {}, {}
        for name, standing in standings.items():
            model = self.fit.models[name]
            costs = self.about["languages"]
            standing["languages"] = costs.get(model.repo, costs.get(model.family, {}))
            if name.startswith("family:"):
                families[model.family] = {**standing, "source": f"models of the family {model.family}"}
                continue
            seen = name in self._shown
            source = "benchmarks" if seen else f"models like it ({model.family}, {int(model.released)})"
            if not seen:
                standing["level"] = round(standing["level"] - UNLISTED * standing["doubt"], 1)
            own = {"figures": figures.get(name, {}), "measured": seen, "source": source}
            experts[model.repo] = {**standing, **own}
        return {
            "_about": "Made by `python benchmarks/first_pick.py --data DIR --write`; see benchmarks/prior/fit.py.",
            "sources": self.about["sources"],
            "styles": [node.id for node in self._zoo.taxonomy.of_kind("style")],
            "needs": list(self._zoo.taxonomy.needs),
            "columns": {node: self._column(mixture) for node, mixture in self.nodes.items() if self._column(mixture)},
            "sizes": self._sizes(experts),
            "unknown": {"level": 900.0, "doubt": 200.0},
            "experts": dict(sorted(experts.items())),
            "families": dict(sorted(families.items())),
            **self._further,
        }

    def without(self, kind: str) -> Published:
        """The prior without the main arena's figures of a kind; with all figures for `""`."""
        if kind not in self._without:
            hidden = [p for p, row in enumerate(self.fit.rows) if kind and (row.source, row.column) == (MAIN, kind)]
            self._without[kind] = read_published(self.data(hidden))
        return self._without[kind]

    @staticmethod
    def _column(mixture: dict[str, float]) -> str:
        kind, weight = max(mixture.items(), key=lambda item: item[1])
        return kind if weight >= 0.5 else ""

    @cached_property
    def careful(self) -> dict[tuple[str, str], float]:
        """By model and kind of the main arena: the mean by all figures, less a standard deviation of the level."""
        kinds = [kind for kind in self.fit.kinds if any(row.column == kind for row in self.fit.rows)]
        means = self.fit.cells(self._names, np.array([self.fit.mixture({kind: 1.0}) for kind in kinds]))
        means = means @ self.fit.weighed()
        values = {(row.model, row.column): row.value for row in self.fit.rows if row.source == MAIN}
        found = {}
        for number, kind in enumerate(kinds):
            gaps = [values[n, kind] - means[p, number] for p, n in enumerate(self._names) if (n, kind) in values]
            for place, name in enumerate(self._names):
                found[name, kind] = float(np.mean(gaps) + means[place, number] - self._doubts[place]) if gaps else 0.0
        return found

    def _sizes(self, experts: dict[str, Any]) -> list[float]:
        """The line through level and log GB of measured experts with open weights, and how far they are from it."""
        known = [e for e in self._zoo.values() if e.repo in experts and e.size_gb and experts[e.repo]["measured"]]
        x = np.array([log(e.size_gb or 1) for e in known])
        y = np.array([experts[e.repo]["level"] for e in known])
        slope, start = np.polyfit(x, y, 1)
        spread = float((y - slope * x - start).std())
        return [round(float(start) - UNLISTED * spread, 1), round(float(slope), 1), round(spread, 1)]


def printed(data: dict[str, Any]) -> str:
    """JSON with one expert, family or source a line."""

    def lines(values: dict[str, Any] | list[Any]) -> str:
        named = isinstance(values, dict)
        items = values.items() if named else enumerate(values)
        each = [(f"{json.dumps(name)}: " if named else "") + json.dumps(value) for name, value in items]
        start, end = "{}" if named else "[]"
        return start + "\n  " + ",\n  ".join(each) + "\n " + end

    nested = {"sources", "experts", "families"}
    parts = [f" {json.dumps(key)}: " + (lines(v) if key in nested else json.dumps(v)) for key, v in data.items()]
    return "{\n" + ",\n".join(parts) + "\n}\n"


def with_families(models: dict[str, Model], rows: Iterable[Row]) -> dict[str, Model]:
    """The models, and one more of each family that has open weights: neither distilled nor tuned, of its mean age.

    The mean is over the members that some table lists, if it lists any.
    """
    found = dict(models)
    listed = {row.model for row in rows}
    for family in sorted({model.family for model in models.values() if model.repo}):
        members = [model for model in models.values() if model.family == family and model.repo]
        kin = [model for model in members if model.name in listed] or members
        date = float(np.mean([model.released for model in kin]))
        sizes = [model.params for model in kin if model.params == model.params]
        params = float(np.exp(np.mean(np.log(sizes)))) if sizes else float("nan")
        kind = "service" if all(model.kind == "service" for model in kin) else "open"
        name = f"family:{family}"
        found[name] = Model(name, family, kin[0].maker, date, params, kind, 0.0, "")
    return found


@cache
def reader(without: str = "", hidden: frozenset[str] = frozenset()) -> KindReader:
    """The reader of kinds, or one that has never seen a kind or some examples."""
    return KindReader(SentenceEmbedder(), without=frozenset({without} - {""}), hidden=hidden)


@cache
def thinker() -> LocalThinker:
    """The thinker of all routers, since what it fits to the taxonomy takes far longer than a route."""
    return LocalThinker(LexicalEmbedder(), SentenceEmbedder())


def router_of(zoo: Zoo, evidence: Published | None = None, kinds: KindReader | None = None) -> Router:
    """A router with no votes, and other evidence or another reader of kinds than the package has, if any."""
    router = Router(
        zoo,
        thinker(),
        LiveTable(Path(tempfile.mkdtemp()) / "votes.db"),
        embedder="lexical",
        readiness=lambda _: "on_disk",
        kinds=kinds or reader(),
    )
    if evidence is not None:
        router._priors = PublishedPriors.of(zoo.values(), evidence)  # noqa: SLF001 - what is measured
    return router


def picked_elo(
    export: Export,
    zoo: Zoo,
    fits: Fits = lambda _: True,
    *,
    knows: Knows = "kind",
    prompts: Mapping[str, list[str]] | None = None,
    hidden: frozenset[str] = frozenset(),
) -> dict[str, tuple[float, float, float, str]]:
    """By kind: mean Elo of the picks, of the best single expert over all kinds, of the best of the kind, and the picks.

    A pick that the arena does not list is scored by the guess of `elo_of`. How kinds go together is learnt from all
    kinds, this one included, whatever the picks may know.

    Args:
        export: The prior.
        zoo: Experts.
        fits: Whether an expert may draw on the machine in question.
        knows: What the picks may know of a kind.
        prompts: Prompts by kind; those of `prior/prompts.yaml` if absent.
        hidden: English texts of examples that the reader of kinds must not know.
    """
    here = {e.id: e for e in zoo.values() if not is_hosted(e.backend) and fits(e)}
    small = Zoo(here, zoo.taxonomy.nodes | zoo.taxonomy.needs, zoo.sources)
    prompts = prompts or read_yaml(HERE / "prompts.yaml")
    truth = {kind: elo_of(export, here.values(), kind) for kind in prompts}
    single = max(here, key=lambda expert: np.mean([listed.get(expert, 0.0) for listed, _ in truth.values()]))
    report = {}
    for kind, texts in prompts.items():
        blind = knows != "figures"
        kinds = reader(kind) if knows == "nothing" else reader(hidden=hidden)
        router = router_of(small, export.without(kind if blind else ""), kinds)
        routes = [router.route(Request(prompt=str(text))) for text in texts]
        values, guessed = truth[kind]
        floor = min(values.values())
        elo = float(np.mean([values.get(route.expert, guessed.get(route.expert, floor)) for route in routes]))
        names = ", ".join(sorted({route.expert for route in routes}))
        report[kind] = (elo, values[single], max(values.values()), names)
    return report


def left_out_elo(export: Export, zoo: Zoo, knows: Knows) -> dict[str, tuple[float, float, float, str]]:
    """The same on the examples of the reader of kinds, in both languages, by readers that do not know a fifth each."""
    report: dict[str, list[tuple[float, float, float, str]]] = {}
    for fold in range(FOLDS):
        some = {kind: pairs[fold::FOLDS] for kind, pairs in KindReader.examples().items()}
        hidden = frozenset(english for pairs in some.values() for english, _ in pairs)
        texts = {kind: [text for pair in pairs for text in pair] for kind, pairs in some.items()}
        for kind, values in picked_elo(export, zoo, knows=knows, prompts=texts, hidden=hidden).items():
            report.setdefault(kind, []).append(values)
    return {
        kind: (float(np.mean([one[0] for one in values])), values[0][1], values[0][2], "")
        for kind, values in report.items()
    }


def elo_of(export: Export, experts: Iterable[Expert], kind: str) -> tuple[dict[str, float], dict[str, float]]:
    """The arena's Elo of a kind by expert, and a careful guess for those that it does not list.

    A guess is what the whole fit says, less its doubt. An adapter has what its base has.
    """
    fit = export.fit
    names = {model.repo: name for name, model in fit.models.items() if model.repo}
    cells = {row.model: row.value for row in fit.rows if row.source == MAIN and row.column == kind}
    found, guessed = {}, {}
    for expert in experts:
        name = names.get(expert.repo) or names.get(expert.base or "", f"family:{expert.architecture}")
        if name in cells and names.get(expert.repo) == name:
            found[expert.id] = cells[name]
        elif name in fit.models:
            guessed[expert.id] = export.careful[name, kind]
    return found, guessed


FOLDS = 5

MEMORIES = ("80GB+64GB", "48GB+64GB", "24GB+64GB", "16GB+64GB", "8GB+64GB")
"""Devices that people have, with the host memory beside them."""


def planner_for(memory: str) -> Planner:
    """Plans for a GPU with so much memory; how fast it is decides nothing here."""
    gpu = MachineSpec(device="cuda:0", device_bytes=0.0, host_bytes=0.0, flops=100e12)
    return Planner(planned_for(Memory.parse(memory), gpu), tiles=True, readiness=lambda _: "on_disk")


def print_picks(report: dict[str, tuple[float, float, float, str]], *, each: bool) -> None:
    """Print a report of `picked_elo`."""
    if each:
        for kind, (elo, single, best, names) in report.items():
            print(f"  {kind:<36} {elo:6.0f}  single {single:6.0f}  best {best:6.0f}  {names}")
    elo, single, best = np.array([values[:3] for values in report.values()]).mean(axis=0)
    print(f"  picks {elo:.1f}, always the best single expert {single:.1f}, best of each kind {best:.1f}")
    share = f"{(elo - single) / (best - single):.2f}" if best > single else "-"
    print(f"  gain {elo - single:+.1f}, share of the way {share}")


def print_all_picks(export: Export, zoo: Zoo) -> None:
    """Print what is picked for prompts of each kind, by what the picks know of it and where they are drawn."""
    print("picks on prompts of each kind, Elo of the kind: what the picks know of it")
    for knows in KNOWN:
        print(f" {knows}, any memory")
        print_picks(picked_elo(export, zoo, knows=knows), each=knows == "kind")
    print("picks on the examples of the reader of kinds, of which it does not know a fifth each, any memory")
    for knows in KNOWN:
        print(f" {knows}")
        print_picks(left_out_elo(export, zoo, knows), each=False)
    for memory in MEMORIES:
        planner = planner_for(memory)
        here = [one.id for one in zoo.values() if not is_hosted(one.backend) and planner(one).best]
        print(f"memory={memory}, {len(here)} experts that fit")
        for knows in KNOWN:
            print(f" {knows}")
            print_picks(picked_elo(export, zoo, lambda one: one.id in here, knows=knows), each=False)  # noqa: B023


def chinese(zoo: Zoo) -> tuple[int, int]:
    """Chinese prompts that reach an expert which does not read Chinese, and all Chinese prompts."""
    sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
    from prompts_styled import CHINESE

    texts = [text for text, _ in CHINESE]
    for some in read_yaml(HERE / "prompts.yaml").values():
        texts += [str(text) for text in some if any("\u4e00" <= character <= "\u9fff" for character in str(text))]
    router = router_of(zoo)
    missed = sum("zh" not in zoo[router.route(Request(prompt=text)).expert].languages for text in texts)
    return missed, len(texts)


def print_rewriting(fit: Fit, data: Path) -> None:
    """What a rewritten prompt was measured to gain."""
    plain, rewritten = read_reasoning(data)
    print(
        "T2I-CoReBench, mean of its eight reasoning skills: prompts as they are, rewritten by an LLM, log-odds gained"
    )
    for name in sorted(rewritten):
        gained = (rewritten[name] - plain[name]) / fit.table_scale["T2I-CoReBench"] / ELO_PER_LOG_ODDS
        print(f"  {name:<28} {plain[name]:.1f}  {rewritten[name]:.1f}  {gained:.2f}")


def main() -> None:
    """Print the report, or write the prior."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="folder with the tables")
    parser.add_argument("--write", action="store_true", help="write the prior of the package and stop")
    arguments = parser.parse_args()
    if arguments.data is None:
        print("(no --data: the fit and its checks are left out)")
        return
    models, _ = read_models()
    zoo = Zoo.load("default")
    rows = read_rows(arguments.data)
    fit = Fit(rows, with_families(models, rows), Scales())
    further = {
        "edits": edits(arguments.data, zoo.values()),
        "counting": counting(fit),
        "rewriting": rewriting(arguments.data, fit),
    }
    export = Export(fit, zoo, further)
    if arguments.write:
        TARGET.write_text(printed(export.data()), encoding="utf-8")
        return
    print(f"{len(fit.rows)} figures of {len(fit.tables)} tables; rank correlation of what the rest predicts")
    for name, value in leave_out(fit).items():
        print(f"  {name:<72} {value:5.2f}")
    own, others = style_gain(fit, arguments.data)
    print("fine-tunes of SD 1.x in HPSv2 over their base, log-odds (mean, spread)")
    for title, gains in (("the styles they declare", own), ("others", others)):
        print(f"  in {title:<24} {gains.mean():.2f} ± {gains.std():.2f}")
    levels = {row.model: row.value for row in fit.rows if row.source == MAIN and row.column == OVERALL}
    print("fine-tunes of later bases in the arena over their base, log-odds")
    for tune, base in LATER_TUNES:
        print(f"  {tune:<24} over {base} ({levels[base]:.0f})  {(levels[tune] - levels[base]) / ELO_PER_LOG_ODDS:.2f}")
    print_rewriting(fit, arguments.data)
    print_all_picks(export, zoo)
    missed, number = chinese(zoo)
    print(f"Chinese prompts to experts that do not read Chinese: {missed} of {number}")
    router = router_of(zoo)
    texts = [str(text) for some in read_yaml(HERE / "prompts.yaml").values() for text in some]
    for text in texts:
        router.route(Request(prompt=text))
    median, late = percentiles(lambda text: router.route(Request(prompt=text)), texts)
    print(f"warm decision, {len(zoo)} experts: median {median:.1f} ms, p95 {late:.1f} ms")


if __name__ == "__main__":
    main()
