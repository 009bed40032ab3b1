"""Results, and the files they become."""
