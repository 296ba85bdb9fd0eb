"""From records to figures: one request's measures, then a run's summary, then servers side by side. Pure functions."""
