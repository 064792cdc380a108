"""`arterial schema`: the schemas of topics."""

import argparse
import importlib

from google.protobuf import json_format

from arterial.api.controlplane.v1 import schema_registry_service_pb2, schema_registry_service_pb2_grpc
from chassis.errors import ArterialError, Reason
from chassis.wire import descriptor_set
from cli.connect import show, to_service


def register(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Adds the command."""
    schema = commands.add_parser("schema", help="check or register the schema of a topic")
    schema.add_argument("action", choices=("check", "register"))
    schema.add_argument("subject", help="topic name with the suffix -value")
    schema.add_argument("message", help="MODULE:MESSAGE of generated Python stubs, for example thing_pb2:Thing")
    schema.set_defaults(run=run_schema)


async def run_schema(arguments: argparse.Namespace) -> int:
    """Exit status 1 if the schema is not compatible."""
    module, _, name = arguments.message.partition(":")
    try:
        descriptor = getattr(importlib.import_module(module), name).DESCRIPTOR
    except (ImportError, AttributeError, ValueError) as error:
        raise ArterialError(Reason.INVALID_REQUEST, f"{arguments.message} is not MODULE:MESSAGE of importable stubs: {error}") from error
    schema = schema_registry_service_pb2.Schema(file_descriptor_set=descriptor_set(descriptor), message=descriptor.full_name)
    async with to_service(arguments, "controlplane") as channel:
        stub = schema_registry_service_pb2_grpc.SchemaRegistryServiceStub(channel)
        if arguments.action == "register":
            done = await stub.RegisterSchema(schema_registry_service_pb2.RegisterSchemaRequest(subject=arguments.subject, schema=schema))
            show(arguments, json_format.MessageToDict(done), [f"schema {done.schema_id}, version {done.version} of {arguments.subject}"])
            return 0
        reply = await stub.CheckSchema(schema_registry_service_pb2.CheckSchemaRequest(subject=arguments.subject, schema=schema))
    lines = [f"{violation.path}: {violation.rule}: {violation.message}" for violation in reply.violations]
    show(arguments, json_format.MessageToDict(reply), lines or ["compatible"])
    return 0 if reply.compatible else 1
