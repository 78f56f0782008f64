"""`python -m bitnet.referee RECEIPT [MODEL]`: exits with 0 for the same answer, 1 for another, 2 for no result."""

import sys

from . import RefereeError, differences


def main() -> int:
    try:
        found = differences(*sys.argv[1:3])
    except (RefereeError, OSError, TypeError) as error:
        print(f"error: {error}\nusage: python -m bitnet.referee RECEIPT [MODEL]", file=sys.stderr)
        return 2
    print("\n".join(found) or "the same answer")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
