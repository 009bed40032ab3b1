"""How results show themselves in a notebook."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Sequence
from html import escape
from io import BytesIO
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from PIL.Image import Image

    from diffusiongpt.flow.record import Fallback


THUMBNAIL = 384
"""Longest side of a picture in a notebook, in pixels; the full picture stays in `.images`."""

SMALL = 128
"""Pictures up to this side are enlarged without blur."""


def enlarged(image: Image, side: int = THUMBNAIL) -> Image:
    """A copy to look at: small pictures are enlarged by a whole factor without blur, large ones reduced."""
    from PIL.Image import Resampling

    longest = max(image.size)
    if longest <= SMALL:
        factor = max(1, side // longest)
        return image.resize((image.width * factor, image.height * factor), Resampling.NEAREST)
    copy = image.copy()
    copy.thumbnail((side, side))
    return copy


def gallery_html(pictures: Sequence[tuple[Image, str]]) -> str:
    """Pictures side by side, each with a caption."""
    figures = "".join(_figure(image, caption) for image, caption in pictures)
    return f'<div style="display:flex;flex-wrap:wrap;gap:12px">{figures}</div>'


def result_html(pictures: Sequence[tuple[Image, str]], sentence: str, fallbacks: Sequence[Fallback]) -> str:
    """Pictures with captions, the sentence that explains the route, and the experts that could not draw."""
    notes = "".join(f"<p>{escape(one.expert)} could not draw: {escape(one.error)}</p>" for one in fallbacks[:1])
    if len(fallbacks) > 1:
        notes += f"<p>nor could {len(fallbacks) - 1} more; see .fallbacks</p>"
    return f"{gallery_html(pictures)}<p>{escape(sentence)}</p>{notes}"


def _figure(image: Image, caption: str) -> str:
    buffer = BytesIO()
    enlarged(image).save(buffer, format="PNG")
    source = b64encode(buffer.getvalue()).decode()
    return (
        f'<figure style="margin:0"><img alt="{escape(caption)}" src="data:image/png;base64,{source}">'
        f"<figcaption>{escape(caption)}</figcaption></figure>"
    )
