"""From what was understood to a route: search, eligibility, choice."""
