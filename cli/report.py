"""The demo's report: what was found, and whether it is as it should be."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from arterial.api.ingestion.v1 import ingestion_service_pb2 as pb


@dataclass
class Observed:
    """What the demo saw and did, besides the audit."""

    malformed: int = 0
    resent: int = 0
    kills: list[dict[str, Any]] = field(default_factory=list)
    cells: int = 0
    max_multiplier: float = 1.0
    first_surge_seconds: float | None = None
    freshness_ms: list[float] = field(default_factory=list)
    file_rows: int | None = None
    peak_rss_mb: Mapping[str, float] = field(default_factory=dict)
    # Of all processes of the stack at one moment.
    peak_together_mb: float = 0.0
    seconds: float = 0.0


def build(reply: pb.AuditResponse, observed: Observed) -> dict[str, Any]:
    """The report as a document; `problems` says what is not as it should be, `ok` that there are none."""
    topics: Sequence[pb.TopicAudit] = reply.topics
    events = {
        "acked_ids": sum(topic.acked_ids for topic in topics),
        "acked_records": sum(topic.acked_records for topic in topics),
        "kafka": sum(topic.kafka for topic in topics),
        "raw": sum(topic.raw for topic in topics),
        "dead_lettered": sum(topic.dead_lettered for topic in topics),
        "curated_events": sum(topic.curated_events for topic in topics),
        "olap": sum(topic.olap for topic in topics),
        "missing": sum(topic.missing_count for topic in topics),
        "duplicated": sum(topic.duplicated_count for topic in topics),
    }
    backfill = {
        "rows": sum(file.rows for file in reply.files),
        "raw": sum(file.raw for file in reply.files),
        "dead_lettered": sum(file.dead_lettered for file in reply.files),
        "superseded": sum(file.superseded for file in reply.files),
        "missing": sum(file.missing_count for file in reply.files),
        "duplicated": sum(file.duplicated_count for file in reply.files),
    }
    p95 = float(np.percentile(observed.freshness_ms, 95)) if observed.freshness_ms else None
    problems = _problems(reply, events, observed)
    return {
        "events": events,
        "backfill": backfill,
        "surge": {
            "cells": observed.cells,
            "max_multiplier": observed.max_multiplier,
            "freshness_p95_ms": p95,
            "first_surge_seconds": observed.first_surge_seconds,
        },
        "kills": observed.kills,
        "processes": {name: {"peak_rss_mb": round(value, 1)} for name, value in observed.peak_rss_mb.items()},
        "peak_rss_mb_together": round(observed.peak_together_mb, 1),
        "seconds": round(observed.seconds, 1),
        "sent_on_purpose": {key: value for key, value in asdict(observed).items() if key in ("malformed", "resent")},
        "problems": problems,
        "ok": not problems,
    }


def _problems(reply: pb.AuditResponse, events: Mapping[str, int], observed: Observed) -> list[str]:
    checks = {
        "the audit is not exact": reply.exact,
        "nothing was acknowledged": events["acked_ids"] > 0,
        "kafka differs from raw + dead_lettered": events["kafka"] == events["raw"] + events["dead_lettered"],
        "a malformed record is not among the dead letters": events["dead_lettered"] >= observed.malformed >= 10,
        "resent records were not acknowledged as records of their own": events["acked_records"] - events["acked_ids"] >= 10,
        "no worker was killed": bool(observed.kills),
        "no cell had surge": observed.max_multiplier > 1.0 and observed.cells > 0,
        "the file is not in the lake": observed.file_rows is None or [file.rows for file in reply.files] == [observed.file_rows],
    }
    return [problem for problem, holds in checks.items() if not holds]
