"""Starting is fast: nothing heavy is imported before it is needed."""

from __future__ import annotations

import inspect
import json
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

import diffusiongpt
from diffusiongpt import errors
from diffusiongpt.errors import DiffusionGPTError
from diffusiongpt.flow import Request

if TYPE_CHECKING:
    from collections.abc import Callable

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
    """Heavy packages in `sys.modules` after some code has run in a fresh interpreter."""
    show = f"\nimport json, sys\nsys.stderr.write(json.dumps([name for name in {HEAVY} if name in sys.modules]))"
    done = subprocess.run([sys.executable, "-c", code + show], capture_output=True, text=True, check=True)
    return set(json.loads(done.stderr))


def test_import_is_light() -> None:
    """`import diffusiongpt` and a look at its public names import no heavy package."""
    assert imported_by("import diffusiongpt; dir(diffusiongpt); diffusiongpt.__version__") == set()


def test_help_is_light() -> None:
    """`diffusiongpt --help` imports no heavy package."""
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
    """`diffusiongpt.route` stays a function, even after a module of that name was imported."""
    from diffusiongpt.flow import Route
    from diffusiongpt.studio import DiffusionGPT

    assert callable(diffusiongpt.route)
    assert diffusiongpt.Route is Route
    assert diffusiongpt.DiffusionGPT is DiffusionGPT


def test_every_public_name_is_there() -> None:
    """Each name in `__all__` can be used and has a docstring; a name that does not exist is an `AttributeError`."""
    for name in diffusiongpt.__all__:
        assert getattr(diffusiongpt, name).__doc__, name
    assert diffusiongpt.__version__
    with pytest.raises(AttributeError, match="nosuch"):
        diffusiongpt.nosuch  # noqa: B018


def test_dir_shows_the_product_and_nothing_else() -> None:
    """There are functions, classes, protocols and errors, no room and no helper, whatever was imported before."""
    import diffusiongpt.studio

    assert set(dir(diffusiongpt)) == {*diffusiongpt.__all__, "__version__"}
    kinds = [kind for kind in vars(errors).values() if isinstance(kind, type)]
    tree = {kind.__name__ for kind in kinds if issubclass(kind, DiffusionGPTError)}
    assert tree <= set(diffusiongpt.__all__)


@pytest.mark.parametrize(
    ("function", "own"),
    [
        (diffusiongpt.route, ()),
        (diffusiongpt.route_and_generate, ()),
        (diffusiongpt.aroute_and_generate, ()),
        (diffusiongpt.compare, ("k",)),
        (diffusiongpt.DiffusionGPT.route, ()),
        (diffusiongpt.DiffusionGPT.route_and_generate, ()),
        (diffusiongpt.DiffusionGPT.compare, ("k",)),
        (diffusiongpt.DiffusionGPT.generate_many, ("prompts", "return_exceptions")),
    ],
)
def test_signatures_are_spelt_out(function: Callable[..., object], own: tuple[str, ...]) -> None:
    """`help()` and editors show every field of `Request` and `Policy` with the default of the model."""
    shown = {
        name: parameter
        for name, parameter in inspect.signature(function).parameters.items()
        if name not in ("self", *own)
    }
    fields = {**Request.model_fields, **diffusiongpt.Policy.model_fields}
    if "prompts" in own:
        del fields["prompt"]
    assert set(shown) == {*fields, "generator"}
    for name, field in fields.items():
        default = inspect.Parameter.empty if field.is_required() else field.default
        assert shown[name].default == default, name
        assert name == "prompt" or shown[name].kind is inspect.Parameter.KEYWORD_ONLY, name


def test_every_argument_is_described() -> None:
    """Each field is described in a sentence, for schemas and for the docstring of the method that takes it."""
    described = inspect.getdoc(diffusiongpt.DiffusionGPT.route_and_generate) or ""
    for name, field in {**Request.model_fields, **diffusiongpt.Policy.model_fields}.items():
        assert field.description, name
        assert f"    {name}: " in described, name
