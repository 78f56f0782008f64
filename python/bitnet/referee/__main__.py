"""`python -m bitnet.referee RECEIPT [MODEL]`. The exit status is 0 for the same answer, 1 for another, 2 for no result.

Without the package: `cd FOLDER/bitnet && python -m referee RECEIPT [MODEL]`.
"""

import sys

from . import RefereeError, differences

try:
    found = differences(*sys.argv[1:3])
except (RefereeError, OSError, TypeError) as error:
    print(f"error: {error}\nusage: python -m bitnet.referee RECEIPT [MODEL]", file=sys.stderr)
    sys.exit(2)
print("\n".join(found) or "the same answer")
sys.exit(1 if found else 0)
