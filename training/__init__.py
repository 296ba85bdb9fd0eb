"""Makes the models that the server wants. Imports models and the pure parts of controllers; never server."""
