"""Times of arrival."""

from arterial.api.eta.v1alpha1 import eta_service_pb2 as eta
from arterial.api.types.v1 import position_pb2
from tests.contract.case import BAD_PAGE, Case

HERE, THERE = position_pb2.Position(latitude=40.75, longitude=-73.98), position_pb2.Position(latitude=40.77, longitude=-73.96)
LEG, NOWHERE = eta.Leg(origin=HERE, destination=THERE), eta.Leg(origin=position_pb2.Position(latitude=140.0), destination=THERE)

CASES = {
    "EtaService/GetEta": Case(eta.GetEtaRequest(city_id=1, leg=LEG), eta.GetEtaRequest(city_id=1, leg=NOWHERE), "leg.origin"),
    "EtaService/ListEtas": Case(eta.ListEtasRequest(city_id=1, legs=[LEG, LEG]), eta.ListEtasRequest(city_id=1), "legs"),
    "EtaService/ListLiveSpeeds": Case(
        eta.ListLiveSpeedsRequest(city_id=1), eta.ListLiveSpeedsRequest(city_id=1, page=BAD_PAGE), "page.page_size"
    ),
}
