"""Runs the application, and stops it kindly: no new connections, then a time to drain, then the engines close."""

import logging
import math
import signal
import socket

import uvicorn
from fastapi import FastAPI

from server.app import create_app
from server.config import Config, ConfigError

KEEP_ALIVE_SECONDS = 75  # longer than load balancers keep an idle connection, so that they and not we close it


class DrainingServer(uvicorn.Server):
    """uvicorn, with the application told that it is draining before connections are."""

    def __init__(self, config: uvicorn.Config, app: FastAPI) -> None:
        super().__init__(config)
        self.app = app

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self.app.state.runtime.draining.set()
        await super().shutdown(sockets)


def build_server(config: Config, app: FastAPI) -> DrainingServer:
    """A server that is ready to run. What outlives `drain_seconds` is cancelled, so engines abort it."""
    settings = uvicorn.Config(
        app,
        host=config.server.host,
        port=config.server.port,
        loop="uvloop",
        http="httptools",
        ws="none",
        lifespan="on",
        log_config=None,
        access_log=config.server.log_requests,
        server_header=False,
        timeout_keep_alive=KEEP_ALIVE_SECONDS,
        timeout_graceful_shutdown=math.ceil(config.server.drain_seconds),
    )
    return DrainingServer(settings, app)


def serve(config: Config) -> int:
    """Serves until a stop signal. Returns the process's exit status."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    require_free_port(config.server.host, config.server.port)
    server = build_server(config, create_app(config))
    for number in (signal.SIGINT, signal.SIGTERM):
        # uvicorn handles these while it runs, and raises what it caught once more at its end: by then all is done.
        signal.signal(number, signal.SIG_IGN)
    server.run()
    return 0 if server.started else 3


def require_free_port(host: str, port: int) -> None:
    """Raises `ConfigError` where the address cannot be had: said now, not after minutes of loading models.

    The socket is not kept: engines may fork, and a forked engine that holds it would keep the port open while we drain.
    """
    try:
        socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET).close()
    except OSError as error:
        raise ConfigError(f"server.port: cannot listen on {host}:{port}: {error.strerror}") from error
