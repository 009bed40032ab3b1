"""From a route to pictures."""
