"""`arterial models`: which versions of which models serve, and rollback."""

import argparse
from typing import Any

from google.protobuf import json_format

from arterial.api.controlplane.v1 import control_plane_service_pb2_grpc
from arterial.api.controlplane.v1alpha1 import model_service_pb2 as pb
from arterial.api.controlplane.v1alpha1 import model_service_pb2_grpc
from chassis import resources
from cli.connect import paged, show, table, to_service
from cli.inspecting import listed


def register(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Adds the command."""
    models = commands.add_parser("models", help="models, the versions of one, or rollback to the version before the live one")
    models.add_argument("name", nargs="?", default="")
    models.add_argument("action", nargs="?", default="", choices=("", "rollback"), metavar="rollback")
    models.add_argument("--reason", default="", help="why it is rolled back, for the record")
    models.add_argument("--limit", type=int, default=50, help="versions at most")
    models.set_defaults(run=run)


async def run(arguments: argparse.Namespace) -> int:
    """A table of models, a table of versions, or a rollback."""
    async with to_service(arguments, "controlplane") as channel:
        if not arguments.name:
            await _list_models(arguments, control_plane_service_pb2_grpc.ControlPlaneServiceStub(channel))
            return 0
        stub: Any = model_service_pb2_grpc.ModelServiceStub(channel)
        if arguments.action == "rollback":
            reply = await stub.RollbackModel(pb.RollbackModelRequest(model=arguments.name, reason=arguments.reason))
            show(
                arguments, json_format.MessageToDict(reply.version), [f"version {reply.version.version} of {arguments.name} is live again"]
            )
            return 0
        await _list_versions(arguments, stub)
    return 0


async def _list_models(arguments: argparse.Namespace, stub: Any) -> None:
    found = await listed(stub, "Model")
    rows = [["MODEL", "OWNER", "SERVICE", "LIVE", "SHADOW", "PINNED"]]
    for model in found:
        served = model.status.model
        names = [served.live.version or "-", served.shadow.version or "-", model.model.pinned_version or "-"]
        rows.append([model.metadata.name, model.metadata.owner, model.model.service, *names])
    show(arguments, [resources.to_document(model) for model in found], table(rows))


async def _list_versions(arguments: argparse.Namespace, stub: Any) -> None:
    found = await paged(
        lambda page: stub.ListVersions(pb.ListVersionsRequest(model=arguments.name, page=page)), "versions", arguments.limit
    )
    rows = [["VERSION", "STAGE", "METRICS", "REASONS"]]
    for version in found:
        metrics = " ".join(f"{name}={value:.4g}" for name, value in sorted(version.metrics.items()))
        stage = pb.VersionStage.Name(version.stage).removeprefix("VERSION_STAGE_")
        rows.append([version.version, stage, metrics, "; ".join(version.reasons)])
    show(arguments, [json_format.MessageToDict(version) for version in found], table(rows))
