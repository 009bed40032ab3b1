"""What the tools answer: structured content, a small preview, and links to the files; never the pictures themselves."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Mapping, Sequence
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from mcp_types import CallToolResult, ContentBlock, ImageContent, ResourceLink, TextContent
from pydantic import BaseModel, Field

from diffusiongpt.pictures import enlarged

if TYPE_CHECKING:
    from PIL.Image import Image

    from diffusiongpt.flow import Candidate, Placement, Route
    from diffusiongpt.pictures import Comparison, Generation

PREVIEW = 512
"""Longest side of a preview in pixels: enough for a vision model to see what was drawn, in some tens of kilobytes."""

URI = "diffusiongpt://pictures/"
"""What the addresses of pictures begin with."""

SHOWN = 5
"""Candidates that a preview of a route names."""


class Picture(BaseModel):
    """A picture on this machine."""

    path: str = Field(description="Absolute path of the PNG file.")
    uri: str = Field(description="Address of the same picture as a resource of this server.")
    width: int
    height: int
    seed: int


class Drawn(BaseModel):
    """What was drawn."""

    pictures: list[Picture]
    drawn_by: str = Field(description="Id of the expert that drew.")
    why: str = Field(description="Why it was chosen, in a sentence.")
    task: str
    dropped: list[str] = Field(description="What was asked for and not followed, with reasons.")
    fallbacks: list[str] = Field(description="Experts that should have drawn and could not, with reasons.")
    seconds: float


class Compared(BaseModel):
    """Pictures of one prompt by different experts, which are not named before the vote."""

    prompt: str
    pictures: dict[str, list[Picture]] = Field(description="Letter -> pictures, the first of which is voted on.")


class Voted(BaseModel):
    """A vote that was recorded, or that waits for the vote store."""

    outcome: str
    best: str | None = Field(description="Id of the expert that drew the best picture; null for a tie or both bad.")
    experts: dict[str, str] = Field(description="Path of each picture -> id of the expert that drew it.")
    queued: bool = Field(default=False, description="Whether it waits until the vote store can be reached.")


class Considered(BaseModel):
    """An expert that may draw."""

    expert: str
    score: float = Field(description="Log-odds of being preferred.")
    placement: str | None = Field(description="How it would draw on this machine.")
    seconds: float | None = Field(description="Expected seconds, with download and load; null if unknown.")
    download_gb: float | None = Field(description="What would have to be downloaded first; null if unknown.")


class Routed(BaseModel):
    """What would draw; nothing was loaded."""

    expert: str
    why: str
    prompt: str = Field(description="What the expert would get.")
    task: str
    candidates: list[Considered]
    rejected: int = Field(description="Experts that may not draw this.")


class Strengths(BaseModel):
    """An expert and what it is good at."""

    id: str
    description: str
    subjects: list[str]
    styles: list[str]
    at_hand: bool = Field(description="Whether it can draw at once, without a download or a service.")
    licence: str
    commercial_use: str
    price: float | None = Field(description="US dollars a picture; null for one that runs here.")


class Listed(BaseModel):
    """The experts of the zoo."""

    experts: list[Strengths]


def drawn(generation: Generation, paths: Sequence[Path]) -> CallToolResult:
    """The answer to a drawing."""
    pictures = [
        _picture(path, image, seed)
        for path, image, seed in zip(paths, generation.images, generation.seeds, strict=True)
    ]
    body = Drawn(
        pictures=pictures,
        drawn_by=generation.drawn_by,
        why=generation.route.sentence(),
        task=generation.route.task,
        dropped=[f"{one.name}: {one.reason}" for one in generation.dropped],
        fallbacks=[f"{one.expert}: {one.error}" for one in generation.fallbacks],
        seconds=round(sum(generation.timings.values()), 1),
    )
    said = [f"{body.drawn_by} drew it in {body.seconds:g} s. {body.why}", *(one.path for one in pictures)]
    notes = [f"not followed: {one}" for one in body.dropped] + [f"could not draw: {one}" for one in body.fallbacks]
    return _answer("\n".join([*said, *notes]), body, generation.image, pictures)


def compared(comparison: Comparison, paths: Sequence[Path]) -> CallToolResult:
    """The answer to a comparison, which keeps the experts secret."""
    letters = comparison.letters
    rows = list(zip(*([one.images for one in comparison.generations]), strict=True))
    flat = [
        (letter, image, one.seeds[row])
        for row, images in enumerate(rows)
        for letter, image, one in zip(letters, images, comparison.generations, strict=True)
    ]
    pictures: dict[str, list[Picture]] = {letter: [] for letter in letters}
    for (letter, image, seed), path in zip(flat, paths, strict=True):
        pictures[letter].append(_picture(path, image, seed))
    body = Compared(prompt=comparison.prompt, pictures=pictures)
    lines = [f"{letter}: {shown[0].path}" for letter, shown in pictures.items()]
    text = "\n".join(["Ask the person which is best, then call vote; the experts are named afterwards.", *lines])
    return _answer(text, body, comparison.grid(PREVIEW), [shown[0] for shown in pictures.values()])


def routed(route: Route) -> CallToolResult:
    """The answer to a preview of a route."""
    body = Routed(
        expert=route.expert,
        why=route.sentence(),
        prompt=route.prompt,
        task=route.task,
        candidates=[_considered(one) for one in route.candidates[:SHOWN]],
        rejected=len(route.rejected),
    )
    return _answer(body.why, body)


def voted(body: Voted) -> CallToolResult:
    """The answer to a vote."""
    shown = ", ".join(f"{Path(path).name} was {expert}" for path, expert in body.experts.items())
    how = "Kept until the vote store can be reached" if body.queued else "Recorded"
    return _answer(f"{how}: {body.outcome}. {shown}.", body)


def listed(body: Listed) -> CallToolResult:
    """The answer to a list of experts."""
    lines = [
        f"{one.id}: {one.description or ', '.join(one.styles + one.subjects)} {'' if one.at_hand else ' (not at hand)'}"
        for one in body.experts
    ]
    return _answer("\n".join(lines), body)


def refused(text: str, error: Mapping[str, Any]) -> CallToolResult:
    """The answer of a tool that could not do what was asked."""
    content: list[ContentBlock] = [TextContent(text=text)]
    return CallToolResult(content=content, structured_content={"error": dict(error)}, is_error=True)


def uri_of(path: Path) -> str:
    """The address of a picture."""
    return f"{URI}{quote(path.name, safe='')}"


def _picture(path: Path, image: Image, seed: int) -> Picture:
    return Picture(path=str(path.resolve()), uri=uri_of(path), width=image.width, height=image.height, seed=seed)


def _considered(candidate: Candidate) -> Considered:
    place = candidate.placement
    download = None if place is None or place.download_bytes is None else round(place.download_bytes / 1e9, 3)
    return Considered(
        expert=candidate.expert,
        score=round(candidate.score, 3),
        placement=place.kind if place else None,
        seconds=_seconds(place),
        download_gb=download,
    )


def _seconds(place: Placement | None) -> float | None:
    return None if place is None or place.seconds is None else round(place.seconds, 1)


def _answer(
    text: str, body: BaseModel, preview: Image | None = None, pictures: Sequence[Picture] = ()
) -> CallToolResult:
    content: list[ContentBlock] = [TextContent(text=text)]
    if preview is not None:
        content.append(ImageContent(data=_small(preview), mime_type="image/jpeg"))
    content += [
        ResourceLink(name=Path(one.path).name, uri=one.uri, mime_type="image/png", size=Path(one.path).stat().st_size)
        for one in pictures
    ]
    return CallToolResult(content=content, structured_content=body.model_dump(mode="json"))


def _small(image: Image) -> str:
    """A preview as base64 of a JPEG; what is transparent is white."""
    from PIL import Image as Pillow

    small = enlarged(image, PREVIEW)
    if small.mode in ("RGBA", "LA", "P"):
        clear = small.convert("RGBA")
        small = Pillow.alpha_composite(Pillow.new("RGBA", clear.size, "white"), clear)
    buffer = BytesIO()
    small.convert("RGB").save(buffer, format="JPEG", quality=85)
    return b64encode(buffer.getvalue()).decode()
