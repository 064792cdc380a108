"""The control plane: resources and schemas."""

from google.protobuf import descriptor_pb2

from arterial.api.controlplane.v1 import control_plane_service_pb2 as control
from arterial.api.controlplane.v1 import resource_pb2, schema_registry_service_pb2, specs_pb2
from chassis.errors import Reason
from tests.contract.case import BAD_PAGE, Case


def dataset(name: str = "contract/dataset", tier: int = 2) -> resource_pb2.Resource:
    """A dataset resource; tier 9 is invalid."""
    return resource_pb2.Resource(
        api_version="arterial.dev/v1",
        kind="Dataset",
        metadata=resource_pb2.Metadata(name=name, owner="data-platform"),
        dataset=specs_pb2.DatasetSpec(description="for the contract test", tier=tier),
    )


def schema() -> schema_registry_service_pb2.Schema:
    """A small self-contained schema."""
    files = descriptor_pb2.FileDescriptorSet()
    file = files.file.add(name="contract/v1/thing.proto", package="contract.v1", syntax="proto3")
    message = file.message_type.add(name="Thing")
    message.field.add(name="event_id", number=1, type=12, label=1)
    return schema_registry_service_pb2.Schema(file_descriptor_set=files.SerializeToString(), message="contract.v1.Thing")


CASES = {
    "ControlPlaneService/Plan": Case(
        control.PlanRequest(resources=[dataset()]), control.PlanRequest(resources=[dataset(tier=9)]), "resources[0].dataset.tier"
    ),
    "ControlPlaneService/Apply": Case(
        control.ApplyRequest(resources=[dataset()]), control.ApplyRequest(resources=[dataset(tier=9)]), "resources[0].dataset.tier"
    ),
    "ControlPlaneService/GetResource": Case(
        control.GetResourceRequest(kind="Topic", name="trip_events_v2"), control.GetResourceRequest(name="trip_events_v2"), "kind"
    ),
    "ControlPlaneService/ListResources": Case(
        control.ListResourcesRequest(kind="Topic"), control.ListResourcesRequest(page=BAD_PAGE), "page.page_size"
    ),
    "ControlPlaneService/DeleteResource": Case(
        control.DeleteResourceRequest(kind="Dataset", name="contract/absent"),
        control.DeleteResourceRequest(kind="Dataset"),
        "name",
        frozenset({Reason.NOT_FOUND}),
    ),
    "ControlPlaneService/Watch": Case(control.WatchRequest(), control.WatchRequest(resource_version=-1), "resource_version"),
    "ControlPlaneService/ReportStatus": Case(
        control.ReportStatusRequest(kind="Topic", name="trip_events_v2", status=resource_pb2.Status()),
        control.ReportStatusRequest(kind="Topic", name="trip_events_v2"),
        "status",
    ),
    "SchemaRegistryService/RegisterSchema": Case(
        schema_registry_service_pb2.RegisterSchemaRequest(subject="contract-value", schema=schema()),
        schema_registry_service_pb2.RegisterSchemaRequest(schema=schema()),
        "subject",
    ),
    "SchemaRegistryService/GetSchema": Case(
        schema_registry_service_pb2.GetSchemaRequest(schema_id=1), schema_registry_service_pb2.GetSchemaRequest(), "schema_id"
    ),
    "SchemaRegistryService/CheckSchema": Case(
        schema_registry_service_pb2.CheckSchemaRequest(subject="contract-value", schema=schema()),
        schema_registry_service_pb2.CheckSchemaRequest(subject="contract-value"),
        "schema",
    ),
}
