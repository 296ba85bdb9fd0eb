"""`python -m tests.chaos [--long] [NAMES]`: runs the scenarios in turn and prints the figures of each as JSON."""

import argparse
import importlib
import json
import signal
import sys
import time
import traceback

SCENARIOS = ("replicas", "drain", "fuzzed", "fleet", "overload", "engines")


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    parser.add_argument("names", nargs="*", choices=[*SCENARIOS, []], help="left out: all of them")
    parser.add_argument("--long", action="store_true", help="as many kills and minutes as the criteria ask")
    options = parser.parse_args()
    failed = 0
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that the servers end with it
    for name in options.names or SCENARIOS:
        began = time.monotonic()
        story = importlib.import_module(f"tests.chaos.{name}").story
        try:
            told = story(short=not options.long)
        except Exception:  # noqa: BLE001 - the others are still to be run
            traceback.print_exc()
            told, failed = {"failed": True}, failed + 1
        print(json.dumps({"scenario": name, "seconds": round(time.monotonic() - began), **told}), flush=True)
    return min(failed, 1)


if __name__ == "__main__":
    sys.exit(main())
