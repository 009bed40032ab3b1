"""Changing a zoo file: descriptions from the hub, edits, proposals."""
