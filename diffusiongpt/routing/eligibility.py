"""Which experts may draw a prompt: those that can do what it needs and that the caller allows."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from math import inf

from diffusiongpt.backends import is_hosted, never_bills, tasks_of
from diffusiongpt.flow import IN_PLACE, READS, TRANSPARENT_BACKGROUND, Policy, Rejection, Task, Understanding
from diffusiongpt.ranking import published
from diffusiongpt.understanding import asks_for_color, language_of
from diffusiongpt.zoo import Capabilities, Expert

NOTHING: Mapping[str, str] = {}
_CAN_WRITE = ("fair", "good", "strong")

MANY_OBJECTS = 5
"""Objects from which a prompt needs an expert that counts; the published figures are of two to four, where those that
cannot count still hit the number now and then. Stated, not measured."""


@dataclass(frozen=True, kw_only=True)
class Need:
    """Something a prompt needs that not every expert can do.

    Attributes:
        name: In plain words.
        met_by: Whether an expert meets it.
        lacking: Reason of the rejection of an expert that does not.
    """

    name: str
    met_by: Callable[[Expert], bool]
    lacking: str


@dataclass(frozen=True, kw_only=True)
class Eligibility:
    """Experts that may draw, those that may not, and needs that no allowed expert meets.

    Attributes:
        eligible: Experts that may draw.
        rejected: Experts that may not, with the reasons.
        unmet: Needs that no allowed expert meets.
        task: What the experts will do: what is asked for, or what comes nearest to it.
    """

    eligible: tuple[str, ...]
    rejected: tuple[Rejection, ...]
    unmet: tuple[str, ...]
    task: Task = "text-to-image"

    @cached_property
    def names(self) -> frozenset[str]:
        """`eligible` as a set."""
        return frozenset(self.eligible)


def needs_of(understanding: Understanding, pictures: int = 0) -> list[Need]:
    """What the prompt needs beyond its task; of capabilities, what is not known counts as missing, but colour.

    Args:
        understanding: What the prompt says.
        pictures: How many pictures go in.
    """
    needs = []
    language = prompt_language(understanding)
    if language not in ("und", "en"):
        name = _LANGUAGES.get(language, f"the language {language!r}")
        # an expert that states no languages may read any
        needs.append(
            Need(
                name=f"{READS}{name}",
                met_by=lambda expert: not expert.languages or language in map(_primary, expert.languages),
                lacking=f"not known to read {name}",
            )
        )

    def capability(name: str, met_by: Callable[[Capabilities], bool]) -> None:
        needs.append(
            Need(name=name, met_by=lambda expert: met_by(expert.capabilities), lacking=f"not known to support {name}")
        )

    if pictures > 1:
        capability("several pictures at once", lambda can: can.multi_reference is True)
    if asks_for_color(understanding):
        needs.append(
            Need(
                name="colour",
                met_by=lambda expert: expert.capabilities.color is not False,
                lacking="draws in black, white and grey alone",
            )
        )
    if (understanding.object_count or 0) >= MANY_OBJECTS:
        name = "many objects in the number asked for"
        needs.append(Need(name=name, met_by=published().counts, lacking=f"not known to draw {name}"))
    if "Hani" in understanding.text_scripts:
        capability("Chinese text in the picture", lambda can: can.text_rendering_zh in _CAN_WRITE)
    if "Latn" in understanding.text_scripts:
        capability("text in the picture", lambda can: can.text_rendering_en in _CAN_WRITE)
    for name in dict.fromkeys(_WRITTEN[one] for one in understanding.text_scripts if one in _WRITTEN):
        # the zoo states no skill in other scripts, so that none is known to have it
        capability(f"{name} text in the picture", lambda _: False)
    if understanding.transparent_background:
        # last, since matting makes one of what any expert draws, while the others have no such way out
        capability(f"a {TRANSPARENT_BACKGROUND}", lambda can: can.transparent_background is True)
    return needs


def prompt_language(understanding: Understanding) -> str:
    """Primary language of the text that the image model gets: English where the clean prompt is a translation.

    An LLM may translate a prompt; `language` stays that of what the person typed, and the script of the clean
    prompt says that it is no longer in it.
    """
    language = _primary(understanding.language)
    if language in _OWN_SCRIPT and language_of(understanding.prompt) == "en":
        return "en"
    return language


def _primary(tag: str) -> str:
    """The primary subtag of a BCP 47 tag: `zh` of `zh-Hant`."""
    return tag.partition("-")[0].lower()


_LANGUAGES = {
    "ar": "Arabic", "de": "German", "el": "Greek", "es": "Spanish", "fr": "French", "he": "Hebrew", "hi": "Hindi",
    "it": "Italian", "ja": "Japanese", "ko": "Korean", "pt": "Portuguese", "ru": "Russian", "th": "Thai",
    "zh": "Chinese",
}  # fmt: skip

_WRITTEN = {
    "Arab": "Arabic", "Cyrl": "Cyrillic", "Deva": "Devanagari", "Grek": "Greek", "Hang": "Korean", "Hebr": "Hebrew",
    "Hira": "Japanese", "Kana": "Japanese", "Thai": "Thai",
}  # fmt: skip
"""Scripts of text to render other than Latin and Chinese."""

_OWN_SCRIPT = frozenset({"ar", "el", "he", "hi", "ja", "ko", "ru", "th", "zh"})
"""Languages that are not written in Latin letters."""


_TASKS: Mapping[Task, str] = {
    "text-to-image": "drawing from text alone",
    "image-to-image": "starting from a picture",
    "edit": "changing a picture as the text says",
    "inpaint": "painting inside a mask",
}


def filter_experts(
    experts: Iterable[Expert],
    understanding: Understanding,
    policy: Policy,
    unfit: Mapping[str, str] = NOTHING,
    *,
    task: Task = "text-to-image",
    pictures: int = 0,
    follows: bool = False,
    free: Collection[str] = (),
) -> Eligibility:
    """Reject what the policy forbids, then what cannot draw on the machine, then what cannot do what the prompt needs.

    A need that no remaining expert meets rejects none, since a picture without it is better than no picture; it is
    reported as unmet.

    Args:
        experts: Experts to choose from.
        understanding: What the prompt needs.
        policy: What the caller allows.
        unfit: Expert -> why it cannot draw on the machine that the route is for.
        task: What is asked of an expert; where none can do it, what comes nearest.
        pictures: How many pictures go in.
        follows: Whether a picture is to be followed, which a ControlNet does, and nothing else.
        free: Ids and backends of hosted experts that cost nothing by the word of the user.
    """
    rejected: dict[str, str] = {}
    allowed: list[Expert] = []
    for expert in experts:
        reason = _forbidden(expert, policy, free) or unfit.get(expert.id) or _nothing_to_follow(expert, follows=follows)
        if reason:
            rejected[expert.id] = reason
        else:
            allowed.append(expert)
    allowed, unmet = _following(allowed, rejected) if follows else (allowed, [])
    done = task
    for nearest in (task, *IN_PLACE[task]):
        able = [expert for expert in allowed if nearest in tasks_of(expert)]
        if able or nearest == "text-to-image":
            # the last resort would be the wrong reason for what was asked for
            missing = dict.fromkeys((_TASKS[nearest],) if able else (_TASKS[task], _TASKS[nearest]))
            rejected |= _others(allowed, able, f"not known to support {' or '.join(missing)}")
            allowed, done = able, nearest
            break
        if nearest == task:
            unmet.append(_TASKS[task])
    for need in needs_of(understanding, pictures):
        able = [expert for expert in allowed if need.met_by(expert)]
        if able:
            rejected |= _others(allowed, able, need.lacking)
            allowed = able
        elif done == "inpaint" or need.name != f"a {TRANSPARENT_BACKGROUND}":  # which is made afterwards, by matting
            unmet.append(need.name)
    return Eligibility(
        eligible=tuple(expert.id for expert in allowed),
        rejected=_rejections(rejected),
        unmet=tuple(unmet),
        task=done,
    )


def _others(experts: Iterable[Expert], able: Iterable[Expert], lacking: str) -> dict[str, str]:
    """The experts that are not able, each with what it lacks."""
    kept = {expert.id for expert in able}
    return {expert.id: lacking for expert in experts if expert.id not in kept}


def _nothing_to_follow(expert: Expert, *, follows: bool) -> str | None:
    if follows or expert.kind != "control":
        return None
    return "it follows a picture, and none was given; pass control_image"


def _following(allowed: list[Expert], rejected: dict[str, str]) -> tuple[list[Expert], list[str]]:
    """Those that follow a picture, and the others rejected; all of them, and what is unmet, where none does."""
    able = [expert for expert in allowed if expert.kind == "control"]
    if not able:
        return allowed, ["following a picture"]
    rejected |= _others(allowed, able, "it has no ControlNet to follow a picture")
    return able, []


def _rejections(reasons: dict[str, str]) -> tuple[Rejection, ...]:
    return tuple(Rejection(expert=expert, reason=reason) for expert, reason in reasons.items())


def _forbidden(expert: Expert, policy: Policy, free: Collection[str]) -> str | None:
    if policy.commercial_use:
        for part in reversed(expert.parts):
            commercial = part.license.commercial if part.license else "unknown"
            if commercial != "yes":
                name = part.license.id if part.license else "no licence stated"
                # a route is saved with the picture, and folders of this machine are not
                what = f"its {part.component.name}" if part.component else "its base"
                place = part.folder.name if part.folder else part.repo
                whose = "" if part is expert else f" of {what} {place}"
                return f"commercial use{whose} is {_COMMERCIAL[commercial]} ({name})"
    return _forbidden_as_hosted(expert, policy, free) if is_hosted(expert.backend) else None


def _forbidden_as_hosted(expert: Expert, policy: Policy, free: Collection[str]) -> str | None:
    if policy.local_only:
        return f"it runs at {expert.repo.partition('/')[0]}, and only local experts are allowed"
    if _is_free(expert, free):
        return None
    if expert.price is not None and expert.price.usd == 0 == policy.max_price:
        # the zoo file may be a stranger's, and the bill is the user's
        return "a zoo file alone says that it costs nothing; allow it with max_price, or list it in free_experts"
    if expert.price is None and policy.max_price < inf:
        return "what it costs is not known; allow any price with max_price=inf"
    if expert.price is not None and expert.price.usd > policy.max_price:
        return f"it costs about ${_dollars(expert.price.usd)} a picture; allow it with max_price={expert.price.usd:g}"
    return None


def _is_free(expert: Expert, free: Collection[str]) -> bool:
    return never_bills(expert.backend) or expert.id in free or expert.backend in free


def stated_price(expert: Expert, free: Collection[str]) -> float | None:
    """US dollars of a picture: 0 on one's own machine and where the user says so; `None` if not known.

    A price of 0 in a zoo file says nothing, as the file may be a stranger's.

    Args:
        expert: The expert.
        free: Ids and backends of hosted experts that cost nothing by the word of the user.
    """
    if not is_hosted(expert.backend) or _is_free(expert, free):
        return 0.0
    return (expert.price.usd or None) if expert.price else None


def _dollars(usd: float) -> str:
    cents = f"{usd:.2f}"
    return cents if float(cents) == usd else f"{usd:g}"


_COMMERCIAL = {
    "no": "not allowed",
    "conditional": "allowed only under conditions",
    "unknown": "not known to be allowed",
}


def hint_for(rejected: Sequence[Rejection]) -> str:
    """What to change when every expert was rejected."""
    if not rejected:
        return "The zoo is empty: add an expert to the zoo file, or use the zoo 'default'."
    if any("max_wait" in rejection.reason for rejection in rejected):  # whoever waits longer gets a picture
        return "Allow a longer wait with max_wait, ask for fewer steps, or pull experts beforehand."
    if any("this machine has" in rejection.reason for rejection in rejected):
        return (
            "Plan for another machine with memory='24GB', add a smaller expert, or draw with the demonstration zoo: "
            "zoo='tiny'."
        )
    for word, hint in _HINTS.items():
        if all(word in rejection.reason for rejection in rejected):
            return hint
    return "Loosen the policy, or add an expert that can do what the prompt needs."


_HINTS = {
    "size is not known": "Add size_gb or components to its entry in the zoo, or ask for it by name with expert=.",
    "in the zoo file": "A local path is relative to its zoo file; `diffusiongpt zoo check FILE` names all mistakes.",
    "commercial use": "Drop commercial_use=True, or add an expert whose licence allows it.",
    "max_price": "Hosted experts cost money, and max_price is 0 unless you say otherwise.",
}
"""What to change where all rejections have one word in common."""
