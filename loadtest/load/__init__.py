"""Asking a server: when requests start, what is sent, how it is read, and how runs follow one another."""
