"""`DiffusionGPT`: the whole flow, from a prompt to a picture to a vote."""

from __future__ import annotations

import logging
import secrets
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, Unpack

from diffusiongpt.cache.cache import ModelCache
from diffusiongpt.drawing.local import OnProgress, Renderer
from diffusiongpt.drawing.machine import Machine
from diffusiongpt.drawing.painter import Artist, draw_with_candidates
from diffusiongpt.drawing.resolve import FRESH_SEED_BITS
from diffusiongpt.embedding.lexical import LexicalEmbedder
from diffusiongpt.embedding.sentence import SentenceEmbedder
from diffusiongpt.errors import (
    DiffusionGPTError,
    RequestError,
)
from diffusiongpt.flow.request import Options, Request, read_options
from diffusiongpt.flow.route import Route
from diffusiongpt.hub.plan import Agree, PullPlan
from diffusiongpt.hub.pull import Puller
from diffusiongpt.pictures.comparison import Comparison, as_rating, as_vote
from diffusiongpt.pictures.generation import Generation
from diffusiongpt.ranking.live import LiveTable
from diffusiongpt.routing.compare import choose_ballot, worth_showing
from diffusiongpt.routing.router import Router
from diffusiongpt.settings import Settings, load_settings
from diffusiongpt.understanding.local import LocalThinker
from diffusiongpt.understanding.thinker import Thinker
from diffusiongpt.votes.store import VoteStore
from diffusiongpt.votes.vote import Outcome, Rating, Vote
from diffusiongpt.zoo.file import SHIPPED, ZooSource
from diffusiongpt.zoo.zoo import Zoo

if TYPE_CHECKING:
    from langchain_core.language_models import BaseChatModel

    from diffusiongpt.drawing.queue import Ticket
    from diffusiongpt.judging import Bootstrapped, Judge, OnJudged
    from diffusiongpt.votes.exchange.exchange import FileFormat, Imported, Unknown
    from diffusiongpt.zoo.expert import Expert

log = logging.getLogger("diffusiongpt")


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
        self.preferences = LiveTable(votes if votes is not None else _own_votes(self.settings))
        puller = Puller(self.settings, on_pull=on_pull or _announce)
        self.cache = ModelCache(self.settings, puller=puller)
        self.machine = Machine(self.cache, self.settings, device or self.settings.device)
        self.renderer = Renderer(self.cache, self.machine, self.settings, agree=agree, on_progress=on_progress)
        self.artist = Artist(self.machine, self.renderer)
        self._local = LocalThinker(LexicalEmbedder(), SentenceEmbedder.on_disk(self.settings))
        self.router = self._router(self.zoo, _thinker(llm or self.settings.llm, self._local))

    def __repr__(self) -> str:
        """What it draws with, and where."""
        return f"<DiffusionGPT {self.zoo!r} on {self.machine.device}>"

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
        return self.draw_routed(replace(request, seed=route.seed), route)

    def generate_many(
        self, prompts: Iterable[str], *, return_exceptions: bool = False, **options: Unpack[Options]
    ) -> Iterator[Generation | DiffusionGPTError]:
        """Draw many prompts; while one is drawn, the experts of the next come into memory.

        A few prompts are read ahead and may be drawn in another order, so that fewer experts have to change places;
        the results come in the order of the prompts.

        Args:
            prompts: What to draw; read as needed.
            return_exceptions: Whether a prompt that fails gives its error in place of a result, and the rest go on;
                else it is raised at its place.
            **options: See `Options`; they hold for every prompt.

        Raises:
            RequestError: If a prompt or an argument makes no sense.
            NoRouteError: If no candidate can draw a prompt here.
        """
        from diffusiongpt.drawing.batch import draw_many

        if isinstance(prompts, str):
            raise RequestError("prompts are many, and this is one", hint="Pass a list, or call route_and_generate.")
        read_options("any prompt", options)
        return draw_many(self, prompts, options, return_exceptions=return_exceptions)

    @contextmanager
    def lease(self, expert: str) -> Iterator[Any]:
        """Hold an expert on the device, pulled and loaded if need be, to call its pipeline yourself.

        The pipeline shares weights with all others and has a scheduler of its own; nobody else draws on the device
        in the block, and what is set on the pipeline's modules is undone at its end.

        Example:
            with studio.lease("tiny-oil") as pipeline:
                image = pipeline("a red heart", num_inference_steps=8).images[0]

        Args:
            expert: Its id.

        Raises:
            UnknownExpertError: If the zoo has no such expert.
            PullError, LoadError: If it cannot be had.
        """
        with self.renderer.lease(self.zoo[expert]) as pipeline:
            yield pipeline

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
        able = [expert for expert in worth if self.machine.can_draw(self.zoo[expert])]
        experts, shown_in = choose_ballot(route, table, k, seed=seed, able=able)
        # not in the order shown: what is told of pulls meanwhile must not give it away
        seeded, layers = replace(request, seed=seed), self.zoo.sources
        drawn = {
            expert: self.artist.draw(seeded, route, self.zoo[expert], zoo=layers, shown_in=shown_in)
            for expert in sorted(experts)
        }
        shown = tuple(replace(drawn[expert], studio=self) for expert in experts)
        return Comparison(generations=shown, studio=self, voter=request.voter or "me")

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
        from diffusiongpt.judging import bootstrap

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
        from diffusiongpt.votes.exchange.exchange import import_file

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
        """Let nobody draw any more, free the loaded experts and close the vote store."""
        self.renderer.queue.close()
        self.cache.close()
        self.preferences.store.close()

    def __enter__(self) -> Self:
        """The studio itself; it is closed on leaving the block."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close."""
        self.close()

    def draw_routed(self, request: Request, route: Route, ticket: Ticket | None = None) -> Generation:
        """Draw with the first candidate of a route that can; who could not is told.

        Args:
            request: What was asked.
            route: The decision.
            ticket: Its place in the queue, if it has one.

        Raises:
            NoRouteError: If no candidate can draw here; it lists why.
            PullTooLargeError: If the chosen expert is larger than may be pulled without asking.
        """
        return replace(draw_with_candidates(self, request, route, ticket), studio=self)

    def stand_in(self, request: Request, zoo: ZooSource) -> tuple[Zoo, Expert]:
        """Another zoo, and who of it would draw a request, read locally."""
        other = Zoo.load(zoo)
        return other, other[self._router(other, self._local).route(request).expert]

    def _router(self, zoo: Zoo, thinker: Thinker) -> Router:
        embedder = self._local.embedder.name
        return Router(zoo, thinker, self.preferences, embedder=embedder, readiness=self.machine.readiness)


def _thinker(llm: str | BaseChatModel | None, local: LocalThinker) -> Thinker:
    if llm is None:
        return local
    from diffusiongpt.understanding.llm.thinker import LLMThinker

    return LLMThinker(llm, local=local)


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
