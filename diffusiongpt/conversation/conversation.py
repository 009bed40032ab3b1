"""The conversation: reads a turn, and has it drawn."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from diffusiongpt.conversation import replies
from diffusiongpt.conversation.answers import answer
from diffusiongpt.conversation.files import Saved, read_turns, write_turns
from diffusiongpt.conversation.turn import MAX_TURNS, Turn, kept
from diffusiongpt.errors import ConversationError
from diffusiongpt.files import expand_home
from diffusiongpt.flow import InputImage, check_prompt, fresh_seed, read_images
from diffusiongpt.understanding import FollowUp, Shown, Thought, TurnKind, read_follow_up

if TYPE_CHECKING:
    from diffusiongpt.flow import ImageSource, Route
    from diffusiongpt.pictures import Generation


_SIZE = ("width", "height")
"""Arguments that a size or a shape in the text of a turn comes before, where an earlier turn had them."""


class Draws(Protocol):
    """What a conversation needs of a studio."""

    @property
    def route(self) -> Callable[..., Route]:
        """See `DiffusionGPT.route`."""
        ...

    @property
    def route_and_generate(self) -> Callable[..., Generation]:
        """See `DiffusionGPT.route_and_generate`."""
        ...

    def read(self, prompt: str) -> Thought:
        """See `DiffusionGPT.read`."""
        ...

    def reading(self, turn: str, earlier: Sequence[str]) -> AbstractContextManager[TurnKind | None]:
        """See `DiffusionGPT.reading`."""
        ...


class Conversation:
    """Many turns, each of which may speak of the pictures before it.

    Make one with `DiffusionGPT.conversation()`.

    Example:
        talk = studio.conversation()
        talk.say("a red heart on a white background")
        talk.say("but blue")
        print(talk.turns[-1].reply)

    Args:
        studio: Draws the pictures.
        turns: Turns to go on from.
    """

    def __init__(self, studio: Draws, turns: Sequence[Turn] = ()) -> None:
        self._studio = studio
        self._turns = list(turns)
        self._saved: Saved | None = None

    def __repr__(self) -> str:
        """How many turns there were, and how it began."""
        begin = f": {self._turns[0].text[:40]!r}" if self._turns else ""
        return f"<Conversation of {len(self._turns)} turns{begin}>"

    @property
    def turns(self) -> tuple[Turn, ...]:
        """The turns so far."""
        return tuple(self._turns)

    def say(self, text: str, image: ImageSource | Sequence[ImageSource] | None = None, **options: Any) -> Turn:
        """Say the next thing.

        A new picture is routed and drawn. A variation has the same description and another seed, and as many pictures
        as the text says. A refinement keeps the seed, and the expert unless a style is named, and draws the changed
        description; where it only says which picture is meant ("the second one", "undo"), nothing is drawn, and the
        next turn goes on from that picture. An edit goes to an expert that changes pictures by instruction, with the
        picture; where none may draw, the changed description is drawn, and the reply says so. With a mask and no
        picture, what it marks in the picture that the turn speaks of is drawn again. A question is answered from what
        is known of the picture; so is a turn that speaks of a picture that was never drawn.

        Args:
            text: What the person says.
            image: Pictures that go in; the turn then speaks of them.
            **options: Arguments of `route_and_generate`, which later turns keep.

        Raises:
            RequestError: If the text or an argument cannot be used.
            ConversationError: If the conversation is too long.
            NoRouteError: If no candidate can draw.
        """
        check_prompt(text)
        if len(self._turns) >= MAX_TURNS:
            raise ConversationError(f"the conversation has {MAX_TURNS} turns", hint="Begin a new one.")
        given = read_images(image)
        spoken = [index for index, turn in enumerate(self._turns) if turn.generation is not None and not turn.chosen]
        if given:
            turn = self._new(text, given, options)
        elif not spoken:
            turn = self._next(text, (), options)
        else:
            with self._studio.reading(text, [self._turns[index].description for index in spoken]) as guess:
                turn = self._next(text, spoken, options, guess)
        self._turns.append(turn)
        return turn

    def undo(self) -> Turn:
        """Take back the last turn, and return it; its pictures stay where they were saved.

        Raises:
            ConversationError: If nothing was said yet.
        """
        if not self._turns:
            raise ConversationError("nothing was said yet", hint="Say something first.")
        turn = self._turns.pop()
        if self._saved:
            # a later turn may have its `id`, and must not be saved with its pictures
            paths = {one: paths for one, paths in self._saved.paths.items() if one != id(turn)}
            self._saved = replace(self._saved, paths=paths)
        return turn

    def branch(self, turn: Turn | int) -> Conversation:
        """Another conversation that goes on after a turn of this one.

        Raises:
            ConversationError: If the turn is not of this conversation.
        """
        index = turn if isinstance(turn, int) else next((i for i, one in enumerate(self._turns) if one is turn), None)
        if index is None or not -len(self._turns) <= index < len(self._turns):
            which = f"turn {turn.text[:40]!r}" if isinstance(turn, Turn) else repr(turn)
            raise ConversationError(f"{which} is not of this conversation", hint="Pass one of `.turns`.")
        return Conversation(self._studio, self._turns[: index % len(self._turns) + 1])

    def _next(
        self, text: str, spoken: Sequence[int], options: Mapping[str, Any], guess: TurnKind | None = None
    ) -> Turn:
        shown = [
            Shown(description=self._turns[index].description, pictures=len(_pictures(self._turns[index]).images))
            for index in spoken
        ]
        names_style = bool(self._studio.read(text).understanding.styles)
        current = self._current(spoken)
        follow = read_follow_up(
            text,
            shown,
            names_style=names_style,
            restyle=self._restyle,
            guess=guess,
            current=current,
            came_from=self._came_from(spoken, current),
        )
        if follow.missing:
            reply = replies.missing(text, follow.missing, [one.pictures for one in shown])
            return Turn(text=text, kind="question", reply=reply)
        if follow.kind == "question":
            return self._answered(text, follow, spoken)
        if spoken and options.get("mask_image") is not None:
            return self._painted(text, follow, spoken, options)
        if follow.turn is None:
            return self._new(follow.description or text, (), options, text=text)
        index = spoken[follow.turn]
        if follow.chosen and _without_news(options, self._turns[index].options):
            return self._chosen(text, follow, index)
        return self._changed(text, follow, index, options)

    def _answered(self, text: str, follow: FollowUp, spoken: Sequence[int]) -> Turn:
        if follow.turn is None:
            return Turn(text=text, kind="question", reply=answer(text, None))
        index = spoken[follow.turn]
        reply = answer(text, _pictures(self._turns[index]).only(follow.picture), chosen=self._choice(index))
        return Turn(text=text, kind="question", refers_to=index, picture=follow.picture, reply=reply)

    def _current(self, spoken: Sequence[int]) -> tuple[int, int] | None:
        """Place among `spoken`, and the picture, that a turn means without a word: what was chosen or drawn last."""
        last = next((turn for turn in reversed(self._turns) if turn.generation is not None), None)
        if last is None or not last.chosen or last.refers_to is None:
            return None
        return spoken.index(last.refers_to), last.picture

    def _came_from(self, spoken: Sequence[int], current: tuple[int, int] | None) -> tuple[int, int] | None:
        """Place among `spoken`, and the picture, that a turn changed; `None` for a new picture."""
        turn = self._turns[spoken[-1 if current is None else current[0]]] if spoken else None
        if turn is None or turn.refers_to not in spoken:
            return None
        return spoken.index(turn.refers_to), turn.picture

    def _chosen(self, text: str, follow: FollowUp, index: int) -> Turn:
        """An earlier picture, which the next turn goes on from."""
        before = self._turns[index]
        return Turn(
            text=text,
            kind="refine",
            refers_to=index,
            picture=follow.picture,
            description=before.description,
            generation=_pictures(before).only(follow.picture),
            reply=replies.chosen(text, index, follow.picture, len(_pictures(before).images)),
            options=before.options,
            chosen=True,
        )

    def _choice(self, index: int) -> Route:
        """The route by which the expert of a turn was chosen; later turns may have kept that expert."""
        route = _pictures(self._turns[index]).route
        before = self._turns[index].refers_to
        return self._choice(before) if before is not None and len(route.candidates) == 1 else route

    def _new(
        self, description: str, image: tuple[InputImage, ...], options: Mapping[str, Any], *, text: str = ""
    ) -> Turn:
        generation = self._studio.route_and_generate(description, **({"image": image} if image else {}), **options)
        kind: TurnKind = "edit" if generation.route.task in ("edit", "inpaint") else "new"
        reply = replies.drawn(text or description, generation)
        return Turn(
            text=text or description,
            kind=kind,
            description=description,
            generation=generation,
            reply=reply,
            options=kept(options),
        )

    def _painted(self, text: str, follow: FollowUp, spoken: Sequence[int], options: Mapping[str, Any]) -> Turn:
        """A part of an earlier picture, where the mask of the turn says, drawn as the turn describes it."""
        index = spoken[-1 if follow.turn is None else follow.turn]
        before, earlier = self._turns[index], _pictures(self._turns[index])
        seed = fresh_seed() if follow.kind == "variation" else earlier.seeds[follow.picture]
        wanted = {"seed": seed, **before.options, **options}
        description = follow.description or text
        # a mask is commonly made over the last picture, while the words may name another
        meant = index == spoken[-1] and follow.picture == 0
        where = None if meant else (follow.picture, index)
        generation = self._studio.route_and_generate(description, **wanted, image=earlier.images[follow.picture])
        return Turn(
            text=text,
            kind="edit",
            refers_to=index,
            picture=follow.picture,
            description=description,
            generation=generation,
            reply=replies.painted(text, generation, where),
            options={**before.options, **kept(options)},
        )

    def _changed(self, text: str, follow: FollowUp, index: int, options: Mapping[str, Any]) -> Turn:
        """A variation, a refinement or an edit of an earlier picture."""
        before = self._turns[index]
        earlier = _pictures(before)
        pictures = {"num_images_per_prompt": follow.pictures} if follow.pictures else {}
        overruled = _SIZE if self._names_size(text) else ()
        wanted = {name: value for name, value in before.options.items() if name not in overruled} | pictures
        kept_on = {**wanted, **kept(options)}
        wanted |= options
        seed = earlier.seeds[follow.picture]
        if follow.kind == "variation":
            wanted = {"seed": fresh_seed(), **_same_expert(earlier), **wanted}
            generation = self._studio.route_and_generate(follow.description, **wanted)
            reply = replies.another(text, generation)
        elif follow.kind == "edit" and (edited := self._edited(follow, earlier, {"seed": seed, **wanted})):
            generation, reply = edited, replies.edited(text, edited)
        else:
            generation = self._redrawn(follow.description, earlier, {"seed": seed, **wanted})
            reply = replies.drawn(text, generation)
            if follow.kind == "edit":
                reply = replies.no_editor(text, follow.description, generation)
        return Turn(
            text=text,
            kind=follow.kind,
            refers_to=index,
            picture=follow.picture,
            description=follow.description,
            generation=generation,
            reply=reply,
            options=kept_on,
        )

    def _names_size(self, text: str) -> bool:
        read = self._studio.read(text).understanding
        return read.aspect_ratio is not None or read.width is not None

    def _edited(self, follow: FollowUp, earlier: Generation, options: Mapping[str, Any]) -> Generation | None:
        """The picture changed by an expert that edits; `None` if none may draw."""
        order = {**options, "image": earlier.images[follow.picture]}
        if self._studio.route(follow.order, **order).task != "edit":
            return None
        return self._studio.route_and_generate(follow.order, **order)

    def _redrawn(self, description: str, earlier: Generation, options: Mapping[str, Any]) -> Generation:
        """The changed description, drawn by the same expert if that may and no other style was asked for."""
        if "expert" not in options and "experts" not in options:
            route = self._studio.route(description, **options)
            styles = {one.node for one in route.understanding.styles}
            same = styles == {one.node for one in earlier.route.understanding.styles}
            may = any(one.expert == earlier.drawn_by for one in route.candidates)
            options = {**options, **(_same_expert(earlier) if same and may else {})}
        return self._studio.route_and_generate(description, **options)

    def _restyle(self, description: str, order: str) -> str:
        """A description without the words of its styles, where the order names another."""
        before, asked = self._studio.read(description), self._studio.read(order)
        new = {one.node for one in asked.understanding.styles}
        if not new:
            return description
        for one in before.understanding.styles:
            words = before.matched.get(one.node)
            if words and one.node not in new:
                description = _cut(description, words)
        return description

    def save(self, path: str | Path) -> Path:
        """Save the conversation: a JSON file, and its pictures in a folder of its name beside it.

        Another conversation in that file is replaced; its pictures stay.

        Args:
            path: The file, ending in `.json`.

        Raises:
            ConversationError: If it cannot be written, if the file is of another kind, or if it was changed since
                this conversation was read from it or saved in it.
            PictureError: If a picture cannot be written.
        """
        self._saved = write_turns(self._turns, expand_home(path), self._saved)
        return self._saved.file

    def paths(self, turn: Turn) -> tuple[Path, ...]:
        """Where the pictures of a turn were saved last; empty if they were not."""
        return self._saved.paths.get(id(turn), ()) if self._saved else ()

    @classmethod
    def load(cls, path: str | Path, *, studio: Draws) -> Conversation:
        """Read a saved conversation; a stranger's file names no picture outside its own folder.

        Args:
            path: The file.
            studio: Draws what is said next.

        Raises:
            ConversationError: If it cannot be read, or a picture of it is missing.
        """
        turns, saved = read_turns(expand_home(path))
        read = cls(studio, turns)
        read._saved = saved  # of the same class
        return read


def _pictures(turn: Turn) -> Generation:
    assert turn.generation is not None  # noqa: S101  # the callers have looked
    return turn.generation


def _without_news(options: Mapping[str, Any], earlier: Mapping[str, Any]) -> bool:
    """Whether arguments ask for nothing that an earlier turn was not drawn with."""
    return all(value is None or (name in earlier and earlier[name] == value) for name, value in options.items())


def _same_expert(earlier: Generation) -> dict[str, str]:
    return {} if earlier.records[0].demonstration else {"expert": earlier.drawn_by}


def _cut(text: str, words: str) -> str:
    """A text without some of its words, and without what then has nothing to join."""
    left = re.sub(
        rf"(?:\b(?:in|as)\s+(?:an?\s+)?)?{re.escape(words)}(?:\s+(?:style|of)\b|风格的?|的)?",
        "",
        text,
        count=1,
        flags=re.IGNORECASE,
    )
    left = re.sub(r"\s{2,}", " ", left).strip(" ,，:：")
    return left or text
