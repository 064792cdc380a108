"""The Data Quality Monitor."""

from arterial.api.dqm.v1alpha1 import dqm_service_pb2 as dqm
from chassis.errors import Reason
from tests.contract.case import BAD_PAGE, LONG, Case

CASES = {
    "DqmService/GetHealth": Case(
        dqm.GetHealthRequest(dataset="lake/curated/trips"), dqm.GetHealthRequest(dataset=LONG), "dataset", frozenset({Reason.NOT_FOUND})
    ),
    "DqmService/ListIncidents": Case(dqm.ListIncidentsRequest(), dqm.ListIncidentsRequest(page=BAD_PAGE), "page.page_size"),
    "DqmService/GetIncident": Case(
        dqm.GetIncidentRequest(incident_id="absent"), dqm.GetIncidentRequest(), "incident_id", frozenset({Reason.NOT_FOUND})
    ),
    "DqmService/AcknowledgeIncident": Case(
        dqm.AcknowledgeIncidentRequest(incident_id="absent", by="contract"),
        dqm.AcknowledgeIncidentRequest(incident_id="absent"),
        "by",
        frozenset({Reason.NOT_FOUND}),
    ),
}
