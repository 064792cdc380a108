"""Lineage: events in, walks out."""

from arterial.api.lineage.v1alpha1 import lineage_service_pb2 as lineage
from chassis.errors import Reason
from tests.contract.case import BAD_PAGE, Case
from tests.lineage.events import dataset, event

ABSENT = frozenset({Reason.NOT_FOUND})
EVENT = event("contract", [dataset("contract_in", ["a"])], [dataset("contract_out", ["b"])])

CASES = {
    "LineageService/PutEvents": Case(
        lineage.PutEventsRequest(events=[EVENT]), lineage.PutEventsRequest(events=[EVENT, "{}"]), "events[1].eventTime"
    ),
    "LineageService/GetUpstream": Case(
        lineage.GetUpstreamRequest(name="contract/absent"), lineage.GetUpstreamRequest(name="contract/absent", depth=-1), "depth", ABSENT
    ),
    "LineageService/GetDownstream": Case(
        lineage.GetDownstreamRequest(name="contract/absent"),
        lineage.GetDownstreamRequest(name="contract/absent", depth=-1),
        "depth",
        ABSENT,
    ),
    "LineageService/GetImpact": Case(lineage.GetImpactRequest(name="contract/absent"), lineage.GetImpactRequest(), "name", ABSENT),
    "LineageService/ListColumns": Case(lineage.ListColumnsRequest(name="contract/absent"), lineage.ListColumnsRequest(), "name", ABSENT),
    "LineageService/Search": Case(lineage.SearchRequest(text="a"), lineage.SearchRequest(text="a", page=BAD_PAGE), "page.page_size"),
}
