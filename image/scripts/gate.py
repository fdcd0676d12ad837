"""The one required status check of a branch: every job of the workflow succeeded.

Reads the variable NEEDS, `toJSON(needs)` of the workflow. A job that was skipped because another failed does not count
as success; one that is skipped on purpose is named on the command line.
"""

from __future__ import annotations

import argparse
import json
import os
import sys


def unsuccessful(needs: dict[str, dict[str, object]], may_skip: frozenset[str]) -> list[str]:
    """Return a line for each job that did not succeed."""
    allowed = {name: {"success", "skipped"} if name in may_skip else {"success"} for name in needs}
    return [f"{name}: {job['result']}" for name, job in needs.items() if job["result"] not in allowed[name]]


def main(argv: list[str] | None = None) -> int:
    """Run the command line."""
    parser = argparse.ArgumentParser(prog="image/scripts/gate.py", description="Check the jobs in $NEEDS.")
    parser.add_argument("--may-skip", action="append", default=[], metavar="JOB")
    options = parser.parse_args(argv)
    needs = json.loads(os.environ.get("NEEDS", "{}"))
    if not needs:
        sys.stderr.write("error: NEEDS names no job\n")
        return 1
    wrong = unsuccessful(needs, frozenset(options.may_skip))
    sys.stdout.write("".join(f"{line}\n" for line in wrong) or "all jobs succeeded\n")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
