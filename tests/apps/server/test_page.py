"""The page at `/`: what it is served with, that it needs nothing from elsewhere, and that it fits the API."""

from __future__ import annotations

import json
import re
from collections import Counter
from typing import TYPE_CHECKING

import httpx
import pytest
from fixtures_server import running

from diffusiongpt.apps.server.static_page import FILES, FOLDER

if TYPE_CHECKING:
    from fixtures_server import Running

    from diffusiongpt.studio import DiffusionGPT

KEY = "a-key-of-ours"
TYPES = {"html": "text/html", "css": "text/css", "js": "text/javascript", "json": "application/json"}
SVG = "http://www.w3.org/2000/svg"
"""The name of a language, which is not fetched."""

TEXTS = {path.name: path.read_text(encoding="utf-8") for path in FOLDER.iterdir()}
SCRIPTS = "\n".join(text for name, text in TEXTS.items() if name.endswith(".js"))
HTML = TEXTS["index.html"]
STRINGS: dict[str, dict[str, str]] = json.loads(TEXTS["strings.json"])


@pytest.mark.parametrize("path", FILES)
def test_each_file_is_served_so_that_a_browser_runs_nothing_else(server: Running, path: str) -> None:
    """With its type, a policy that allows this server alone, and no guessing of types."""
    answer = httpx.get(server.url + path, headers={"accept": "text/html,*/*"})
    assert answer.status_code == 200
    assert answer.text == FILES[path].read_text(encoding="utf-8")
    kind = TYPES.get(FILES[path].suffix[1:], "image/svg+xml")
    assert answer.headers["content-type"].partition(";")[0] == kind
    policy = dict(part.strip().split(" ", 1) for part in answer.headers["content-security-policy"].split(";"))
    assert policy["default-src"] == "'self'"
    assert policy["img-src"] == "'self' data: blob:"
    assert "unsafe" not in answer.headers["content-security-policy"]
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert httpx.head(server.url + path).status_code == 200


def test_every_file_of_the_page_is_served() -> None:
    """And what the page and its scripts name is among them."""
    assert {path.name for path in FILES.values()} == set(TEXTS)
    named = re.findall(r'(?:src|href)="(page/[^"]+)"', HTML)
    imported = re.findall(r'from "\./([^"]+)"', SCRIPTS)
    assert len(named) == 3
    assert {f"/{name}" for name in named} | {f"/page/{name}" for name in imported} <= set(FILES)


@pytest.mark.parametrize(
    "path", ["/page/", "/page/no.js", "/page/../app.py", "/page/%2e%2e/app.py", "/page//etc/passwd"]
)
def test_nothing_else_is_served_beside_it(server: Running, path: str) -> None:
    """Neither another file of the package nor one of the machine."""
    assert httpx.get(server.url + path).status_code == 404


@pytest.mark.parametrize("name", TEXTS)
def test_nothing_comes_from_another_host(name: str) -> None:
    """No address of another host, in no spelling, and nothing inline that the policy would stop."""
    text = TEXTS[name].replace(SVG, "")
    assert not re.findall(r"""\bhttps?:|\bwss?:|["'(]//\w|@import|url\(""", text)
    assert not re.findall(r"<script(?![^>]*\bsrc=)|<style|\sstyle=|\son\w+=\"", text)


def test_text_of_the_server_never_becomes_markup() -> None:
    """The scripts have no way of reading text as markup or as code."""
    as_markup = r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|DOMParser|createContextualFragment|srcdoc"
    assert not re.findall(as_markup + r"|\beval\b|Function\(", SCRIPTS)


def test_every_string_is_there_in_both_languages() -> None:
    """With the same places for values, and none that the page does not use or does not have."""
    for key, texts in STRINGS.items():
        assert set(texts) == {"en", "zh"}, key
        assert all(text.strip() for text in texts.values()), key
        places = [Counter(re.findall(r"\{(\w+)\}", texts[language])) for language in ("en", "zh")]
        assert places[0] == places[1], key
    used = {*re.findall(r'data-t(?:-\w+)?="(\w+)"', HTML), *re.findall(r'\bt\([^)"]*"(\w+)"', SCRIPTS)}
    assert used <= set(STRINGS)
    # others are named by a value of the API, or chosen between two
    kinds = tuple(f"{kind}_" for kind in re.findall(r"""\b(?:word\("|t\(`)([a-z]+)(?:"|_\$)""", SCRIPTS))
    chosen = set(re.findall(r'"(\w+)"', SCRIPTS))
    assert {key for key in STRINGS if key not in used | chosen and not key.startswith(kinds)} == set()


def test_words_for_values_of_the_api_are_there(server: Running) -> None:
    """For every outcome of a vote, phase of a drawing, kind of node, kind of licence and part of a score."""
    for outcome in ("win", "tie", "both_bad"):
        assert f"voted_{outcome}" in STRINGS
    for phase in ("route", "download", "queue", "load", "draw"):
        assert f"phase_{phase}" in STRINGS
    kinds = {node["kind"] for node in httpx.get(f"{server.url}/v1/ranking").json()["nodes"]}
    assert kinds == {"subject", "style", "need"}
    assert {f"kind_{kind}" for kind in kinds} <= set(STRINGS)
    for said in ("yes", "conditional", "no", "unknown"):
        assert f"commercial_{said}" in STRINGS
    route = httpx.post(f"{server.url}/v1/route", json={"prompt": "8-bit red heart"}, timeout=60).json()
    assert {f"part_{part}" for one in route["candidates"] for part in one["parts"]} <= set(STRINGS)


def test_the_scripts_call_what_the_api_has(server: Running) -> None:
    """Every path with its method is in the description of the API, and no path goes another way."""
    called = re.findall(r"""\bask\("(\w+)", ["`]([^"`]+)["`]""", SCRIPTS)
    assert len(called) >= 10
    assert len(re.findall(r"""["'`]/(?:v1|sdapi|readyz|healthz|metrics)""", SCRIPTS)) == len(called)
    described = {
        (method.upper(), re.sub(r"\{[^}]*\}", "{}", path))
        for path, methods in server.app.openapi()["paths"].items()
        for method in methods
    }
    asked = {(method, re.sub(r"\$\{[^}]*\}", "{}", path.partition("?")[0])) for method, path in called}
    assert asked <= described


def test_ids_that_the_scripts_use_are_in_the_page() -> None:
    """Each once, so that no part of it is silently missing; every control has a name."""
    ids = re.findall(r'\bid="([^"]+)"', HTML)
    assert len(ids) == len(set(ids))
    assert set(re.findall(r'\bat\("([^"]+)"\)', SCRIPTS)) <= set(ids)
    controls = re.findall(r'aria-controls="(\w+)"', HTML)
    assert set(controls) == {"draw", "talk", "compare", "experts", "ranking", "machine"} <= set(ids)
    named = set(re.findall(r'<label for="([^"]+)"', HTML))
    for kind, attributes in re.findall(r"<(input|select|textarea)\b([^>]*)>", HTML):
        [name] = re.findall(r'\bid="([^"]+)"', attributes)
        wrapped = f'<label class="check"><input id="{name}"' in HTML
        assert name in named or "aria-label" in attributes or wrapped, (kind, name)


def test_nodes_of_the_ranking_have_names_and_may_be_asked_for(server: Running) -> None:
    """In both languages; each is accepted as `node`."""
    nodes = httpx.get(f"{server.url}/v1/ranking").json()["nodes"]
    assert all(set(node["label"]) >= {"en", "zh"} for node in nodes)
    for node in (nodes[0], nodes[-1]):
        assert httpx.get(f"{server.url}/v1/ranking", params={"node": node["id"]}).json()["node"] == node["id"]


def test_the_page_needs_no_key_and_what_it_asks_for_does(tiny_studio: DiffusionGPT) -> None:
    """Its files hold no secret; by readiness, which says less without a key, it knows that one is needed."""
    with running(tiny_studio, api_keys=KEY) as locked:
        for path in FILES:
            assert httpx.get(locked.url + path, headers={"accept": "text/html"}).status_code == 200
        for path in ("/v1/ranking", "/v1/experts", "/v1/queue", "/page/no.js", "/page/../v1/queue"):
            assert httpx.get(locked.url + path).status_code == 401
        assert httpx.get(f"{locked.url}/readyz").json() == {"status": "ready"}
    assert "sessionStorage" in TEXTS["api.js"]
    assert "localStorage" not in TEXTS["api.js"]


@pytest.mark.parametrize(("keys", "status"), [((), 404), ((KEY,), 401)])
def test_the_page_can_be_left_out(tiny_studio: DiffusionGPT, keys: tuple[str, ...], status: int) -> None:
    """Then its paths are as any other that the server does not have; the API stays."""
    with running(tiny_studio, page=False, api_keys=keys) as bare:
        assert {httpx.get(bare.url + path).status_code for path in FILES} == {status}
        with_key = {"authorization": f"Bearer {KEY}"}
        assert httpx.get(f"{bare.url}/", headers=with_key).status_code == 404
        assert httpx.get(f"{bare.url}/v1/models", headers=with_key).status_code == 200
