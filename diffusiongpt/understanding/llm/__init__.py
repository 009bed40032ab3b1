"""An LLM as thinker, through LangChain."""
