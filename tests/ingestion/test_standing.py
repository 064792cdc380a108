"""What ingestion says of topics and pipelines."""

from pathlib import Path

from arterial.api.controlplane.v1 import resource_pb2, specs_pb2
from chassis.desired import Desired, DesiredFeed
from chassis.reporting import Reporter, Reports, Standing
from services.ingestion.standing import say_followed, say_raw

RAW, CURATED = specs_pb2.PIPELINE_ROLE_RAW, specs_pb2.PIPELINE_ROLE_CURATED


Said = tuple[bool | None, str] | None


class Heard(Reports):
    """Keeps what is said."""

    def __init__(self) -> None:
        super().__init__(Reporter("", "", ""))
        self.said: dict[str, Said] = {}

    def say(self, kind: str, name: str, generation: int, standing: Standing | None) -> None:
        """Notes it, with the generation checked."""
        assert generation == 3
        self.said[f"{kind}/{name}"] = (standing.holds, standing.reason) if standing is not None else None


def heard(folder: Path, role: specs_pb2.PipelineRole.ValueType, *, paused: bool = False) -> tuple[DesiredFeed, Desired, dict[str, Said]]:
    """A feed with topics a and b, and a pipeline over both."""
    metadata = [resource_pb2.Metadata(name=name, generation=3) for name in ("a", "b", "p")]
    topics = [resource_pb2.Resource(kind="Topic", metadata=data, topic=specs_pb2.TopicSpec(message="m")) for data in metadata[:2]]
    spec = specs_pb2.PipelineSpec(role=role, topics=["a", "b"], paused=paused)
    desired = Desired((*topics, resource_pb2.Resource(kind="Pipeline", metadata=metadata[2], pipeline=spec)), 9)
    feed = DesiredFeed(desired, folder, None)
    reports = feed.reports = Heard()
    return feed, desired, reports.said


async def test_a_topic_is_ready_where_its_partitions_are_read(tmp_path: Path) -> None:
    """What it said of a topic goes with its partitions, and of the pipeline unless it reads all; a rebalance under way changes neither."""
    feed, desired, said = heard(tmp_path, RAW)
    say_raw(feed, desired, None, {}, {})
    assert not said
    say_raw(feed, desired, {"a": 4}, {}, {})
    assert said == {"Topic/a": (True, "Read"), "Topic/b": None, "Pipeline/p": None}
    say_raw(feed, desired, {"a": 4, "b": 4}, {}, {})
    say_raw(feed, desired, None, {}, {})
    assert said["Topic/b"] == (True, "Read") and said["Pipeline/p"] == (True, "Running")
    say_raw(feed, desired, None, {"b": "OSError: no"}, {})
    assert said["Topic/b"] == said["Pipeline/p"] == (False, "TableFailed") and said["Topic/a"] == (True, "Read")
    say_raw(feed, desired, {"b": 4}, {}, {})
    assert said == {"Topic/a": None, "Topic/b": (True, "Read"), "Pipeline/p": None}


async def test_a_pipeline_that_follows_is_ready_when_every_topic_was_stepped(tmp_path: Path) -> None:
    """A failure names its topic; a paused pipeline is as declared."""
    feed, desired, said = heard(tmp_path, CURATED)
    say_followed(feed, desired, CURATED, frozenset({"a"}), {})
    assert not said
    say_followed(feed, desired, CURATED, frozenset({"a"}), {"b": "ValueError: x"})
    assert said == {"Pipeline/p": (False, "StepFailed")}
    say_followed(feed, desired, CURATED, frozenset({"a", "b"}), {})
    assert said == {"Pipeline/p": (True, "Running")}
    feed, desired, said = heard(tmp_path, CURATED, paused=True)
    say_followed(feed, desired, CURATED, frozenset(), {"b": "ValueError: what it was paused for"})
    assert said == {"Pipeline/p": (True, "Paused")}


async def test_what_another_process_runs_now_is_not_spoken_of_any_more(tmp_path: Path) -> None:
    """Whoever waits for its new version would wait for this process, too; of those of its other loops it says nothing."""
    feed, desired, said = heard(tmp_path, CURATED)
    say_raw(feed, desired, {}, {}, {})
    assert said == {"Topic/a": None, "Topic/b": None, "Pipeline/p": None}
    said.clear()
    say_followed(feed, desired, specs_pb2.PIPELINE_ROLE_LIVE, frozenset(), {})
    assert not said
    feed, desired, said = heard(tmp_path, specs_pb2.PIPELINE_ROLE_SURGE)
    say_followed(feed, desired, CURATED, frozenset(), {})
    assert said == {"Pipeline/p": None}
