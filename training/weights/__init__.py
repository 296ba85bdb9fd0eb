"""Weights and tokenizers: loading, saving, downloading, merging."""
