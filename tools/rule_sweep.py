"""Proves the derivative rules on many random uses of each structured operator and prints a table.

python tools/rule_sweep.py --examples 300 --seed 1 --only Conv MaxPool
"""

import argparse
import re
import sys
import time
from collections import Counter
from pathlib import Path

import hypothesis
from hypothesis import HealthCheck, Phase, settings

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "support"))

from rule_harness import Case
from rule_properties import STRATEGIES, check_drawn


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--examples", type=int, default=300)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", nargs="+", choices=sorted(STRATEGIES), default=sorted(STRATEGIES), metavar="OPERATOR")
    options = parser.parse_args()
    print(f"{'operator':<20} {'examples':>8} {'failures':>8} {'refused':>8} {'seconds':>8}")
    failures = 0
    for op_type in options.only:
        failures += sweep(op_type, options.examples, options.seed)
    return 1 if failures else 0


def sweep(op_type: str, examples: int, seed: int) -> int:
    """Checks `examples` uses, prints what came of them and returns the number of failures."""
    start, drawn = time.perf_counter(), Counter[str]()
    wrong: list[str] = []
    reasons = Counter[str]()

    def check(case: Case) -> None:
        drawn["cases"] += 1
        try:
            refused = check_drawn(case)
        except Exception as error:  # a crash is a failure of this use; the others go on
            wrong.append(f"{case}: {type(error).__name__}: {error}")
            return
        if refused is not None:
            reasons[re.sub(r"[\d(\[][\d, )\]]*", "# ", refused)] += 1

    prepared = settings(
        max_examples=examples,
        deadline=None,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    hypothesis.seed(seed)(prepared(hypothesis.given(STRATEGIES[op_type])(check)))()
    row = (drawn["cases"], len(wrong), reasons.total(), round(time.perf_counter() - start, 1))
    print(f"{op_type:<20}", *(f"{number:>8}" for number in row), flush=True)
    for reason, count in reasons.items():
        print(f"    refused {count}: {reason}")
    for message in wrong[:10]:
        print("    FAILED", " ".join(message.split())[:400])
    return len(wrong)


if __name__ == "__main__":
    sys.exit(main())
