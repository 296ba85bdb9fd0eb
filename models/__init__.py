"""Everything that touches weights or tokens: engines, families, templates. Imports nothing of ours."""
