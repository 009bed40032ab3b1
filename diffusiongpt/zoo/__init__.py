"""Who can draw: experts, zoo files and their taxonomy, and the tiny zoo that always works."""
