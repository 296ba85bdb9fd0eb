"""The command line: `reasond serve | check | families | key new`. Each loads what it needs: help comes at once."""

import argparse
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from server import __version__

if TYPE_CHECKING:
    from server.config.load import Config

TARGET = "a TOML file; or a model, served alone: a folder, a hub id, or the folder of a training run"
READ_HERE = {"--reasoning-parser": 1, "--tool-call-parser": 1, "--enable-auto-tool-choice": 0}
"""Flags of vLLM's server for what reasond finds out itself, with the count of their values."""


def main(arguments: Sequence[str] | None = None) -> int:
    args, flags = parser().parse_known_args(arguments)
    if flags and args.run not in (run_serve, run_check):
        parser().error(f"unrecognized arguments: {' '.join(flags)}")
    args.flags = flags
    from server.config.load import ConfigError

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

    epilog = "Every other flag is vLLM's, for the engine of a model: --max-model-len 8192, -tp 2, --enforce-eager, ..."
    serve = commands.add_parser("serve", help="start the engines and serve", allow_abbrev=False, epilog=epilog)
    _add_target(serve)
    serve.add_argument("--print-config", action="store_true", help="write the configuration as a file, and end")
    serve.add_argument("--host", help="instead of server.host")
    serve.add_argument("--port", type=port, help="instead of server.port")
    serve.set_defaults(run=run_serve)

    check = commands.add_parser(
        "check", help="say what would be served, and what would be refused", allow_abbrev=False, epilog=epilog
    )
    _add_target(check)
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


def _add_target(command: argparse.ArgumentParser) -> None:
    command.add_argument("target", metavar="CONFIG|MODEL", help=TARGET)
    command.add_argument("-v", "--verbose", action="store_true", help="tell all that vLLM and other libraries say, too")
    model = command.add_argument_group("for a model")
    model.add_argument("--config", default="", metavar="FILE", help="a TOML file with all else: [server], [keys], ...")
    model.add_argument("--served-model-name", nargs="+", default=[], metavar="NAME", help="instead of the model's own")
    for flag, values in READ_HERE.items():
        kind: dict[str, Any] = {"nargs": values} if values else {"action": "store_true"}
        model.add_argument(flag, help=argparse.SUPPRESS, **kind)


def run_serve(args: argparse.Namespace) -> int:
    from server.config.command_line import to_toml
    from server.config.load import parse_table

    table, folder = _table(args)
    if args.print_config:
        print(to_toml(table), end="")
        return 0
    from server.serve import serve

    return serve(parse_table(table, folder))


def run_check(args: argparse.Namespace) -> int:
    from server.check import report
    from server.config.load import ConfigError, parse_table
    from server.edges.auth import load_keys
    from server.families import detect_families
    from server.fingerprint import check_calibrations
    from server.observability import logs
    from server.observability.foreign import diverted

    config = parse_table(*_table(args))
    load_keys(config.server.keys_file, os.environ)
    with diverted() as foreign:
        if args.verbose:
            logs.configure(config.logging, foreign.err)
        config = detect_families(config)
        check_calibrations(config)
        lines, refused = report(config, args.device_memory)
    if Path(args.target).is_file():
        print(json.dumps(resolved(config), ensure_ascii=False, indent=2))
    print(*lines, sep="\n")
    if refused:
        raise ConfigError("\n".join(refused))
    return 0


def run_families(args: argparse.Namespace) -> int:
    from models.formats import FAMILIES
    from server.config.load import load_config

    known = load_config(args.config).known_families if args.config else FAMILIES
    print(f"{'family':<16}{'modes':<22}{'efforts':<28}tool calls")
    for name, form in known.items():
        modes = ", ".join([*form.able, *(["auto"] if form.chooses else [])])
        efforts = ", ".join(word for word in form.efforts if word != "argument") or "-"
        calls = (
            "-" if form.tools is None else f"{form.tools.style_name} in {form.tools.open.strip() or 'the whole answer'}"
        )
        print(f"{name:<16}{modes:<22}{efforts:<28}{calls}")
    return 0


def run_key_new(args: argparse.Namespace) -> int:
    from server.edges.auth import key_line, new_key

    key = new_key()
    print(f"key, shown this once:     {key}")
    print(f"line for the keys file:   {key_line(key, args.name)}")
    return 0


def _table(args: argparse.Namespace) -> tuple[dict[str, Any], Path]:
    """What is to be served, as a configuration file would say it."""
    address = {name: value for name in ("host", "port") if (value := getattr(args, name, None)) is not None}
    settings: dict[str, Any] = {"server": address} if address else {}
    if args.verbose:
        settings["logging"] = {"level": "debug"}
    for flag in READ_HERE:
        if getattr(args, flag.removeprefix("--").replace("-", "_")):
            print(f"{flag}: left out, since the family says how the model writes", file=sys.stderr)
    from server.config.command_line import table_of
    from server.observability.foreign import diverted

    with diverted():  # vLLM has something to say when it reads its flags
        return table_of(args.target, args.served_model_name, args.flags, args.config, settings)


def port(text: str) -> int:
    number = int(text)
    if not 0 <= number <= 65535:
        raise ValueError
    return number


def resolved(config: "Config") -> dict[str, Any]:
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
