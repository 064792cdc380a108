"""Traces and metrics over OTLP; imported only by processes that have an endpoint."""

from collections.abc import Mapping

from opentelemetry.exporter.otlp.proto.grpc.metric_exporter import OTLPMetricExporter
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.sdk.trace.sampling import ParentBasedTraceIdRatio

from chassis.config import TelemetryConfig


def providers(config: TelemetryConfig, endpoint: str, attributes: Mapping[str, str]) -> tuple[TracerProvider, MeterProvider]:
    """Providers that export to an endpoint, as a resource with these attributes."""
    resource = Resource.create({"service.namespace": "arterial", **attributes})
    plain = not endpoint.startswith("https://")
    traces = TracerProvider(resource=resource, sampler=ParentBasedTraceIdRatio(config.sample_ratio))
    traces.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(endpoint, insecure=plain), schedule_delay_millis=1000))
    exporter = OTLPMetricExporter(endpoint, insecure=plain)
    reader = PeriodicExportingMetricReader(exporter, export_interval_millis=config.metrics_interval_seconds * 1000)
    return traces, MeterProvider([reader], resource=resource)
