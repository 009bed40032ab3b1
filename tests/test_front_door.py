"""The front door opens at once: nothing heavy is imported before it is needed."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

import diffusiongpt

HEAVY = (
    "torch",
    "diffusers",
    "transformers",
    "langchain",
    "langchain_core",
    "sqlalchemy",
    "huggingface_hub",
    "scipy",
    "PIL",
)


def imported_by(code: str) -> set[str]:
    """Heavy packages in `sys.modules` after some code ran in a fresh interpreter."""
    show = f"\nimport json, sys\nsys.stderr.write(json.dumps([name for name in {HEAVY} if name in sys.modules]))"
    done = subprocess.run([sys.executable, "-c", code + show], capture_output=True, text=True, check=True)
    return set(json.loads(done.stderr))


def test_import_is_light() -> None:
    """`import diffusiongpt` and a look at its public names bring in no heavy package."""
    assert imported_by("import diffusiongpt; dir(diffusiongpt); diffusiongpt.__version__") == set()


def test_help_is_light() -> None:
    """`diffusiongpt --help` brings in no heavy package."""
    code = (
        "import sys; sys.argv = ['diffusiongpt', '--help']\n"
        "from diffusiongpt.apps.cli import main\n"
        "try: main()\nexcept SystemExit as done: assert done.code == 0"
    )
    assert imported_by(code) == set()


def test_routing_is_light() -> None:
    """A route without votes needs neither a model library nor the hub client nor a database."""
    code = "import diffusiongpt; diffusiongpt.DiffusionGPT('tiny', device='cpu').route('a pixel art fox')"
    assert imported_by(code) & {"diffusers", "transformers", "langchain", "sqlalchemy"} == set()


def test_the_function_route_is_never_hidden_by_its_module() -> None:
    """`diffusiongpt.route` stays a function, also after the module of that name was imported."""
    from diffusiongpt.flow.route import Route
    from diffusiongpt.studio import DiffusionGPT

    assert callable(diffusiongpt.route)
    assert diffusiongpt.Route is Route
    assert diffusiongpt.DiffusionGPT is DiffusionGPT


def test_every_public_name_is_there() -> None:
    """Each name in `__all__` can be had, and one that is not there is an `AttributeError`."""
    for name in diffusiongpt.__all__:
        assert getattr(diffusiongpt, name).__doc__, name
    assert len(diffusiongpt.__all__) <= 15
    assert diffusiongpt.__version__
    with pytest.raises(AttributeError, match="nosuch"):
        diffusiongpt.nosuch  # noqa: B018
