"""Measures models on test questions: figures, intervals, tables and plots."""
