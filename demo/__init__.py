"""The demo models, and what makes them: no library."""
