"""`DiffusionGPT`: the whole flow, from a prompt to a picture to a vote."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import replace
from functools import partial
from logging import INFO
from pathlib import Path
from textwrap import shorten
from typing import TYPE_CHECKING, Any, Self

from diffusiongpt.backends import is_hosted
from diffusiongpt.cache import ModelCache
from diffusiongpt.drawing import (
    Batch,
    Candidates,
    FleetExecutor,
    HostedExecutor,
    LocalExecutor,
    Machine,
    Others,
    Painter,
    Spending,
    draw_ballot,
)
from diffusiongpt.embedding import LexicalEmbedder, SentenceEmbedder
from diffusiongpt.errors import ContentPolicyError, DiffusionGPTError, RequestError, checks_names
from diffusiongpt.files import expand_home
from diffusiongpt.flow import Policy, Request, Route, ShownIn, fresh_seed, read_options
from diffusiongpt.hub import Agree, Puller, PullPlan
from diffusiongpt.pictures import Comparison, Generation, as_rating, as_vote
from diffusiongpt.ranking import LiveTable
from diffusiongpt.requester import OnProgress
from diffusiongpt.routing import Router, choose_ballot, worth_showing
from diffusiongpt.safe_text import logger
from diffusiongpt.safety import Asked
from diffusiongpt.settings import Settings, load_settings
from diffusiongpt.stopping import stoppable
from diffusiongpt.understanding import KindReader, LocalThinker, Thinker, Thought, TurnKind, TurnThinker
from diffusiongpt.votes import FEWEST_SHOWN, Outcome, Rating, Undo, Vote, VoteStore
from diffusiongpt.zoo import Zoo, ZooSource

if TYPE_CHECKING:
    import torch
    from langchain_core.language_models import BaseChatModel

    from diffusiongpt.conversation import Conversation
    from diffusiongpt.drawing import Executor, Replica
    from diffusiongpt.flow import Background, Explore, ImageSource, OnStepEnd, Prefer, SafetyLevel
    from diffusiongpt.judging import Bootstrapped, Judge, OnJudged
    from diffusiongpt.ranking import RankingTable
    from diffusiongpt.votes.exchange import FileFormat, Imported, Unknown
    from diffusiongpt.zoo import Expert

log = logger("diffusiongpt")


_LOGGED = 60
"""Characters of a prompt that are logged."""


class DiffusionGPT:
    """Routes, draws, compares and learns. Threads may share one studio.

    Args:
        zoo: A `Zoo`, a file, `"default"`, `"tiny"`, or several of them, later over earlier; `None` for the layers
            that the settings name.
        llm: LLM that reads prompts: `"provider:model"` as LangChain's `init_chat_model` takes it, or any
            `BaseChatModel`; `None` for the one in the settings. Without any, the local thinker reads.
        device: `"cuda"`, `"mps"` or `"cpu"`; `None` takes the best one present.
        votes: Where votes are kept: a file or a database URL; `None` for the user's own store.
        settings: All other settings; read from the environment if absent.
        agree: Asked about a pull above `max_download_gb`; without it such a pull is refused, and the next candidate
            draws.
        on_pull: Called with size, licence and free disk space before each pull; by default these are logged as a
            warning, which Python prints on stderr.
        on_progress: Called with the progress of a download, a load or a drawing.
        executor: Draws in place of this machine, such as a fleet; routes are then for the memory that the settings
            name.

    Attributes:
        settings: The settings in use.
        zoo: The experts.
        preferences: Votes, and the ranking table learnt from them.
        cache: Checkpoints on disk, in host memory and on devices.
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
        executor: Executor | None = None,
    ) -> None:
        self.settings = settings or load_settings()
        self.zoo = as_zoo(zoo if zoo is not None else self.settings.zoo_layers)
        if not isinstance(votes, VoteStore):
            votes = VoteStore.at(votes, self.settings)
        self.preferences = LiveTable(votes)
        puller = Puller(self.settings, on_pull=on_pull or _announce)
        self.cache = ModelCache(self.settings, puller=puller)
        self._asks = agree is not None
        self._machine = Machine(
            self.cache,
            self.settings,
            device or self.settings.device,
            elsewhere=executor is not None,
            kinds=executor.kinds if isinstance(executor, FleetExecutor) else None,
        )
        self._executor = executor
        self._local = LocalExecutor(self.cache, self._machine, self.settings, agree=agree, on_progress=on_progress)
        spending = Spending(self.settings)
        self._hosted = HostedExecutor(spending, on_progress)
        sentences = SentenceEmbedder.installed()
        self._reader = LocalThinker(LexicalEmbedder(), sentences)
        self._kinds = KindReader(sentences) if sentences else None
        self._thinker = TurnThinker(_thinker(llm or self.settings.llm, self._reader))
        self._router = self._make_router(self.zoo, self._thinker)
        self._painter = Painter(
            self.zoo,
            self._machine,
            local=self._local,
            elsewhere=executor,
            hosted=self._hosted,
            spending=spending,
            settings=self.settings,
        )
        others = Others(
            self._router.widen, self._router.with_cut_outs, self._stand_in if self.settings.stand_in else None
        )
        self._candidates = Candidates(self.zoo, self._machine, self._painter, self._local.queue, others)

    def __repr__(self) -> str:
        """What it draws with, and where."""
        return f"<DiffusionGPT {self.zoo!r} on {self.device}>"

    @property
    def device(self) -> str:
        """Device that it draws on."""
        return self._machine.device

    @checks_names
    def route(
        self,
        prompt: str,
        *,
        negative_prompt: str | None = None,
        image: ImageSource | Sequence[ImageSource] | None = (),
        mask_image: ImageSource | None = None,
        control_image: ImageSource | None = None,
        strength: float | None = None,
        width: int | None = None,
        height: int | None = None,
        background: Background = "auto",
        num_inference_steps: int | None = None,
        guidance_scale: float | None = None,
        num_images_per_prompt: int = 1,
        seed: int | None = None,
        generator: torch.Generator | None = None,
        callback_on_step_end: OnStepEnd | None = None,
        expert: str | None = None,
        experts: Sequence[str] | None = None,
        rewrite: bool = True,
        explore: Explore | None = None,
        voter: str | None = "me",
        timeout: float | None = None,
        memory: str | None = None,
        prefer: Prefer = "quality",
        prefer_mine: bool = False,
        commercial_use: bool = False,
        local_only: bool = False,
        max_price: float = 0.0,
        max_wait: float | None = None,
        safety: SafetyLevel = "standard",
    ) -> Route:
        """Choose an expert for a prompt; loads nothing and touches no network.

        The arguments are those of `route_and_generate`.

        Raises:
            RequestError: If the prompt or an argument cannot be used.
            ContentPolicyError: If the content policy does not allow the prompt.
            NoRouteError: If every expert is rejected.
        """
        given = locals()
        with _failure_noted():
            route = self._route(*_read(given))
        if log.isEnabledFor(INFO):
            log.info("%s is to draw %s, decided in %.0f ms", route.expert, _named(route), route.timings_ms["total"])
        return route

    @checks_names
    def route_and_generate(
        self,
        prompt: str,
        *,
        negative_prompt: str | None = None,
        image: ImageSource | Sequence[ImageSource] | None = (),
        mask_image: ImageSource | None = None,
        control_image: ImageSource | None = None,
        strength: float | None = None,
        width: int | None = None,
        height: int | None = None,
        background: Background = "auto",
        num_inference_steps: int | None = None,
        guidance_scale: float | None = None,
        num_images_per_prompt: int = 1,
        seed: int | None = None,
        generator: torch.Generator | None = None,
        callback_on_step_end: OnStepEnd | None = None,
        expert: str | None = None,
        experts: Sequence[str] | None = None,
        rewrite: bool = True,
        explore: Explore | None = None,
        voter: str | None = "me",
        timeout: float | None = None,
        memory: str | None = None,
        prefer: Prefer = "quality",
        prefer_mine: bool = False,
        commercial_use: bool = False,
        local_only: bool = False,
        max_price: float = 0.0,
        max_wait: float | None = None,
        safety: SafetyLevel = "standard",
    ) -> Generation:
        """Choose an expert, pull and load it if need be, and draw.

        If it cannot draw, the next candidate does, and the result says so; an expert asked for by name has
        no stand-in. Arguments that are `None` are left to the prompt and the expert.

        Args:
            prompt: What to draw, in any language.
            negative_prompt: What must not be in the picture.
            image: Picture to start from or to change, or several to take things from: a path, the bytes of a file, a
                PIL image, a `Generation`, or a list of them.
            mask_image: What of the picture is painted: white, or transparent. All other pixels stay as they are.
            control_image: Picture whose outlines, depth or poses are followed, by an expert of `kind: control`.
            strength: How far to go from the picture, from 0.01, hardly, to 1, as if it were not there; with it the
                picture is a starting point and never an order to change something.
            width: Width in pixels.
            height: Height in pixels.
            background: `transparent` or `opaque`, whatever the prompt says; `auto` goes by the prompt.
            num_inference_steps: Denoising steps.
            guidance_scale: Guidance scale, as the chosen expert's pipeline understands it.
            num_images_per_prompt: Pictures to draw; picture `i` is that of `seed + i` alone.
            seed: Seed of the first picture; without one, a fresh seed is drawn and recorded.
            generator: A `torch.Generator` in place of `seed`; the seed it was made with is used and recorded.
            callback_on_step_end: Called by the pipeline after each step, in diffusers' shape.
            expert: Id of the expert that draws; no other one stands in for it.
            experts: Ids of the experts to choose from; by default all that may draw.
            rewrite: Give the expert the prompt in the form that it likes, with its trigger words and negative prompt;
                `False` gives it what was typed and nothing else.
            explore: `"thompson"` picks the best expert of one posterior sample, by the seed; `None` picks the best
                on average.
            voter: Voter whose preferences count; `None` for the table that all voters share.
            timeout: Seconds after which the request ends with an error, within one step; `None` for any time.
            memory: Memory of the machine to plan for: `"24GB"`, `"24GB+64GB"` (device and host), `"cpu"`, or `"any"`;
                `None` plans for the settings' memory, else for this machine.
            prefer: `"quality"` ignores time and price; `"fast"` also weighs the seconds, with download and loading, and
                `"cheap"` the price; in the parts of a score these are `time` and `price`.
            prefer_mine: Prefer the experts of your own zoo files where they are nearly as good; in the parts of a score
                that is `mine`.
            commercial_use: Use only experts whose licence allows commercial use.
            local_only: Use only experts that run on this machine.
            max_price: Highest price of a picture in US dollars; a hosted expert of unknown price needs `math.inf`.
            max_wait: Most seconds that a picture may be expected to take, with download and loading; `None` for any
                time. An expert that takes an unknown time needs `math.inf`.
            safety: What is refused: `"standard"` what a public service must not draw, `"strict"` nudity and gore as
                well, `"off"` nothing. A stricter level in the settings holds.

        Raises:
            RequestError: If the prompt or an argument cannot be used.
            ContentPolicyError: If the content policy does not allow the prompt, or a picture that was drawn.
            NoRouteError: If no candidate can draw here; it lists the reasons.
            PullTooLargeError: If no candidate can draw here that may be pulled without asking.
        """
        request, policy = _read(locals())
        with stoppable(timeout_s=request.timeout), _failure_noted():
            generation = self._candidates.draw(*self._plan(request, policy), policy=policy)
        _note(generation)
        return generation

    @checks_names
    def generate_many(  # noqa: D417  # the others are described at route_and_generate
        self,
        prompts: Iterable[str],
        *,
        return_exceptions: bool = False,
        negative_prompt: str | None = None,
        image: ImageSource | Sequence[ImageSource] | None = (),
        mask_image: ImageSource | None = None,
        control_image: ImageSource | None = None,
        strength: float | None = None,
        width: int | None = None,
        height: int | None = None,
        background: Background = "auto",
        num_inference_steps: int | None = None,
        guidance_scale: float | None = None,
        num_images_per_prompt: int = 1,
        seed: int | None = None,
        generator: torch.Generator | None = None,
        callback_on_step_end: OnStepEnd | None = None,
        expert: str | None = None,
        experts: Sequence[str] | None = None,
        rewrite: bool = True,
        explore: Explore | None = None,
        voter: str | None = "me",
        timeout: float | None = None,
        memory: str | None = None,
        prefer: Prefer = "quality",
        prefer_mine: bool = False,
        commercial_use: bool = False,
        local_only: bool = False,
        max_price: float = 0.0,
        max_wait: float | None = None,
        safety: SafetyLevel = "standard",
    ) -> Iterator[Generation | DiffusionGPTError]:
        """Draw many prompts; while one is drawn, the experts of the next come into memory.

        A few prompts are read ahead and may be drawn in another order, so that fewer experts have to change places;
        the results come in the order of the prompts. The other arguments are those of `route_and_generate` and hold
        for every prompt.

        Args:
            prompts: What to draw; read as needed.
            return_exceptions: Whether a prompt that fails yields its error in place of a result, and the rest go on;
                otherwise it is raised at its place.

        Raises:
            RequestError: If a prompt or an argument cannot be used.
            NoRouteError: If no candidate can draw a prompt here.
        """
        options = {name: value for name, value in locals().items() if name not in ("prompts", "return_exceptions")}
        if isinstance(prompts, str):
            raise RequestError("prompts is a single string", hint="Pass a list, or call route_and_generate.")
        _, policy = _read({**options, "prompt": "any prompt"})

        def plan(prompt: str) -> tuple[Request, Route]:
            return self._plan(*_read({**options, "prompt": prompt}))

        draw = partial(self._candidates.draw, policy=policy)
        batch = Batch(self.zoo, self._machine, self._local, draw, plan, _note)
        return batch.draw(prompts, return_exceptions=return_exceptions)

    def pull(self, expert: str) -> Path:
        """Bring the files of an expert to the disk, whether or not it could draw here, and return their folder.

        Raises:
            UnknownExpertError: If the zoo has no such expert.
            PullError: If they could not be pulled.
            LoadError: If it is hosted, so that there is nothing to pull.
        """
        return self._local.fetch(self.zoo[expert], fitting=False).folder

    def read(self, prompt: str) -> Thought:
        """What the local thinker makes of a text, without a route and without an LLM."""
        return self._reader.think(prompt, (), tuple(self.zoo.taxonomy.nodes.values()))

    def reading(self, turn: str, earlier: Sequence[str]) -> AbstractContextManager[TurnKind | None]:
        """Read a turn of a conversation, with the LLM if there is one, in the single call of all routes in the block.

        A turn that the content policy does not allow is left to the local rule: a refusal costs no LLM. Whether what
        it leads to is refused, by the level that was asked for, is for the routes.

        Args:
            turn: What the person typed.
            earlier: Descriptions of the pictures before it, oldest first.

        Returns:
            A context that gives what an LLM thinks that the turn asks for; `None` without one.
        """
        try:
            self._painter.guard.check_prompt(Asked(prompt=turn), "standard")
        except ContentPolicyError:
            return nullcontext()
        return self._thinker.turn(turn, earlier, tuple(self.zoo.taxonomy.nodes.values()))

    def conversation(self) -> Conversation:
        """Begin a conversation, in which later turns change, vary or ask about the pictures of earlier ones.

        Example:
            talk = studio.conversation()
            talk.say("a red heart on a white background")
            talk.say("but blue").generation.save("heart.png")
        """
        from diffusiongpt.conversation import Conversation

        return Conversation(self)

    @contextmanager
    def lease(self, expert: str) -> Iterator[Any]:
        """Hold an expert on the device, pulled and loaded if need be, to call its pipeline yourself.

        The pipeline shares weights with all others and has a scheduler of its own; nothing else draws on the device
        in the block, and what is set on the pipeline's modules is undone at its end.

        Example:
            with studio.lease("tiny-oil") as pipeline:
                image = pipeline("a red heart", num_inference_steps=8).images[0]

        Args:
            expert: Id of the expert.

        Raises:
            UnknownExpertError: If the zoo has no such expert.
            PullError, LoadError: If it could not be pulled or loaded.
        """
        with self._local.lease(self.zoo[expert]) as pipeline:
            yield pipeline

    @checks_names
    def compare(  # noqa: D417  # the others are described at route_and_generate
        self,
        prompt: str,
        k: int | None = None,
        *,
        negative_prompt: str | None = None,
        image: ImageSource | Sequence[ImageSource] | None = (),
        mask_image: ImageSource | None = None,
        control_image: ImageSource | None = None,
        strength: float | None = None,
        width: int | None = None,
        height: int | None = None,
        background: Background = "auto",
        num_inference_steps: int | None = None,
        guidance_scale: float | None = None,
        num_images_per_prompt: int = 1,
        seed: int | None = None,
        generator: torch.Generator | None = None,
        callback_on_step_end: OnStepEnd | None = None,
        expert: str | None = None,
        experts: Sequence[str] | None = None,
        rewrite: bool = True,
        explore: Explore | None = None,
        voter: str | None = "me",
        timeout: float | None = None,
        memory: str | None = None,
        prefer: Prefer = "quality",
        prefer_mine: bool = False,
        commercial_use: bool = False,
        local_only: bool = False,
        max_price: float = 0.0,
        max_wait: float | None = None,
        safety: SafetyLevel = "standard",
    ) -> Comparison:
        """Draw a prompt with the expert that a route picks and those from which a vote teaches most, in blind order.

        All draw with one seed. Experts at hand come before those that would have to be pulled, which are taken up to
        `max_download_gb`; one that cannot draw after all makes room for another. The other arguments are those of
        `route_and_generate`. With a `seed`, the same experts are chosen again; `voter` is the person who will be
        asked; `explore` changes nothing, because comparing explores.

        Args:
            prompt: What to draw, in any language.
            k: How many experts to compare, at least two; two if absent, or as many as `experts` names.
            experts: Ids of the experts to compare; none is replaced if it cannot draw.
            expert: Id of an expert to compare in place of the one that the route picks.
            num_images_per_prompt: Pictures of each expert; the vote is for an expert by all of them.

        Raises:
            RequestError: If the prompt or an argument cannot be used.
            NoRouteError: If an expert that was named may not draw the prompt.
            VoteError: If fewer than `k` experts may draw the prompt.
            PullError, LoadError, DrawError: If too few experts are left because one could not draw after all.
        """
        request, policy = _read({name: value for name, value in locals().items() if name != "k"})
        seed = fresh_seed() if request.seed is None else request.seed
        # the experts to compare are chosen to teach, which is exploring already
        request = request.model_copy(update={"explore": None, "seed": seed})
        for one in request.named:
            self._route(request.model_copy(update={"expert": one}), policy)  # refuses what may not draw
        leader, request = request.expert, request.model_copy(update={"expert": None})
        route = self._route(request, policy)
        if leader is None and self._asks:
            leader = route.expert
        table = self._router.table_of(request.voter)
        eligible = self._router.may_draw(request, route.understanding, policy)
        shown = worth_showing(route, table, eligible, seed=seed)
        able = [
            one for one in dict.fromkeys((*filter(None, [leader]), *shown)) if self._machine.can_draw(self.zoo[one])
        ]

        def choose(left: Sequence[str]) -> tuple[tuple[str, ...], ShownIn]:
            return choose_ballot(
                route,
                table,
                k or len(request.experts or ()) or FEWEST_SHOWN,
                seed=seed,
                able=left,
                leader=leader,
                downloads=downloads,
                limit=self.settings.max_download_gb * 1e9,
            )

        downloads = {} if request.experts else {one: self._machine.download_bytes(self.zoo[one]) for one in able}
        run = self._painter.run(policy.max_price)
        with stoppable(timeout_s=request.timeout), _failure_noted():
            generations = draw_ballot(
                able,
                choose,
                lambda one: self._painter.draw_with(self.zoo[one], request, route, run=run, safety=policy.safety),
                at_hand=lambda one: not self._machine.download_bytes(self.zoo[one]),
                replaces=not request.experts,
            )
        # without the experts: whoever is asked to vote may see it
        log.info("%d experts drew %s, seed %d, to be compared", len(generations), _named(route), seed)
        return Comparison(generations=generations, votes=self.preferences.store, voter=request.voter or "me")

    def vote(
        self,
        best: Generation | str | Path,
        *others: Generation | str | Path,
        outcome: Outcome = "win",
        voter: str = "me",
        seconds: float | None = None,
    ) -> Vote:
        """Record which of several pictures of one prompt is best; the next route already uses it.

        Where a database server cannot be reached, it waits on this machine; `preferences.store.is_queued` says so.

        Args:
            best: The winner, as a result or as a file this package saved; with a tie, any of them.
            *others: The pictures it was compared with.
            outcome: `"win"`, `"tie"` or `"both_bad"`.
            voter: The person who chose.
            seconds: Seconds that the choice took, if they were measured.

        Raises:
            PictureError: If a file does not say how it was drawn.
            VoteError: If the pictures cannot be compared, or the seconds are out of range.
        """
        pictures = [one if isinstance(one, Generation) else Generation.without_pixels(one) for one in (best, *others)]
        return self.preferences.record(as_vote(pictures, outcome=outcome, voter=voter, seconds=seconds))

    def rate(self, picture: Generation | str | Path, rating: float, *, voter: str = "me") -> Rating:
        """Record how good one picture is by itself.

        Args:
            picture: A result, or a file this package saved.
            rating: Higher is better, on a scale that the voter keeps to.
            voter: The person who rates.

        Raises:
            PictureError: If the file does not say how it was drawn.
            VoteError: If the rating is not a finite number.
        """
        rated = picture if isinstance(picture, Generation) else Generation.without_pixels(picture)
        return self.preferences.record(as_rating(rated, rating, voter=voter))

    def undo_vote(self, voter: str = "me") -> Vote | Rating | Undo:
        """Take back the last vote or rating of a voter.

        Returns:
            What was taken back; an `Undo` where that waits for a database server, and which it is is not known here.

        Raises:
            VoteError: If there is none.
        """
        return self.preferences.store.undo(voter)

    def import_votes(
        self,
        path: str | Path,
        *,
        file_format: FileFormat | None = None,
        unknown: Unknown = "refuse",
        rename: Callable[[str], str | None] | None = None,
    ) -> Imported:
        """Add the votes and ratings of a file, all or none; those that the store has already stay as they are.

        Where the file does not say what a prompt is about, the local thinker reads the prompt.

        Args:
            path: A `.csv`, `.jsonl` or `prompt2scores.json` file.
            file_format: Format of the file; `None` goes by its name.
            unknown: What to do with votes for experts that the zoo does not have: `"refuse"` the file,
                `"keep"` or `"skip"` them.
            rename: Finds the id of the expert that a rating of the file means by another name; `None` keeps the name.

        Raises:
            VoteError: If the file has a mistake, reported with its row, or the store cannot be written.
        """
        from diffusiongpt.votes.exchange import import_file

        return import_file(
            self.preferences.store,
            expand_home(path),
            file_format=file_format,
            experts=self.zoo,
            unknown=unknown,
            evidence_of=lambda prompt: self.read(prompt).understanding.evidence,
            rename=rename,
        )

    def ranking(self) -> RankingTable:
        """The ranking table for the votes there are now.

        Raises:
            VoteError: If the store cannot be read.
        """
        return self._router.table()

    def ranking_at_hand(self) -> RankingTable:
        """The ranking table that a route would use now, also while the votes cannot be read."""
        return self._router.table_of(None).table

    def at_hand(self) -> tuple[str, ...]:
        """Ids of the experts that can draw here without a download, in zoo order."""
        return tuple(
            one.id
            for one in self.zoo.values()
            if not is_hosted(one.backend)
            and self._machine.readiness(one) in ("loaded", "on_disk")
            and self._machine.can_draw(one)
        )

    def replicas(self) -> tuple[Replica, ...]:
        """The replicas of the fleet that draws in place of this machine; empty where this machine draws."""
        return tuple(self._executor.replicas()) if isinstance(self._executor, FleetExecutor) else ()

    def bootstrap(
        self,
        judge: Judge | str,
        *,
        prompts: int | Sequence[str] = 20,
        expert: str | None = None,
        on_judged: OnJudged | None = None,
    ) -> Bootstrapped:
        """Give an expert a place in the ranking before the first vote: draw, let a judge rate, record the ratings.

        The expert draws the same prompts as the experts on this machine that most is known about. A rating by a
        judge counts for less than one by a person. Each is recorded at once; a run that was interrupted goes on
        where it stopped, because what the same judge has rated is not drawn again.

        Args:
            judge: A `Judge`, or the name of one that is installed.
            prompts: How many of the prompts of the package, or prompts of your own.
            expert: Id of the new expert, pulled if need be; `None` for all experts on this machine that have neither
                votes nor ratings.
            on_judged: Called with each rating.

        Raises:
            JudgeError: If the judge is missing or its answer is unusable.
            VoteError: If there is no expert to judge, or none to compare it with.
            PullError, LoadError, DrawError: If an expert cannot draw.
        """
        from diffusiongpt.judging import bootstrap

        return bootstrap(self, judge, prompts, expert, on_judged)

    def redraw(self, generation: Generation) -> Generation:
        """Draw a result again; see `Generation.again`."""
        return self._painter.redraw(generation)

    def close(self) -> None:
        """Refuse new drawings, free the loaded experts and close the vote store."""
        self._local.queue.close()
        self._hosted.close()
        self.cache.close()
        self.preferences.store.close()

    def __enter__(self) -> Self:
        """The studio itself; it is closed on leaving the block."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close."""
        self.close()

    def _plan(self, request: Request, policy: Policy) -> tuple[Request, Route]:
        """Route a request; the request returned has the seed that the route was made with."""
        route = self._route(request, policy)
        return request.model_copy(update={"seed": route.seed}), route

    def _route(self, request: Request, policy: Policy) -> Route:
        """Choose an expert for a request that the content policy allows; a refusal costs neither an LLM nor a model."""
        asked = Asked.of(request)
        self._painter.guard.check_prompt(asked, policy.safety)
        route = self._router.route(request, policy)
        if route.understanding.rewritten and request.rewrite:
            # the words of an LLM are held to the same policy as those of the caller
            self._painter.guard.check_prompt(replace(asked, prompt=route.understanding.rewritten), policy.safety)
        return route

    def _stand_in(self, request: Request, zoo: str) -> tuple[Zoo, Expert]:
        """Another zoo, and the expert in it that draws a request as the local thinker reads it."""
        other = Zoo.load(zoo)
        return other, other[self._make_router(other, self._reader).route(request).expert]

    def _make_router(self, zoo: Zoo, thinker: Thinker) -> Router:
        embedder = self._reader.embedder.name
        machine = self._machine
        return Router(
            zoo,
            thinker,
            self.preferences,
            embedder=embedder,
            readiness=machine.readiness,
            planner=machine.planner,
            kinds=self._kinds,
            free=self.settings.free,
        )


def _read(given: dict[str, Any]) -> tuple[Request, Policy]:
    """The arguments of a method as it was called: its `locals()` at the first line."""
    return read_options({name: value for name, value in given.items() if name != "self"})


def _thinker(llm: str | BaseChatModel | None, local: LocalThinker) -> Thinker:
    if llm is None:
        return local
    from diffusiongpt.understanding.llm import LLMThinker

    return LLMThinker(llm, local=local)


def _note(generation: Generation) -> None:
    """The one line of a request in the log."""
    took = {name: seconds for name, seconds in generation.timings.items() if seconds >= 0.05}
    log.info(
        "%s drew %s, seed %d%s, in %.1f s (%s)",
        generation.drawn_by,
        _named(generation.route),
        generation.seeds[0],
        f" and {len(generation.seeds) - 1} more" if len(generation.seeds) > 1 else "",
        sum(generation.timings.values()),
        ", ".join(f"{name} {seconds:.1f}" for name, seconds in took.items()),
    )


def _named(route: Route) -> str:
    return repr(shorten(route.input, _LOGGED, placeholder=" ..."))


@contextmanager
def _failure_noted() -> Iterator[None]:
    """The same for a request that fails."""
    try:
        yield
    except DiffusionGPTError as error:
        log.info("a request failed: %s: %s", type(error).__name__, error)
        raise


def _announce(plan: PullPlan) -> None:
    log.warning("%s", plan)


def as_zoo(zoo: Zoo | ZooSource | Sequence[ZooSource]) -> Zoo:
    """The zoo that was meant: itself, one source, or several."""
    if isinstance(zoo, Zoo):
        return zoo
    return Zoo.load(zoo) if isinstance(zoo, str | Path) else Zoo.load(*zoo)
