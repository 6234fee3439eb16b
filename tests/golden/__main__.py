"""python -m tests.golden FILE.safetensors: every group of a golden file, its largest relative error and bound."""

from __future__ import annotations

import sys
from pathlib import Path

from tests.golden.compare import Golden
from tests.golden.fast_wam import fast_wam_rows
from tests.golden.lawam import lawam_rows
from tests.golden.light_wam import light_wam_rows
from tests.golden.wan_vae import wan_vae_rows

# by the beginning of the file's name; the first that fits
RUNNERS = {
    "lightwam_vae_": wan_vae_rows,
    "lightwam_": light_wam_rows,
    "fastwam_": fast_wam_rows,
    "lawam_": lawam_rows,
}


def main() -> int:
    """Exit status 0 when every group is within its bound, 1 when one is not, 2 on a wrong call."""
    if len(sys.argv) != 2:
        print(__doc__)
        return 2
    path = Path(sys.argv[1])
    runners = [runner for prefix, runner in RUNNERS.items() if path.name.startswith(prefix)]
    if not runners:
        print(f"{path.name}: no runner; the name of a golden file begins with one of {', '.join(RUNNERS)}")
        return 2
    rows = runners[0](Golden.read(path))
    for row in rows:
        verdict = "ok  " if row.ok else "FAIL"
        print(f"{verdict} {row.group:<28} {row.error:9.2e}  (bound {row.bound:.0e}, {row.count} values)")
    worst = max(rows, key=lambda row: row.error / row.bound)
    within = sum(row.ok for row in rows)
    print(f"{within} of {len(rows)} groups within bounds; closest: {worst.group} {worst.error:.2e}")
    return 0 if all(row.ok for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
