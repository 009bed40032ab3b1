"""`DiffusionGPT`: the whole flow, from a prompt to a picture to a vote."""

from __future__ import annotations

import logging
import secrets
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Self, Unpack

from diffusiongpt.artist import Artist, OnProgress
from diffusiongpt.cache import Agree, ModelCache, Puller, PullPlan
from diffusiongpt.comparison import Comparison, as_rating, as_vote, choose_ballot, worth_showing
from diffusiongpt.decision import Route
from diffusiongpt.embedding import LexicalEmbedder
from diffusiongpt.errors import (
    DiffusionGPTError,
    DiskFullError,
    DrawError,
    HubUnreachableError,
    LoadError,
    NeedsExtraError,
    NeedsKeyError,
    NoRouteError,
    OutOfMemoryError,
    PullError,
    PullTooLargeError,
    RequestError,
    ServiceError,
)
from diffusiongpt.generation import Generation
from diffusiongpt.picture import Fallback, ShownIn
from diffusiongpt.preferences import Outcome, Preferences, Rating, Vote, VoteStore
from diffusiongpt.request import Options, Request, read_options
from diffusiongpt.resolve import FRESH_SEED_BITS
from diffusiongpt.router import Router
from diffusiongpt.sentence import SentenceEmbedder
from diffusiongpt.settings import Settings, load_settings
from diffusiongpt.thinkers import LocalThinker, Thinker
from diffusiongpt.zoo import SHIPPED, Zoo, ZooSource

if TYPE_CHECKING:
    from langchain_core.language_models import BaseChatModel

    from diffusiongpt.bootstrap import Bootstrapped, OnJudged
    from diffusiongpt.judges import Judge
    from diffusiongpt.preferences.exchange import FileFormat, Imported, Unknown

log = logging.getLogger("diffusiongpt")

MACHINE = (HubUnreachableError, OutOfMemoryError, DiskFullError, NeedsKeyError, ServiceError, NeedsExtraError)
"""Failures that say nothing against the zoo."""

LAST_RESORT = "tiny"
"""Zoo that draws when nothing else can: its weights come in the package."""


class DiffusionGPT:
    """Routes, draws, compares and learns. One studio may be shared by threads.

    Args:
        zoo: A `Zoo`, a file, `"default"`, `"tiny"`, or several of them, later over earlier; `None` for what
            the settings name.
        llm: LLM that reads prompts: `"provider:model"` as LangChain's `init_chat_model` takes it, or any
            `BaseChatModel`; `None` for what the settings name, and without that the local thinker reads.
        device: `"cuda"`, `"mps"`, `"cpu"`; `None` takes the best one present.
        votes: Where votes are kept: a file or a database URL; `None` for the user's own.
        settings: Everything else; read from the environment if absent.
        agree: Asked about a pull above `max_download_gb`; without it such a pull is refused.
        on_pull: Told size, licence and disk left before each pull; without it the log is, and through it stderr.
        on_progress: Told how far a download, a load or a drawing is.
    """

    def __init__(
        self,
        zoo: Zoo | ZooSource | Sequence[ZooSource] | None = None,
        *,
        llm: str | BaseChatModel | None = None,
        device: str | None = None,
        votes: VoteStore | Path | str | None = None,
        settings: Settings | None = None,
        agree: Agree | None = None,
        on_pull: Callable[[PullPlan], None] | None = None,
        on_progress: OnProgress | None = None,
    ) -> None:
        self.settings = settings or load_settings()
        self.zoo = as_zoo(zoo if zoo is not None else self.settings.zoo_layers)
        self.preferences = Preferences(votes if votes is not None else _own_votes(self.settings))
        self.cache = ModelCache(self.settings, puller=Puller(self.settings, on_pull=on_pull or _announce))
        device = device or self.settings.device
        self.artist = Artist(self.cache, self.settings, device, agree=agree, on_progress=on_progress)
        self._local = LocalThinker(LexicalEmbedder(), SentenceEmbedder.on_disk(self.settings))
        self.router = self._router(self.zoo, _thinker(llm or self.settings.llm, self._local))

    def __repr__(self) -> str:
        """What it draws with, and where."""
        return f"<DiffusionGPT {self.zoo!r} on {self.artist.device}>"

    def route(self, prompt: str, **options: Unpack[Options]) -> Route:
        """Choose an expert for a prompt; loads nothing and touches no network.

        Raises:
            RequestError: If the prompt or an argument makes no sense.
            NoRouteError: If every expert is rejected.
        """
        request, policy = read_options(prompt, options)
        return self.router.route(request, policy)

    def route_and_generate(self, prompt: str, **options: Unpack[Options]) -> Generation:
        """Choose an expert, pull and load it if need be, and draw.

        If it cannot draw, the next candidate does, and the result says so; an expert asked for by name has
        no stand-in.

        Args:
            prompt: What to draw, in any language.
            **options: See `Options`.

        Raises:
            RequestError: If the prompt or an argument makes no sense.
            NoRouteError: If no candidate can draw here; it lists why.
            PullTooLargeError: If the chosen expert is larger than may be pulled without asking.
        """
        request, policy = read_options(prompt, options)
        route = self.router.route(request, policy)
        return self._generate(replace(request, seed=route.seed), route)

    def compare(self, prompt: str, k: int = 2, **options: Unpack[Options]) -> Comparison:
        """Draw a prompt with the `k` experts whose comparison teaches most, one seed for all, in blind order.

        Args:
            prompt: What to draw.
            k: How many experts, at least two.
            **options: See `Options`; with a `seed`, the same experts are chosen again. `voter` is who will be
                asked; `explore` changes nothing, for comparing explores.

        Raises:
            RequestError: If the prompt or an argument makes no sense.
            VoteError: If fewer than `k` experts may draw the prompt.
            PullError, LoadError, DrawError: If a chosen expert cannot draw after all.
        """
        request, policy = read_options(prompt, options)
        if request.num_images_per_prompt > 1:
            raise RequestError("a comparison shows one picture of each expert", hint="Leave num_images_per_prompt out.")
        seed = secrets.randbits(FRESH_SEED_BITS) if request.seed is None else request.seed
        # who is compared is chosen to teach, which is exploring already
        route = self.router.route(replace(request, explore=None), policy)
        table = self.router.table_of(request.voter)
        eligible = self.router.may_draw(request, route.understanding, policy)
        worth = worth_showing(route, table, eligible, seed=seed)
        able = [expert for expert in worth if self.artist.can_draw(self.zoo[expert])]
        experts, shown_in = choose_ballot(route, table, k, seed=seed, able=able)
        # not in the order shown: what is told of pulls meanwhile must not give it away
        drawn = {e: self._draw(replace(request, seed=seed), route, e, shown_in=shown_in) for e in sorted(experts)}
        asked = request.voter or "me"
        return Comparison(generations=tuple(drawn[expert] for expert in experts), studio=self, voter=asked)

    def vote(
        self,
        best: Generation | str | Path,
        *others: Generation | str | Path,
        outcome: Outcome = "win",
        voter: str = "me",
    ) -> Vote:
        """Record which of several pictures of one prompt is best; the next route already knows.

        Args:
            best: The winner, as a result or as a file this package saved; with a tie, any of them.
            *others: The pictures it was compared with.
            outcome: `"win"`, `"tie"` or `"both_bad"`.
            voter: Who chose.

        Raises:
            PictureError: If a file does not say how it was drawn.
            VoteError: If the pictures cannot be compared.
        """
        pictures = [g if isinstance(g, Generation) else Generation.from_file(g) for g in (best, *others)]
        return self.preferences.record(as_vote(pictures, outcome=outcome, voter=voter))

    def rate(self, picture: Generation | str | Path, rating: float, *, voter: str = "me") -> Rating:
        """Record how good one picture is by itself.

        Args:
            picture: A result, or a file this package saved.
            rating: Higher is better, on a scale that you keep to.
            voter: Who rates.

        Raises:
            PictureError: If the file does not say how it was drawn.
            VoteError: If the rating is no finite number.
        """
        rated = picture if isinstance(picture, Generation) else Generation.from_file(picture)
        return self.preferences.record(as_rating(rated, rating, voter=voter))

    def bootstrap(
        self,
        judge: Judge | str,
        *,
        prompts: int | Sequence[str] = 20,
        expert: str | None = None,
        on_judged: OnJudged | None = None,
    ) -> Bootstrapped:
        """Give an expert a place in the ranking before the first vote: draw, let a judge rate, record the ratings.

        It is drawn beside the experts on this machine that most is known about. A rating by a judge counts for less
        than one by a person. Each is recorded at once; a run that was interrupted goes on where it stopped, because
        what the same judge has rated is not drawn again.

        Args:
            judge: A `Judge`, or the name of one that is installed.
            prompts: How many of the prompts of the package, or prompts of your own.
            expert: The new expert, pulled if need be; `None` for all on this machine that nobody has judged.
            on_judged: Told of each rating.

        Raises:
            JudgeError: If the judge is missing or its answer is unusable.
            VoteError: If there is no expert to judge, or none to draw beside it.
            PullError, LoadError, DrawError: If an expert cannot draw.
        """
        from diffusiongpt.bootstrap import bootstrap

        return bootstrap(self, judge, prompts, expert, on_judged)

    def undo_vote(self, voter: str = "me") -> Vote | Rating:
        """Take back the last vote or rating of a voter.

        Raises:
            VoteError: If there is none.
        """
        return self.preferences.store.undo(voter)

    def import_votes(
        self, path: str | Path, *, file_format: FileFormat | None = None, unknown: Unknown = "refuse"
    ) -> Imported:
        """Add the votes and ratings of a file, all or none; those the store has already stay as they are.

        Where the file does not say what a prompt is about, the local thinker reads the prompt.

        Args:
            path: A `.csv`, `.jsonl` or `prompt2scores.json` file.
            file_format: What it is; `None` asks its name.
            unknown: What becomes of votes for experts that the zoo does not have: `"refuse"` the file,
                `"keep"` or `"skip"` them.

        Raises:
            VoteError: If the file has a mistake, told with its row, or the store cannot be written.
        """
        from diffusiongpt.preferences.exchange import import_file

        nodes = tuple(self.zoo.taxonomy.nodes.values())
        return import_file(
            self.preferences.store,
            Path(path).expanduser(),
            file_format=file_format,
            experts=self.zoo,
            unknown=unknown,
            evidence_of=lambda prompt: self._local.think(prompt, (), nodes).understanding.evidence,
        )

    def redraw(self, generation: Generation) -> Generation:
        """Draw a result again; see `Generation.again`."""
        record = generation.records[0]
        zoo = self.zoo if record.drawn_by in self.zoo else Zoo.load(*_shipped(record.zoo))
        return replace(self.artist.redraw(generation, zoo), studio=self)

    def close(self) -> None:
        """Free the loaded experts and close the vote store."""
        self.cache.close()
        self.preferences.store.close()

    def __enter__(self) -> Self:
        """The studio itself; it is closed on leaving the block."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close."""
        self.close()

    def _generate(self, request: Request, route: Route) -> Generation:
        failures: list[DiffusionGPTError] = []
        for expert in route.order:
            fallbacks = tuple(map(fallback_of, route.order, failures))
            hub_is_down = any(isinstance(error, HubUnreachableError) for error in failures)
            try:
                self.artist.check_can_draw(self.zoo[expert], hub_is_down=hub_is_down)
                return self._draw(request, route, expert, fallbacks=fallbacks)
            except (PullError, LoadError, DrawError, NeedsExtraError) as error:
                # who asks for one expert wants no other, and nobody agreed to a pull that large
                if request.expert or isinstance(error, PullTooLargeError):
                    raise
                failures.append(error)
                log.info("%s cannot draw: %s", expert, error)
        return self._last_resort(request, route, failures)

    def _last_resort(self, request: Request, route: Route, failures: list[DiffusionGPTError]) -> Generation:
        """Draw with the tiny zoo that comes in the package: offline, there is still a picture.

        Only where the machine is to blame; what is wrong with the zoo should be told and not painted over.
        """
        fallbacks = [fallback_of(expert, error) for expert, error in zip(route.order, failures, strict=True)]
        if LAST_RESORT in self.zoo.sources or not any(isinstance(error, MACHINE) for error in failures):
            raise NoRouteError(
                f"none of {len(fallbacks)} candidates could draw",
                rejected=[(fallback.expert, fallback.error) for fallback in fallbacks],
                hint=fallbacks[0].hint,
            )
        tiny = Zoo.load(LAST_RESORT)
        stand_in = tiny[self._router(tiny, self._local).route(replace(request, explore=None)).expert]
        log.warning("no expert of %r can draw here; %s of the demonstration zoo does", self.zoo, stand_in.id)
        drawn = self.artist.draw(request, route, stand_in, zoo=tiny.sources, fallbacks=tuple(fallbacks))
        return replace(drawn, studio=self)

    def _draw(
        self,
        request: Request,
        route: Route,
        expert: str,
        *,
        fallbacks: tuple[Fallback, ...] = (),
        shown_in: ShownIn | None = None,
    ) -> Generation:
        drawn = self.artist.draw(
            request, route, self.zoo[expert], zoo=self.zoo.sources, fallbacks=fallbacks, shown_in=shown_in
        )
        return replace(drawn, studio=self)

    def _router(self, zoo: Zoo, thinker: Thinker) -> Router:
        embedder = self._local.embedder.name
        return Router(zoo, thinker, self.preferences, embedder=embedder, readiness=self.artist.readiness)


def _thinker(llm: str | BaseChatModel | None, local: LocalThinker) -> Thinker:
    if llm is None:
        return local
    from diffusiongpt.thinkers.llm import LLMThinker

    return LLMThinker(llm, local=local)


def fallback_of(expert: str, error: DiffusionGPTError) -> Fallback:
    """How a result tells that an expert could not draw."""
    return Fallback(expert=expert, error=str(error), hint=error.hint)


def _own_votes(settings: Settings) -> VoteStore:
    return VoteStore(settings.votes_place, make_folder=settings.votes is None)


def _announce(plan: PullPlan) -> None:
    log.warning("%s", plan)


def as_zoo(zoo: Zoo | ZooSource | Sequence[ZooSource]) -> Zoo:
    """The zoo that was meant: itself, one source, or several."""
    if isinstance(zoo, Zoo):
        return zoo
    return Zoo.load(zoo) if isinstance(zoo, str | Path) else Zoo.load(*zoo)


def _shipped(sources: Sequence[str]) -> list[str]:
    """The layers of a picture's zoo that come with the package; a stranger's file path means nothing here."""
    return [source for source in sources if source in SHIPPED]
