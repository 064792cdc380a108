"""The demo's report: what was found, and whether it is as it should be."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from arterial.api.dqm.v1alpha1.dqm_service_pb2 import Incident
from arterial.api.ingestion.v1 import ingestion_service_pb2 as pb
from cli.answers import EtaAnswers, RadarAnswers
from cli.story import Findings
from deploy.local.memory import Peaks
from simulator.faults import Fault


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
    # Source and rows of the trip file, if one was given.
    file: tuple[str, int] | None = None
    memory: Peaks = field(default_factory=Peaks)
    seconds: float = 0.0
    findings: Findings = field(default_factory=Findings)
    fault: Fault | None = None
    eta: EtaAnswers = field(default_factory=EtaAnswers)
    radar: RadarAnswers = field(default_factory=RadarAnswers)
    # What kept the story from its end; empty if nothing did.
    story_error: str = ""


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
        **_story(observed),
        "kills": observed.kills,
        "processes": {name: {"peak_pss_mb": round(value, 1)} for name, value in observed.memory.each_mb.items()},
        # Proportional: pages that processes share count once.
        "peak_pss_mb_together": round(observed.memory.together_mb, 1),
        "seconds": round(observed.seconds, 1),
        "sent_on_purpose": {key: value for key, value in asdict(observed).items() if key in ("malformed", "resent")},
        "problems": problems,
        "ok": not problems,
    }


def detected(observed: Observed) -> bool:
    """True if the open incidents tell the fault's table, column and market: the first of them does."""
    fault, incidents = observed.fault, observed.findings.incidents
    if fault is None or not incidents:
        return False
    return any(tells(incident, fault) for incident in incidents)


def tells(incident: Incident, fault: Fault) -> bool:
    """True if an incident names the fault's table, market and, if it has one, column."""
    right_table = incident.dataset in (f"lake/curated/{fault.topic}", f"lake/raw/{fault.topic}")
    right_columns = not fault.columns or bool(set(fault.columns) & set(incident.columns[:3]))
    return right_table and right_columns and incident.market == str(fault.city_id)


def _story(observed: Observed) -> dict[str, Any]:
    found = observed.findings
    return {
        "fault": str(observed.fault) if observed.fault else None,
        "eta": observed.eta.report(),
        "radar": observed.radar.report(),
        "dss": {"series": found.series},
        "dqm": {
            "incidents": len(found.incidents),
            "detected_fault": detected(observed),
            "minutes_to_detect": found.minutes_to_detect,
        },
        "gate": {"blocked_runs": len(found.blocked), "released_runs": len(found.released)},
        "lineage": {"nodes": len(found.nodes), "edges": len(found.edges), "impacted": len(found.impacted)},
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
        "the file is not in the lake": observed.file is None or observed.file in [(file.source, file.rows) for file in reply.files],
    }
    checks |= _story_checks(observed)
    return [problem for problem, holds in checks.items() if not holds]


def _story_checks(observed: Observed) -> dict[str, bool]:
    found, faulty = observed.findings, observed.fault is not None
    radar = observed.radar.report()
    return {
        observed.story_error or "the story": not observed.story_error,
        "no model answered an ETA": bool(observed.eta.report()["model_version"]),
        "nothing was profiled": found.series > 0,
        "no decision on a payment": bool(radar["allow"] or radar["review"] or radar["block"]),
        "no fraudster was caught": bool(radar["caught"]),
        "an incident without a fault": faulty or not found.incidents,
        "the fault was not detected as what it is": not faulty or detected(observed),
        "no training run was held up and released": not faulty or bool(found.released),
        "lineage knows nobody who is hit": not faulty or bool(found.impacted),
    }
