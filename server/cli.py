"""The command line: `reasond serve | check | key new`. Each command loads what it needs, so that help comes at once."""

import argparse
import json
import os
import sys
from collections.abc import Sequence
from typing import Any

from models.formats import FAMILIES
from server import __version__
from server.config.load import Config, ConfigError, load_config
from server.config.single_model import config_of, toml_of

ONE_MODEL = "the TOML file; or a folder or hub id, served alone, with any of vLLM's own flags"


def main(arguments: Sequence[str] | None = None) -> int:
    args, flags = parser().parse_known_args(arguments)
    if flags and args.run not in (run_serve, run_check):
        parser().error(f"unrecognized arguments: {' '.join(flags)}")
    args.flags = flags
    try:
        status: int = args.run(args)
    except ConfigError as error:
        print(error, file=sys.stderr)
        return 2
    return status


def parser() -> argparse.ArgumentParser:
    top = argparse.ArgumentParser(prog="reasond", description="The reasoning-control server.")
    top.add_argument("--version", action="version", version=f"reasond {__version__}")
    commands = top.add_subparsers(required=True, metavar="COMMAND")

    serve = commands.add_parser("serve", help="start the engines and serve")
    serve.add_argument("config", metavar="CONFIG|MODEL", help=ONE_MODEL)
    serve.add_argument("--served-model-name", default="", help="the route of a MODEL; left out: the model's own name")
    serve.add_argument("--print-config", action="store_true", help="write the configuration of a MODEL, and end")
    serve.add_argument("--host", help="instead of server.host")
    serve.add_argument("--port", type=port, help="instead of server.port")
    serve.set_defaults(run=run_serve)

    check = commands.add_parser("check", help="check a configuration; print it resolved, with its memory plan")
    check.add_argument("config", metavar="CONFIG|MODEL", help=ONE_MODEL)
    check.add_argument("--device-memory", type=float, metavar="GIB", help="of one device, to plan its cache too")
    check.set_defaults(run=run_check)

    families = commands.add_parser("families", help="list the families of models: modes, efforts, tool calls")
    families.add_argument("config", nargs="?", help="a TOML file with further ones")
    families.set_defaults(run=run_families)

    key = commands.add_parser("key", help="API keys").add_subparsers(required=True, metavar="ACTION")
    new = key.add_parser("new", help="make a key; print it, and its line for the keys file")
    new.add_argument("name", nargs="?", default="unnamed", help="whose key it is")
    new.set_defaults(run=run_key_new)
    return top


def run_serve(args: argparse.Namespace) -> int:
    if args.print_config:
        print(toml_of(args.config, args.served_model_name, args.flags), end="")
        return 0
    from server.serve import serve

    config = config_of(args.config, args.served_model_name, args.flags)
    return serve(with_address(config, args.host, args.port))


def run_check(args: argparse.Namespace) -> int:
    from server.edges.auth import load_keys
    from server.families import detect_families, family_lines
    from server.fingerprint import check_calibrations
    from server.memory_plan import plan_lines

    config = detect_families(config_of(args.config, flags=args.flags))
    check_calibrations(config)
    load_keys(config.server.keys_file, os.environ)
    print(json.dumps(resolved(config), ensure_ascii=False, indent=2))
    for line in (*family_lines(config), *plan_lines(config, args.device_memory)):
        print(line)
    return 0


def run_families(args: argparse.Namespace) -> int:
    known = load_config(args.config).known_families if args.config else FAMILIES
    print(f"{'family':<16}{'modes':<22}{'efforts':<28}tool calls")
    for name, form in known.items():
        modes = ", ".join([*form.able, *(["auto"] if form.chooses else [])])
        efforts = ", ".join(word for word in form.efforts if word != "argument") or "-"
        calls = (
            "-" if form.tools is None else f"{form.tools.arguments} in {form.tools.open.strip() or 'the whole answer'}"
        )
        print(f"{name:<16}{modes:<22}{efforts:<28}{calls}")
    return 0


def run_key_new(args: argparse.Namespace) -> int:
    from server.edges.auth import key_line, new_key

    key = new_key()
    print(f"key, shown this once:     {key}")
    print(f"line for the keys file:   {key_line(key, args.name)}")
    return 0


def with_address(config: Config, host: str | None, port: int | None) -> Config:
    asked = {name: value for name, value in (("host", host), ("port", port)) if value is not None}
    return config.model_copy(update={"server": config.server.model_copy(update=asked)})


def port(text: str) -> int:
    number = int(text)
    if not 0 <= number <= 65535:
        raise ValueError
    return number


def resolved(config: Config) -> dict[str, Any]:
    """The settings as they will be used. Of an engine's environment the names are shown, the values may be secret."""
    dump = config.model_dump(mode="json", exclude_none=True)
    for name, route in config.routes.items():
        dump["routes"][name]["mode"] = route.default_mode
    for engine in dump["engines"].values():
        if "env" in engine:
            engine["env"] = dict.fromkeys(engine["env"], "(set)")
    return dump


if __name__ == "__main__":
    sys.exit(main())
