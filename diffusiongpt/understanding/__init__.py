"""From a prompt to what it says and needs."""
