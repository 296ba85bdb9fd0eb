"""Recipe files as frozen classes. No torch here: a recipe is checked before anything loads."""
