"""Decide how much and what kind of thinking a request gets. Imports models."""
