"""The version, read from the installed package, so that it stands in one place."""

from importlib.metadata import PackageNotFoundError, version

try:
    VERSION = version("diffusiongpt")
except PackageNotFoundError:  # a source tree that was never installed
    VERSION = "0"

GENERATOR = f"diffusiongpt {VERSION}"
"""What pictures say drew them."""
