"""Records: `python -m tests.recorded --write [names]`. Without `--write` it says which recordings have changed."""

import argparse
import logging
import sys

from tests.recorded.cases import CASES
from tests.recorded.replay import REPLIES, replay


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.recorded", description=__doc__)
    parser.add_argument("names", nargs="*", help="only the cases whose name contains one of these")
    parser.add_argument("--write", action="store_true", help="record what the server says now")
    options = parser.parse_args()
    logging.disable()
    changed = 0
    for case in CASES:
        if options.names and not any(name in case.name for name in options.names):
            continue
        told = replay(case)
        if case.file.exists() and case.file.read_bytes() == told:
            continue
        changed += 1
        print(case.name)
        if options.write:
            case.file.parent.mkdir(parents=True, exist_ok=True)
            case.file.write_bytes(told)
    if options.write and not options.names:
        for file in set(REPLIES.rglob("*.txt")) - {case.file for case in CASES}:
            file.unlink()
            print(f"{file.name}: no such case any more")
    print(f"{changed} {'written' if options.write else 'changed'}")
    return 1 if changed and not options.write else 0


if __name__ == "__main__":
    sys.exit(main())
