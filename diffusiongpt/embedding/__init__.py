"""Texts as vectors: lexical in any language, and sentences by meaning."""
