"""A black-box client for any OpenAI-compatible server. Imports nothing of ours."""
