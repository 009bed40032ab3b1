"""Conversations over HTTP: turns that speak of earlier pictures, kept for one client, in bounds."""

from __future__ import annotations

import base64
import json
from io import BytesIO
from typing import TYPE_CHECKING, Any

import httpx
import pytest
from fixtures_server import running, wait_until
from PIL import Image

from diffusiongpt.apps.server import sessions
from diffusiongpt.apps.server.failures import RefusedError

if TYPE_CHECKING:
    from fixtures_server import Running

    from diffusiongpt.studio import DiffusionGPT

QUICK = {"num_inference_steps": 1}
PATH = "/v1/conversations"


def say(server: Running, prompt: str, name: str | None = None, status: int = 200, **body: Any) -> Any:
    """Say a turn, the first one without a name, and return the answer."""
    path = PATH if name is None else f"{PATH}/{name}"
    headers = {"authorization": f"Bearer {body.pop('key')}"} if "key" in body else {}
    answer = httpx.post(server.url + path, json={"prompt": prompt, **body}, headers=headers, timeout=120)
    assert answer.status_code == status, answer.text
    return answer.json()


def picture(answer: dict[str, Any]) -> Image.Image:
    """The first picture of an answer."""
    return Image.open(BytesIO(base64.b64decode(answer["data"][0]["b64_json"]))).convert("RGB")


def as_base64(image: Image.Image) -> str:
    """A picture as a body carries it."""
    file = BytesIO()
    image.save(file, "PNG")
    return base64.b64encode(file.getvalue()).decode()


def test_turns_speak_of_earlier_pictures_and_can_be_taken_back(server: Running) -> None:
    """New, refined, asked about, taken back, and said otherwise; then forgotten."""
    first = say(server, "a red heart on a white background", seed=3, **QUICK)["diffusiongpt"]
    name = first["conversation"]
    assert (first["turn"]["index"], first["turn"]["kind"], first["seed"]) == (0, "new", 3)
    blue = say(server, "but blue", name)["diffusiongpt"]
    assert (blue["turn"]["kind"], blue["turn"]["refers_to"], blue["seed"]) == ("refine", 0, 3)
    assert blue["turn"]["description"] == "a blue heart on a white background"
    assert "ballot" in blue
    asked = say(server, "why this one?", name, mask_image=as_base64(Image.new("L", (64, 64), 255)))
    assert asked["diffusiongpt"]["notices"] == ["not used: mask_image"]
    assert (asked["data"], asked["diffusiongpt"]["turn"]["kind"]) == ([], "question")
    assert blue["drawn_by"] in asked["diffusiongpt"]["turn"]["reply"]
    for undone, left in (("why this one?", 2), ("but blue", 1)):
        answer = httpx.delete(f"{server.url}{PATH}/{name}/turns/last").json()
        assert answer == {"conversation": name, "undone": undone, "turns": left}
    green = say(server, "but green", name)["diffusiongpt"]["turn"]
    assert (green["refers_to"], green["description"]) == (0, "a green heart on a white background")
    assert httpx.delete(f"{server.url}{PATH}/{name}").json() == {"forgotten": name}
    for answer in (httpx.delete(f"{server.url}{PATH}/{name}"), httpx.delete(f"{server.url}{PATH}/{name}/turns/last")):
        assert answer.status_code == 404
    assert say(server, "another one", name, 404)["error"]["code"] == "not_found"


def test_nothing_changes_outside_the_mask_of_a_turn(server: Running) -> None:
    """Of a picture that goes in, and of the one before it, which need not be sent again."""
    mask = Image.new("L", (64, 64), 0)
    mask.paste(255, (0, 0, 32, 64))
    red = Image.new("RGB", (64, 64), "red")
    sent = {"mask_image": as_base64(mask), **QUICK}
    begun = say(server, "a green star", image=[as_base64(red)], **sent)
    first, kept = picture(begun), (32, 0, 64, 64)
    assert first.crop(kept).tobytes() == red.crop(kept).tobytes()
    story = begun["diffusiongpt"]
    again = say(server, "a blue star", story["conversation"], **sent)
    assert again["diffusiongpt"]["turn"]["kind"] == "edit"
    assert picture(again).crop(kept).tobytes() == red.crop(kept).tobytes()
    assert picture(again).tobytes() != first.tobytes()
    whole = say(server, "a star", story["conversation"], 400, mask_image=as_base64(Image.new("L", (64, 64), 0)))
    assert whole["error"]["param"] == "mask_image"


def test_a_turn_is_streamed(server: Running) -> None:
    """Progress, then the pictures with the turn; a question ends with what there is to say. What is unused is said."""

    def events(path: str, **body: Any) -> list[dict[str, Any]]:
        answer = httpx.post(server.url + path, json={"stream": True, **QUICK, **body}, timeout=120)
        return [json.loads(line[6:]) for line in answer.text.splitlines() if line.startswith("data: ")]

    *_, last = events(PATH, prompt="a red heart", draft=True)
    assert last["type"] == "conversation.completed"
    assert last["b64_json"]
    story = last["diffusiongpt"]
    assert story["notices"] == ["not used: draft"]
    *_, last = events(f"{PATH}/{story['conversation']}", prompt="which seed?")
    assert last["type"] == "conversation.completed"
    assert last["diffusiongpt"]["turn"]["reply"] == f"The seed was {story['seed']}."
    assert "b64_json" not in last
    assert httpx.post(f"{server.url}{PATH}/none", json={"prompt": "a", "stream": True}).status_code == 404


def test_a_failed_turn_is_not_kept(server: Running) -> None:
    """Neither a conversation of it, nor the turn in one."""
    kept = len(server.service.sessions._kept)
    assert say(server, " ", status=400)["error"]["param"] == "prompt"
    assert len(server.service.sessions._kept) == kept
    name = say(server, "a red heart", **QUICK)["diffusiongpt"]["conversation"]
    say(server, "but blue", name, 400, seed=-1)
    assert say(server, "but blue", name)["diffusiongpt"]["turn"]["index"] == 1


def test_a_conversation_is_of_one_client(tiny_studio: DiffusionGPT) -> None:
    """Another key does not find it, to go on with it, to take turns back, or to end it."""
    with running(tiny_studio, api_keys="the-key-of-mine,the-key-of-yours") as server:
        name = say(server, "a red heart", key="the-key-of-mine", **QUICK)["diffusiongpt"]["conversation"]
        say(server, "but blue", name, 404, key="the-key-of-yours")
        yours = {"authorization": "Bearer the-key-of-yours"}
        for path in (name, f"{name}/turns/last"):
            assert httpx.delete(f"{server.url}{PATH}/{path}", headers=yours).status_code == 404
        say(server, "but blue", name, key="the-key-of-mine")


def test_conversations_are_bounded(tiny_studio: DiffusionGPT, monkeypatch: pytest.MonkeyPatch) -> None:
    """By how many a client and the server have, by turns, by bytes, and by seconds; the quiet ones go first."""
    monkeypatch.setattr(sessions, "MOST_OF_CLIENT", 2)
    monkeypatch.setattr(sessions, "MOST_SESSIONS", 3)
    monkeypatch.setattr(sessions, "MOST_TURNS", 1)
    talk = tiny_studio.conversation()
    talk.say("a red heart", width=64, height=64, **QUICK)
    nbytes = 64 * 64 * 3

    def begin(kept: sessions.Sessions, client: str) -> str:
        with kept.begin(client, talk) as name:
            return name

    def has(kept: sessions.Sessions, client: str, name: str) -> bool:
        try:
            with kept.go_on(client, name):
                return True
        except RefusedError:
            return False

    roomy = sessions.Sessions(3600, 10**9)
    names = [begin(roomy, "ann") for _ in range(2)]
    assert has(roomy, "ann", names[0])
    third = begin(roomy, "ann")
    assert [has(roomy, "ann", name) for name in (*names, third)] == [True, False, True]
    others = [begin(roomy, client) for client in ("bob", "cy")]
    assert [has(roomy, "ann", names[0]), has(roomy, "ann", third)] == [False, True]
    assert [has(roomy, client, name) for client, name in zip(("bob", "cy"), others, strict=True)] == [True, True]
    with pytest.raises(RefusedError, match="1 turns, the most that are kept"):
        roomy.check_room(talk)
    monkeypatch.setattr(sessions, "MOST_TURNS", 9)
    roomy.check_room(talk)
    small = sessions.Sessions(3600, nbytes)
    names = [begin(small, "ann") for _ in range(2)]
    assert [has(small, "ann", name) for name in names] == [False, True]
    with pytest.raises(RefusedError, match="MB of pictures, the most"):
        small.check_room(talk)
    brief = sessions.Sessions(-1, 10**9)
    assert not has(brief, "ann", begin(brief, "ann"))


def test_a_conversation_is_forgotten_when_its_time_is_up(
    tiny_studio: DiffusionGPT, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where no other request comes: its pictures are in memory, and somebody's own."""
    monkeypatch.setattr(sessions, "LOOK_S", 0.05)
    with running(tiny_studio, keep_s=0.2) as server:
        say(server, "a red heart", **QUICK)
        kept = server.service.sessions._kept
        wait_until(lambda: not kept)


def test_a_conversation_that_draws_is_kept(tiny_studio: DiffusionGPT, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its turn may take longer than the seconds for which it is kept, while others begin and need its room."""
    clock = {"now": 0.0}
    monkeypatch.setattr(sessions, "monotonic", lambda: clock["now"])
    monkeypatch.setattr(sessions, "MOST_OF_CLIENT", 1)
    kept = sessions.Sessions(60, 10**9)
    with kept.begin("ann", tiny_studio.conversation()) as name:
        pass
    with kept.go_on("ann", name):
        for seconds in (1.0, 61.0):
            clock["now"] = seconds
            with kept.begin("ann", tiny_studio.conversation()):
                pass
    with kept.go_on("ann", name):
        pass
    with kept.begin("ann", tiny_studio.conversation()):
        pass
    with pytest.raises(RefusedError, match="not kept"), kept.go_on("ann", name):
        pass


def test_a_conversation_draws_one_turn_at_a_time(server: Running) -> None:
    """A second turn meanwhile would speak of a picture that is not there yet."""
    name = say(server, "a red heart", **QUICK)["diffusiongpt"]["conversation"]
    client = next(one.client for key, one in server.service.sessions._kept.items() if key == name)
    with server.service.sessions.go_on(client, name):
        assert say(server, "but blue", name, 409)["error"]["code"] == "conversation_busy"
        assert httpx.delete(f"{server.url}{PATH}/{name}/turns/last").status_code == 409
    say(server, "but blue", name)
