"""What a run came to: tables for the terminal, JSON, CSV, one HTML page, and the progress line."""
