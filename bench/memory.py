"""Peak memory of a process that loads an artefact and runs it once, by scheme and precision.

    python -m bench.memory    # under a minute; appends to bench/results/memory.jsonl

ResNet-50 at 90 %, batch 1, one thread, tuned. "value" is the peak beyond Python's own over artefact + arena.
"""

from bench import store
from bench.goals import COLUMNS
from bench.measure import Case, memory

RESULTS = store.RESULTS / "memory.jsonl"
CASES = ((COLUMNS, "fp32"), ("unstructured", "fp32"), ("punched:8x4", "int8"))


def main() -> None:
    stamp = store.stamp()
    for scheme, precision in CASES:
        row = memory(Case("resnet50", scheme, 0.9, 1, precision), 0.0)
        store.append(RESULTS, stamp | {"key": f"resnet50 {scheme} 90% {precision}"} | row)
        print(f"{scheme} {precision}: {row['value']:.2f}", flush=True)


if __name__ == "__main__":
    main()
