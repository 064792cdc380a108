"""The Data Stats Service."""

from arterial.api.dss.v1alpha1 import dss_service_pb2 as dss
from chassis.errors import Reason
from tests.contract.case import BAD_PAGE, Case

TRIPS = "lake/curated/trips"

CASES = {
    "DssService/ListDatasets": Case(dss.ListDatasetsRequest(), dss.ListDatasetsRequest(page=BAD_PAGE), "page.page_size"),
    "DssService/ListSeries": Case(
        dss.ListSeriesRequest(dataset=TRIPS, column="rows"), dss.ListSeriesRequest(dataset=TRIPS, first_date="today"), "first_date"
    ),
    "DssService/ProfilePartition": Case(
        dss.ProfilePartitionRequest(dataset=TRIPS, partition_date="2026-01-01"),
        dss.ProfilePartitionRequest(dataset=TRIPS, partition_date="2026-1-1"),
        "partition_date",
        frozenset({Reason.NOT_FOUND}),
    ),
}
