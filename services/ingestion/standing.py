"""What ingestion says of the topics and pipelines that it runs."""

from collections.abc import Mapping

from arterial.api.controlplane.v1 import specs_pb2
from chassis.desired import Desired, DesiredFeed
from chassis.reporting import Standing
from chassis.topics import Topic

# Roles of the pipelines that one process follows.
FOLLOWED = frozenset({specs_pb2.PIPELINE_ROLE_RAW, specs_pb2.PIPELINE_ROLE_CURATED, specs_pb2.PIPELINE_ROLE_LIVE})


def say_raw(
    feed: DesiredFeed, desired: Desired, positioned: Mapping[str, int] | None, failed: Mapping[str, str], differing: Mapping[str, int]
) -> None:
    """A topic is ready where its table is there and this worker reads partitions of it; of others it takes back what it said: another
    worker reads them, or will, or nobody any more.

    Args:
        feed: of this process.
        desired: what the worker acted on.
        positioned: how many partitions it reads, by topic; None while the group shares them out.
        failed: why a topic's table could not be opened, by topic.
        differing: how many partitions there are, by topic, where others are declared.
    """
    unread = set(desired.topics)
    for name, pipeline in desired.pipelines.items():
        if pipeline.role != specs_pb2.PIPELINE_ROLE_RAW:
            feed.say(desired, "Pipeline", name, None)
            continue
        unread.difference_update(pipeline.topics)
        for topic in pipeline.topics:
            if topic in failed:
                feed.say(desired, "Topic", topic, Standing(False, "TableFailed", failed[topic]))
            elif positioned is not None and topic in desired.topics:
                feed.say(desired, "Topic", topic, _read(desired.topics[topic], positioned.get(topic, 0), differing.get(topic)))
        broken = sorted(set(pipeline.topics) & failed.keys())
        if broken:
            feed.say(desired, "Pipeline", name, Standing(False, "TableFailed", f"topics {', '.join(broken)}"))
        elif positioned is not None:
            feed.say(desired, "Pipeline", name, _running(pipeline) if all(map(positioned.get, pipeline.topics)) else None)
    for topic in unread:
        feed.say(desired, "Topic", topic, None)


def _read(topic: Topic, positioned: int, differing: int | None) -> Standing | None:
    if not positioned:
        return None
    return Standing(True, "Read", f"{positioned} partitions go to the raw table") if differing is None else _differs(topic, differing)


def _differs(topic: Topic, there: int) -> Standing:
    """All partitions are read; what follows for keys."""
    if topic.adoption is not None:
        follows = f"keys are taken to be spread over {there}"
    else:
        follows = f"what is not in the partition of its key among {topic.partitions} is misrouted, and becomes a dead letter"
    return Standing(False, "PartitionsDiffer", f"Kafka has {there} partitions, declared are {topic.partitions}: all are read; {follows}")


def say_followed(
    feed: DesiredFeed, desired: Desired, role: specs_pb2.PipelineRole.ValueType, followed: frozenset[str], failed: Mapping[str, str]
) -> None:
    """A pipeline that follows raw is ready where the last step of all of its topics went well. Of one that another process runs now, what
    was said is taken back.

    Args:
        feed: of this process.
        desired: what the follower acted on.
        role: of the pipelines.
        followed: topics that were stepped, or are paused.
        failed: why the last step failed, by topic.
    """
    for name, pipeline in desired.pipelines.items():
        if pipeline.role not in FOLLOWED:
            feed.say(desired, "Pipeline", name, None)
        if pipeline.role != role:
            continue
        broken = {topic: failed[topic] for topic in pipeline.topics if topic in failed}
        if broken and not pipeline.paused:
            message = "; ".join(f"{topic}: {why}" for topic, why in sorted(broken.items()))
            feed.say(desired, "Pipeline", name, Standing(False, "StepFailed", message))
        elif pipeline.paused or followed.issuperset(topic for topic in pipeline.topics if topic in desired.topics):
            feed.say(desired, "Pipeline", name, _running(pipeline))


def _running(pipeline: specs_pb2.PipelineSpec) -> Standing:
    return Standing(True, "Paused", "as declared") if pipeline.paused else Standing(True, "Running")
