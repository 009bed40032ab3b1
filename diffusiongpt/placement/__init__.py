"""Where and how an expert would draw on a machine: what fits, what it takes, and how long it would take."""
