"""The monitor at work: real PostgreSQL, real gRPC."""

from collections.abc import Awaitable
from dataclasses import replace

import numpy as np
import pytest

from arterial.api.controlplane.v1alpha1.partition_service_pb2 import VERDICT_FAIL, VERDICT_NOT_JUDGED, VERDICT_PASS, VERDICT_UNKNOWN
from arterial.api.dqm.v1alpha1 import dqm_service_pb2 as pb
from arterial.api.lineage.v1alpha1 import lineage_service_pb2
from arterial.api.types.v1 import page_pb2
from chassis.errors import ArterialError, Reason
from chassis.testing import eventually
from services.dqm.frame import Frame
from tests.dqm.conftest import DATASETS, EVENTS, PAYMENTS, TRIPS, Quality
from tests.dqm.tables import FIRST, Shape, Table, frame, indices, table, with_fault

SHAPE = Shape(identifiers=3, measures=3, coordinates=2, labels=2)
DAYS = 28
LAST, BEFORE, OLD = str(FIRST + DAYS - 1), str(FIRST + DAYS - 2), str(FIRST + 5)
# Two hours after the last day ended: it has settled.
NOW = float((FIRST + DAYS).astype("datetime64[s]").astype(int)) + 7200.0


def clean(seed: int = 1) -> Table:
    """A table without faults."""
    return table(np.random.default_rng(seed), DAYS, SHAPE)


def told(made: Table, dataset: str, *, corrected: int = 0) -> Frame:
    """Its frame; the last partition was written again so many times."""
    whole = frame(made, dataset)
    versions = whole.versions.copy()
    versions[-1] += corrected
    return replace(whole, versions=versions)


def tables(quality: Quality, made: Table | None = None) -> Table:
    """Events and trips tell the same things, payments others."""
    made = made or clean()
    quality.statistics.frames = {EVENTS: told(made, EVENTS), TRIPS: told(made, TRIPS), PAYMENTS: told(clean(2), PAYMENTS)}
    quality.lineage.upstream = {
        EVENTS: ["kafka/trip_events_v2"],
        TRIPS: [EVENTS, "kafka/trip_events_v2"],
        PAYMENTS: ["kafka/payment_events_v1"],
    }
    return made


async def verdict(quality: Quality, dataset: str, date: str, wanted: int) -> None:
    """Waits until the control plane was told so."""

    async def taken() -> bool:
        found = quality.partitions.verdicts.get((dataset, date))
        return found is not None and found.verdict == wanted

    await eventually(taken, f"verdict {wanted} on {dataset} of {date}")


async def test_clean_partitions_pass_and_old_ones_are_history(quality: Quality) -> None:
    """Every partition of every monitored dataset gets its verdict; nothing is judged twice, and no series is read for nothing."""
    tables(quality)
    async with quality.monitoring(NOW), quality.serving() as stub:
        for dataset in DATASETS:
            await verdict(quality, dataset, LAST, VERDICT_PASS)
            await verdict(quality, dataset, OLD, VERDICT_NOT_JUDGED)
        assert len(quality.partitions.verdicts) == len(DATASETS) * DAYS
        assert quality.partitions.cells == {"local"}
        health = await stub.GetHealth(pb.GetHealthRequest(dataset=TRIPS))
        assert (health.partition_date, health.score, health.table_version) == (LAST, 0, DAYS - 1)
        assert health.series > 100
        assert not (await stub.ListIncidents(pb.ListIncidentsRequest())).incidents
        reads = quality.statistics.full_reads
    async with quality.monitoring(NOW + 60):
        await verdict(quality, TRIPS, LAST, VERDICT_PASS)
    assert quality.statistics.full_reads == reads


async def test_a_fault_is_one_incident_until_it_is_corrected(quality: Quality) -> None:
    """From the fault to its correction: one incident of the most upstream table, both tables blocked, acknowledged, resolved, released."""
    made = tables(quality)
    column = made.names[indices(made, "coordinates")[0]]
    faulty = with_fault(made, "nulls", indices(made, "coordinates")[0], 1)
    quality.lineage.impact[EVENTS] = [lineage_service_pb2.Node(name="model/eta"), lineage_service_pb2.Node(name=TRIPS, columns=[column])]
    async with quality.monitoring(NOW), quality.serving() as stub:
        await verdict(quality, EVENTS, LAST, VERDICT_PASS)
        quality.statistics.frames |= {EVENTS: told(faulty, EVENTS, corrected=1), TRIPS: told(faulty, TRIPS, corrected=1)}
        await verdict(quality, EVENTS, LAST, VERDICT_FAIL)
        await verdict(quality, TRIPS, LAST, VERDICT_FAIL)
        assert quality.partitions.verdicts[PAYMENTS, LAST].verdict == VERDICT_PASS
        (incident,) = (await stub.ListIncidents(pb.ListIncidentsRequest())).incidents
        assert (incident.kind, incident.dataset, incident.market, list(incident.columns)) == (pb.INCIDENT_KIND_NULLS, EVENTS, "2", [column])
        assert list(incident.affected) == [TRIPS, "model/eta"]
        assert incident.evidence[0].column == column
        assert list(quality.partitions.verdicts[TRIPS, LAST].incident_ids) == [incident.incident_id]
        noted = await stub.AcknowledgeIncident(pb.AcknowledgeIncidentRequest(incident_id=incident.incident_id, by="data-platform"))
        assert noted.incident.state == pb.INCIDENT_STATE_ACKNOWLEDGED
        quality.statistics.frames |= {EVENTS: told(made, EVENTS, corrected=2), TRIPS: told(made, TRIPS, corrected=2)}
        await verdict(quality, EVENTS, LAST, VERDICT_PASS)
        await verdict(quality, TRIPS, LAST, VERDICT_PASS)
        done = (await stub.GetIncident(pb.GetIncidentRequest(incident_id=incident.incident_id))).incident
        assert (done.state, done.acknowledged_by) == (pb.INCIDENT_STATE_RESOLVED, "data-platform")
        assert done.resolved_at.seconds >= done.opened_at.seconds
        with pytest.raises(ArterialError) as caught:
            await stub.AcknowledgeIncident(pb.AcknowledgeIncidentRequest(incident_id=incident.incident_id, by="late"))
        assert caught.value.reason is Reason.REFUSED


async def test_verdicts_wait_for_the_control_plane(quality: Quality) -> None:
    """What was judged while it was away is reported by the next process."""
    tables(quality, with_fault(clean(), "halved_volume", 0, 2))
    quality.partitions.away = True
    async with quality.serving() as stub:
        async with quality.monitoring(NOW):

            async def opened() -> bool:
                return bool((await stub.ListIncidents(pb.ListIncidentsRequest(dataset=EVENTS))).incidents)

            await eventually(opened, "an incident")
        assert not quality.partitions.verdicts
        quality.partitions.away = False
        async with quality.monitoring(NOW + 60):
            await verdict(quality, TRIPS, LAST, VERDICT_FAIL)
        assert len((await stub.ListIncidents(pb.ListIncidentsRequest())).incidents) == 1


async def test_a_partition_that_does_not_come_is_stale_until_it_comes(quality: Quality) -> None:
    """A day that ended without its partition blocks it; what arrives late releases it."""
    tables(quality)
    whole = quality.statistics.frames[PAYMENTS]
    short = replace(whole, dates=whole.dates[:-1], versions=whole.versions[:-1], values=whole.values[:, :-1])
    quality.statistics.frames[PAYMENTS] = short
    async with quality.monitoring(NOW), quality.serving() as stub:
        await verdict(quality, PAYMENTS, LAST, VERDICT_FAIL)
        assert quality.partitions.verdicts[PAYMENTS, LAST].table_version == -1
        await verdict(quality, EVENTS, LAST, VERDICT_PASS)
        (incident,) = (await stub.ListIncidents(pb.ListIncidentsRequest())).incidents
        assert (incident.kind, incident.dataset, incident.severity) == (pb.INCIDENT_KIND_STALE, PAYMENTS, 4)
        quality.statistics.frames[PAYMENTS] = whole
        await verdict(quality, PAYMENTS, LAST, VERDICT_PASS)
        page = pb.ListIncidentsRequest(state=pb.INCIDENT_STATE_OPEN)
        assert not (await stub.ListIncidents(page)).incidents


async def test_a_faulty_day_is_no_history(quality: Quality) -> None:
    """A day with an open incident does not teach the next one that half the rows are usual."""
    half = clean()
    for day in (-2, -1):
        half.rows[:, day] = np.round(half.rows[:, day] / 2)
        half.distinct[:, :, day] = np.minimum(half.distinct[:, :, day], half.rows[:, None, day])
    tables(quality, half)
    async with quality.monitoring(NOW), quality.serving() as stub:
        await verdict(quality, EVENTS, LAST, VERDICT_FAIL)
        await verdict(quality, EVENTS, BEFORE, VERDICT_FAIL)
        found = {incident.partition_date: incident for incident in (await stub.ListIncidents(pb.ListIncidentsRequest())).incidents}
        assert set(found) == {BEFORE, LAST}
        assert all(incident.kind == pb.INCIDENT_KIND_VOLUME and incident.market == "" for incident in found.values())


async def test_a_load_that_pauses_is_no_fault(quality: Quality) -> None:
    """Half of a partition is there when it is first looked at; the rest comes before anybody is told."""
    made = tables(quality, with_fault(clean(), "halved_volume", 0, 2))
    whole = clean()
    quality.confirm_seconds = 300.0
    async with quality.monitoring(NOW), quality.serving() as stub:

        async def looked_at() -> bool:
            return quality.statistics.full_reads >= len(DATASETS)

        await eventually(looked_at, "a look at the half")
        assert made.rows[2, -1] < whole.rows[2, -1]
        quality.statistics.frames |= {EVENTS: told(whole, EVENTS, corrected=1), TRIPS: told(whole, TRIPS, corrected=1)}
        await verdict(quality, EVENTS, LAST, VERDICT_PASS)
        assert not (await stub.ListIncidents(pb.ListIncidentsRequest())).incidents


async def test_short_history_is_unknown(quality: Quality) -> None:
    """A new table is neither good nor bad."""
    whole = frame(clean(), PAYMENTS)
    quality.statistics.frames = {
        PAYMENTS: replace(whole, dates=whole.dates[-9:], versions=whole.versions[-9:], values=whole.values[:, -9:])
    }
    async with quality.monitoring(NOW):
        await verdict(quality, PAYMENTS, LAST, VERDICT_UNKNOWN)
        assert "too short" in quality.partitions.verdicts[PAYMENTS, LAST].reasons[0]


async def test_what_is_not_there_is_said_so(quality: Quality) -> None:
    """Unknown datasets and incidents are NOT_FOUND, foreign page tokens are refused."""
    async with quality.serving() as stub:
        calls: list[Awaitable[object]] = [
            stub.GetHealth(pb.GetHealthRequest(dataset="lake/none")),
            stub.GetIncident(pb.GetIncidentRequest(incident_id="none")),
        ]
        calls.append(stub.AcknowledgeIncident(pb.AcknowledgeIncidentRequest(incident_id="none", by="me")))
        for call in calls:
            with pytest.raises(ArterialError) as caught:
                await call
            assert caught.value.reason is Reason.NOT_FOUND
        with pytest.raises(ArterialError) as caught:
            await stub.ListIncidents(pb.ListIncidentsRequest(page=page_pb2.PageRequest(page_token="bm8=")))
        assert caught.value.reason is Reason.INVALID_PAGE_TOKEN
