"""Who writes to topics, as producers say it themselves; told to lineage, so that a verdict on a schema can name them."""

from collections.abc import Iterable

from arterial.producers import PRODUCER, producer_name
from chassis.errors import ArterialError
from chassis.lineage import JobDefinition, Lineage, Output
from chassis.logs import logger

# Pairs of a producer and a topic that a process tells at most: names without end would fill its memory and the graph.
MAX_TOLD = 1000
_log = logger(__name__)


class Producers:
    """Tells each producer of each topic once."""

    def __init__(self, lineage: Lineage) -> None:
        self._lineage = lineage
        self._told: set[tuple[str, str]] = set()

    def wrote(self, producer: str, topic: str) -> None:
        """A producer, "" for one without a name, wrote to a topic."""
        if not producer or (producer, topic) in self._told or len(self._told) > MAX_TOLD:
            return
        self._told.add((producer, topic))
        if len(self._told) > MAX_TOLD:
            _log.error("producers are not told any more: there are too many", topics=len({told for _, told in self._told}))
            return
        # A job for each topic: other processes may tell the producer's other topics, and what is said last of a job is what holds.
        self._lineage.emit(JobDefinition(f"producer/{producer}/{topic}", (), (Output(f"kafka/{topic}"),)))

    def heard(self, topic: str, headers: Iterable[tuple[str, bytes]]) -> None:
        """A record of a topic has these headers; what is no name in them is passed over."""
        for name, value in headers:
            if name == PRODUCER:
                try:
                    self.wrote(producer_name(value.decode("ascii", "replace")), topic)
                except ArterialError as error:
                    _log.debug("no name of a producer", topic=topic, error=error.message)
