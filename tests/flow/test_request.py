"""Arguments that cannot be used."""

from __future__ import annotations

from typing import Any

import pytest

from diffusiongpt.errors import RequestError
from diffusiongpt.flow import Policy, Request, read_options


@pytest.mark.parametrize(
    ("model", "arguments"),
    [
        (Request, {"prompt": "a fox", "num_inference_steps": "x" * 100_000}),
        (Policy, {"memory": "x" * 100_000}),
        (Policy, {"prefer": "x" * 100_000}),
        (Policy, {"max_price": -(10**3000)}),
    ],
)
def test_an_error_shows_only_the_beginning_of_a_value(model: type[Request | Policy], arguments: dict[str, Any]) -> None:
    """A value may come from a stranger's file; what is wrong with it fits on a screen."""
    with pytest.raises(RequestError) as caught:
        model(**arguments)
    assert len(str(caught.value)) < 1_000


def test_an_unknown_argument_is_named_in_brief() -> None:
    """Its name may come from a stranger as well."""
    with pytest.raises(RequestError, match="unknown argument") as caught:
        read_options({"prompt": "a fox", "x" * 100_000: 1})
    assert len(str(caught.value)) < 1_000
