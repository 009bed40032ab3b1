"""`python -m diffusiongpt` is the command line."""

from diffusiongpt.apps.cli import main

main()
