"""Every backend of the package is called as the protocols say; they are found by name, where no type checker looks."""

from __future__ import annotations

import inspect

import pytest

from diffusiongpt.backends import BACKENDS, AdapterBackend, Backend, ComposingBackend, HostedBackend, get_backend


@pytest.mark.parametrize("name", BACKENDS.ours)
def test_each_backend_takes_the_arguments_of_its_protocol(name: str) -> None:
    """A method with other arguments would fail only when it is called."""
    backend = get_backend(name)
    more = [one for one in (AdapterBackend, ComposingBackend) if isinstance(backend, one)]
    methods = {}
    for protocol in [HostedBackend] if backend.hosted else [Backend, *more]:
        methods |= inspect.getmembers(protocol, lambda one: inspect.isfunction(one) and one.__name__[0] != "_")
    assert "draw" in methods
    if not hasattr(backend, "tasks"):
        del methods["tasks"]  # the one that may be left out
    for method, wanted in methods.items():
        asked = list(inspect.signature(wanted).parameters)[1:]
        assert list(inspect.signature(getattr(backend, method)).parameters) == asked, method
