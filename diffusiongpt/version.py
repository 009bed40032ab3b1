"""The version, read from the installed package: there is no second place to change."""

from importlib.metadata import PackageNotFoundError, version

try:
    VERSION = version("diffusiongpt")
except PackageNotFoundError:  # a source tree that was never installed
    VERSION = "0"

GENERATOR = f"diffusiongpt {VERSION}"
"""What pictures say drew them."""
