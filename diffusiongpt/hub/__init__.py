"""Everything said to the Hugging Face Hub, and what came of it on disk."""
