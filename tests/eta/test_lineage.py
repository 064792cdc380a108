"""Lineage of the streams is what they execute."""

import dataclasses

import pyarrow as pa
import pytest

from arterial.api.controlplane.v1 import specs_pb2
from chassis.streaming.lineage import combiner_job, merger_job
from chassis.streaming.measures import CellSource, Measure
from services.eta.speeds import SOURCES, TRIP_METRES
from services.eta.store import OUTPUT
from services.pricing.features import SOURCES as SURGE_SOURCES
from services.pricing.store import OUTPUT as SURGE


def inputs(sources: tuple[CellSource, ...], column: str) -> set[str]:
    """What a column of the partials is made from."""
    return {f"{each.dataset}.{each.column}" for each in combiner_job(OUTPUT, sources).outputs[0].columns[column]}


def test_a_measure_that_reads_another_column_moves_the_edge() -> None:
    """Columns of the sums are those of the declared measures."""
    assert inputs(SOURCES, "counts") == {
        "kafka/gps_pings_v1.driver_state",
        "kafka/gps_pings_v1.speed_mps",
        "kafka/trip_events_v2.status",
        "kafka/trip_events_v2.duration_seconds",
        "kafka/trip_events_v2.distance_m",
    }
    pings = dataclasses.replace(SOURCES[0], measures=(Measure(0, ("accuracy_m",), lambda _, accuracy: accuracy),))
    assert "kafka/gps_pings_v1.accuracy_m" in inputs((pings, SOURCES[1]), "counts")
    assert "kafka/gps_pings_v1.speed_mps" not in inputs((pings, SOURCES[1]), "counts")


def test_a_measure_cannot_read_what_it_does_not_declare() -> None:
    """It is given its columns and no others, so an undeclared one breaks the code."""
    metres = SOURCES[1].measures[1]
    assert metres.index == TRIP_METRES
    undeclared = CellSource("trip_events_v2", "pickup_cell", (dataclasses.replace(metres, columns=("status", "distance_m")),))
    trips = {"city_id": [1], "pickup_cell": [0], "event_time": pa.array([0], pa.timestamp("us")), "status": [5]}
    batch = pa.RecordBatch.from_pydict(trips | {"distance_m": [1], "duration_seconds": [1]})
    with pytest.raises(TypeError):
        undeclared.sums(batch, specs_pb2.EtaPolicySpec(cell_resolution=8, bucket_seconds=30))


def test_served_values_come_from_the_sums() -> None:
    """From partials to the online feature and to the outputs, for eta and pricing; every field of the messages is listed."""
    for form, sources, feature, value in (
        (OUTPUT, SOURCES, "live-speed", "ratio_milli"),
        (SURGE, SURGE_SOURCES, "surge", "multiplier_milli"),
    ):
        job = merger_job(form)
        found = {output.dataset: output for output in job.outputs}
        assert job.inputs == [f"kafka/{form.service}_partials_v1"] == [combiner_job(form, sources).outputs[0].dataset]
        for dataset in (f"feature/{feature}", f"kafka/{form.service}_outputs_v1"):
            assert [(each.dataset, each.column) for each in found[dataset].columns[value]] == [(job.inputs[0], "counts")]
        assert set(found[f"kafka/{form.service}_outputs_v1"].types) == {field.name for field in form.output.DESCRIPTOR.fields}
