"""Votes and ratings as files."""
