"""The family of routes that leave it to the model's own template."""

import logging

from server.config.load import Config, ConfigError
from server.config.routes import AUTO
from server.engines import reason_of

log = logging.getLogger(__name__)


def detect_families(config: Config) -> Config:
    """The configuration with a family for each route. Only tokenizers are loaded. Raises `ConfigError` where none fits,
    and where the one that does has not what the route wants."""
    if not any(route.family == AUTO for route in config.routes.values()):
        return config
    from models.formats.template import find_family
    from models.text.tokenizer import HubTokenizer

    routes = dict(config.routes)
    for name, route in config.routes.items():
        if route.family != AUTO:
            continue
        engine = config.engines[route.engine]
        try:
            tokenizer = HubTokenizer(engine.model, chat_template=engine.template)
            family, why = find_family(tokenizer, config.known_families)
        except (ValueError, OSError) as error:
            raise ConfigError(f"routes.{name}.family: {reason_of(error)}") from error
        log.info("routes.%s.family: %s, as %s", name, family.name, why)
        routes[name] = route.detected(family, why)
    return config.with_routes(routes)
