"""The preference model: features, likelihoods, fits, and the checks on them."""
