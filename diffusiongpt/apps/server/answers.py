"""What a drawing is answered with: pictures as OpenAI's Images API has them, and how they came about."""

from __future__ import annotations

from dataclasses import dataclass
from time import time
from typing import TYPE_CHECKING, Any

from diffusiongpt.apps.server.delivery import as_base64
from diffusiongpt.pictures import encode

if TYPE_CHECKING:
    from diffusiongpt.apps.server.bodies import Asked
    from diffusiongpt.apps.server.service import Service
    from diffusiongpt.pictures import Generation

_FREE: dict[str, Any] = {
    "input_tokens": 0,
    "output_tokens": 0,
    "total_tokens": 0,
    "input_tokens_details": {"text_tokens": 0, "image_tokens": 0},
}
"""Nothing is counted in tokens here; programs that add them up expect numbers."""

_NO_TRANSPARENCY = "JPEG has no transparency, so the background is white; ask for png or webp"


@dataclass(frozen=True)
class Answer:
    """The parts of an answer.

    Attributes:
        created: When, in seconds since 1970.
        pictures: One object for each: `b64_json` or `url`, `revised_prompt`, and `diffusiongpt`. None where a turn of
            a conversation was a question.
        facts: `output_format`, `size`, `background`, `quality`.
        story: How it came about: that of the first picture, with all seeds.
    """

    created: int
    pictures: tuple[dict[str, Any], ...]
    facts: dict[str, Any]
    story: dict[str, Any]

    def as_json(self) -> dict[str, Any]:
        """As one object."""
        return {
            "created": self.created,
            "data": list(self.pictures),
            **self.facts,
            "usage": _FREE,
            "diffusiongpt": self.story,
        }

    def as_events(self) -> tuple[dict[str, Any], ...]:
        """As the last events of a stream: one for each picture, or one that says what there is to say without."""
        own = self.pictures or ({"diffusiongpt": self.story},)
        return tuple({"created_at": self.created, **one, **self.facts, "usage": _FREE} for one in own)


def answer_of(generation: Generation, asked: Asked, service: Service, base_url: str, **more: Any) -> Answer:
    """The answer with the pictures of a result.

    Args:
        generation: The result.
        asked: What was asked for.
        service: Keeps pictures that are sent as URLs, and remembers results that may be rated.
        base_url: Address of the server as the client knows it.
        **more: Further parts of the story.
    """
    is_transparent = generation.image.mode == "RGBA"
    is_lost = is_transparent and asked.file_format == "jpeg"
    notices = [*asked.notices, *([_NO_TRANSPARENCY] if is_lost else [])]
    story = {**story_of(generation), "notices": notices, "ballot": service.ballots.keep(generation), **more}
    prompt = str(generation.params.get("prompt", generation.route.input))
    pictures = []
    for image, record in zip(generation.images, generation.records, strict=True):
        data = encode(image, record, asked.file_format, quality=asked.quality)
        pictures.append(
            {
                **sent(data, asked, service, base_url),
                "revised_prompt": prompt,
                "diffusiongpt": {**story, "seed": record.seed},
            }
        )
    return Answer(
        created=int(time()),
        pictures=tuple(pictures),
        facts={
            "background": "transparent" if is_transparent and not is_lost else "opaque",
            "output_format": asked.file_format,
            "quality": "auto",
            "size": f"{generation.image.width}x{generation.image.height}",
        },
        story={**story, "seeds": list(generation.seeds)},
    )


def sent(data: bytes, asked: Asked, service: Service, base_url: str) -> dict[str, str]:
    """The bytes of a picture as a client asked for them: in base64, or at a URL."""
    if asked.as_url:
        return {"url": base_url + service.delivery.keep(data, asked.file_format)}
    return {"b64_json": as_base64(data)}


def story_of(generation: Generation) -> dict[str, Any]:
    """How a result came about."""
    record = generation.records[0].model_dump(mode="json", include={"dropped", "fallbacks", "recovered", "placement"})
    for dropped in record["dropped"]:
        if dropped["name"] == "callback_on_step_end":  # it is how unfinished pictures are asked for
            dropped |= {"name": "partial_images", "value": None}
    return {
        "route": generation.route.model_dump(mode="json"),
        "drawn_by": generation.drawn_by,
        "seed": generation.seeds[0],
        **record,
        "timings": dict(generation.timings),
    }
