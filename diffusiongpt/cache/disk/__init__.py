"""Checkpoints on disk: planned, pulled, verified, shared by content, accounted for, cleared."""
