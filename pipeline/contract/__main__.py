"""Writes the contract into the repository that this code stands in."""

import sys
from pathlib import Path

from pipeline.contract.exporting import export


def main() -> int:
    try:
        changed = export(Path(__file__).parents[2])
    except ValueError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    sys.stdout.write("".join(f"wrote {path}\n" for path in changed) or "nothing changed\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
