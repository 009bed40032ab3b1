"""From votes and published evidence to a score for each expert."""
