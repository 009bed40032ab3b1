"""Plugins are found by name; a broken one is a warning, and does not keep the others from working."""

from __future__ import annotations

import logging
import subprocess
import sys
from importlib.metadata import EntryPoint, distribution
from typing import TYPE_CHECKING, Any

import pytest

from diffusiongpt.backends import BACKENDS, get_backend
from diffusiongpt.errors import JudgeError, ZooError
from diffusiongpt.plugins import Plugins

if TYPE_CHECKING:
    from pathlib import Path

GROUP = "tests.shapes"


def offered(*points: tuple[str, str], by: str | None = None) -> Any:
    """Lists entry points like `importlib.metadata.entry_points`; those `by` a package know its name."""
    made = [EntryPoint(name=name, value=value, group=GROUP) for name, value in points]
    for point in made if by else ():
        vars(point).update(dist=distribution(by))
    return lambda *, group, name=None: [one for one in made if group == GROUP and name in (None, one.name)]


def shapes(installed: Any) -> Plugins[Any]:
    """Plugins of which the package itself offers one, `circle`."""
    return Plugins(GROUP, "shape", {"circle": "collections:Counter"}, JudgeError, installed)


def test_what_packages_offer_is_made_by_name() -> None:
    """Each call creates a new object; ours works although no installed metadata lists it."""
    plugins = shapes(offered(("square", "collections:OrderedDict")))
    assert plugins.names() == ("circle", "square")
    assert plugins.make("circle") == {}
    assert plugins.make("square") is not plugins.make("square")


@pytest.mark.parametrize(
    "value", ["no.such:Thing", "collections:NoSuch", "math:inf", "decimal:Decimal.from_float"],
    ids=["module", "attribute", "not callable", "raises"],
)  # fmt: skip
def test_a_broken_plugin_is_a_warning_that_names_its_distribution(caplog: pytest.LogCaptureFixture, value: str) -> None:
    """It is an error for a caller that requests it, one warning, and the others are created as before."""
    plugins = shapes(offered(("bad", value), ("square", "collections:OrderedDict"), by="numpy"))
    for _ in range(2):
        with pytest.raises(JudgeError, match=r"the shape 'bad' of numpy [\d.]+ .* could not be loaded") as caught:
            plugins.make("bad")
        assert "Reinstall" in caught.value.hint
    assert [record.levelno for record in caplog.records] == [logging.WARNING]
    assert "numpy" in caplog.text
    assert plugins.make("square") == {}


def test_a_broken_plugin_does_not_take_the_name_of_ours(caplog: pytest.LogCaptureFixture) -> None:
    """If a package offers a name of ours and cannot be loaded, ours is created."""
    assert shapes(offered(("circle", "no.such:Thing"))).make("circle") == {}
    assert "'circle'" in caplog.text


def test_an_unknown_name_lists_the_known_ones() -> None:
    """If several match, none is guessed."""
    with pytest.raises(JudgeError, match="no shape called 'cube'") as caught:
        shapes(offered()).make("cube")
    assert "circle" in caught.value.hint
    assert GROUP in caught.value.hint


def test_backends_are_found_by_name() -> None:
    """It is the same object each time; an unknown name lists the known ones."""
    assert get_backend("diffusers") is get_backend("diffusers")
    assert set(BACKENDS.names()) >= {"diffusers", "openai"}
    with pytest.raises(ZooError, match="painter") as caught:
        get_backend("painter")
    assert "diffusers" in caught.value.hint


def test_a_package_with_a_broken_backend_leaves_the_rest_working(tmp_path: Path) -> None:
    """With a package installed for real, a broken backend does not stop a route, and the log names the package."""
    info = tmp_path / "shaky-2.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: shaky\nVersion: 2.0\n")
    (info / "entry_points.txt").write_text("[diffusiongpt.backends]\nshaky = shaky_backend:Backend\n")
    (tmp_path / "shaky_backend.py").write_text("raise RuntimeError('no such driver')\n")
    (tmp_path / "zoo.yaml").write_text(
        "schema_version: 1\nexperts:\n"
        "- {id: broken, backend: shaky, repo: me/broken, size_gb: 1}\n"
        "- {id: flat, backend: fake, repo: me/flat, price: {usd: 0}}\n"
    )
    code = (
        "import sys; sys.path.insert(0, sys.argv[1])\n"
        "from diffusiongpt.studio import DiffusionGPT\n"
        "from diffusiongpt.settings import load_settings\n"
        "settings = load_settings(home=sys.argv[1] + '/home', device='cpu')\n"
        "with DiffusionGPT(sys.argv[1] + '/zoo.yaml', settings=settings) as studio:\n"
        "    print([one.expert for one in studio.route('a fox').candidates])\n"
        "    print(studio.route_and_generate('a fox', seed=1).drawn_by, 'torch' in sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", code, tmp_path], capture_output=True, text=True, check=True)
    assert "'flat'" in done.stdout
    assert done.stdout.endswith("flat False\n")
    assert "the backend 'shaky' of shaky 2.0" in done.stderr
    assert "no such driver" in done.stderr
