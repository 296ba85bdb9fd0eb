"""Questions and replies: where questions come from, how answers are checked, how replies are written and read."""
