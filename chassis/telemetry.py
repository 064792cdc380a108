"""OpenTelemetry: traces and metrics over OTLP, and `traceparent` for what crosses gRPC and Kafka."""

from collections.abc import Iterable

from opentelemetry import metrics, trace
from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.grpc.metric_exporter import OTLPMetricExporter
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.sdk.trace.sampling import ParentBasedTraceIdRatio
from opentelemetry.trace import Link, SpanContext
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from chassis.config import TelemetryConfig

TRACEPARENT = "traceparent"
# A batch that joins thousands of records links at most so many of their traces: a span must stay small.
MAX_LINKS = 32
_PROPAGATOR = TraceContextTextMapPropagator()


class Telemetry:
    """The providers of a process. Without an endpoint spans are not recorded and metrics not exported."""

    def __init__(self, config: TelemetryConfig, service: str, cell: str) -> None:
        resource = Resource.create({"service.name": service, "service.namespace": "arterial", "arterial.cell": cell})
        readers = []
        self._traces = TracerProvider(resource=resource, sampler=ParentBasedTraceIdRatio(config.sample_ratio))
        if config.otlp_endpoint is not None:
            plain = not config.otlp_endpoint.startswith("https://")
            self._traces.add_span_processor(
                BatchSpanProcessor(OTLPSpanExporter(config.otlp_endpoint, insecure=plain), schedule_delay_millis=1000)
            )
            exporter = OTLPMetricExporter(config.otlp_endpoint, insecure=plain)
            readers.append(PeriodicExportingMetricReader(exporter, export_interval_millis=config.metrics_interval_seconds * 1000))
        self._metrics = MeterProvider(readers, resource=resource)
        self.enabled = config.otlp_endpoint is not None
        self.tracer = self._traces.get_tracer("arterial") if self.enabled else trace.NoOpTracer()
        self.meter: metrics.Meter = self._metrics.get_meter("arterial")

    def shutdown(self) -> None:
        """Exports what is pending and stops."""
        self._traces.shutdown()
        self._metrics.shutdown()


def traceparent() -> str | None:
    """The current trace as a W3C `traceparent`, or None outside of one."""
    carrier: dict[str, str] = {}
    _PROPAGATOR.inject(carrier)
    return carrier.get(TRACEPARENT)


def context_from(value: str | bytes | None) -> Context:
    """The context that a `traceparent` names; an empty one if it names none."""
    text = value.decode("ascii", "replace") if isinstance(value, bytes) else value
    return _PROPAGATOR.extract({TRACEPARENT: text} if text else {}, context=Context())


def links_from(values: Iterable[bytes | str]) -> list[Link]:
    """Links to at most MAX_LINKS distinct traces named by `traceparent` values."""
    contexts: dict[bytes | str, SpanContext] = {}
    for value in values:
        if len(contexts) >= MAX_LINKS:
            break
        if value not in contexts:
            context = trace.get_current_span(context_from(value)).get_span_context()
            if context.is_valid:
                contexts[value] = context
    return [Link(context) for context in contexts.values()]
