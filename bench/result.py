"""How every benchmark ends: one JSON line, last."""

import json
import resource


def report(name: str, value: float, unit: str, *, baseline: tuple[str, float], **beside: float | str) -> None:
    """Prints the result: value in the unit of its goal, the baseline of the same run, their ratio, and what stands beside it."""
    document = {
        "name": name,
        "value": round(value, 3),
        "unit": unit,
        "baseline": {"name": baseline[0], "value": round(baseline[1], 3)},
        "ratio": round(value / baseline[1], 3) if baseline[1] else None,
    }
    print(json.dumps(document | {key: round(found, 3) if isinstance(found, float) else found for key, found in beside.items()}))


def cpu_seconds() -> float:
    """User and system time of this process so far."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime
