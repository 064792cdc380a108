"""`arterial init dataset`: asks a few questions and writes the files of a new event type: schema, and all that follows from it."""

import argparse
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from string import Template

import yaml

from chassis.errors import ArterialError, Reason, Violation
from cli.connect import show

_NAME = re.compile(r"[a-z][a-z0-9]*(_[a-z0-9]+)*")
# Fields that every event has, by which none is partitioned.
_OWN = ("event_id", "event_time", "sequence")
_NOT_YAML = "that YAML does not take for something else, as it does no and null"
_TEAM = re.compile(r"[a-z][a-z0-9-]*")

PROTO = Template("""syntax = "proto3";

package $package;

import "google/protobuf/timestamp.proto";

// One $what.
message $message {
  // Identifies the event: a UUID, 16 bytes. A resend keeps it.
  bytes event_id = 1;
  // When it happened, UTC.
  google.protobuf.Timestamp event_time = 2;
  string region = 3;
  int32 city_id = 4;
  // Increases with every event of the same ${key}.
  int64 sequence = 5;
$fields}
""")

RESOURCES = Template("""# $title: from one schema to topic, tables, features, quality and objectives.
apiVersion: arterial.dev/v1
kind: Owner
metadata: {name: $owner, labels: {made-by: $name}}
spec:
  channels: [{type: CHANNEL_TYPE_CHAT, address: "#$owner"}]
---
apiVersion: arterial.dev/v1
kind: Schema
metadata: {name: $topic, owner: $owner, labels: {made-by: $name}}
spec: {type: SCHEMA_TYPE_PROTOBUF, definitionFile: $name.proto, compatibility: SCHEMA_COMPATIBILITY_BACKWARD_TRANSITIVE}
---
apiVersion: arterial.dev/v1
kind: Topic
metadata: {name: $topic, owner: $owner, labels: {made-by: $name}}
spec: {schema: $topic, keyField: $key, curated: true, live: true}
$pipelines$datasets$rules---
apiVersion: arterial.dev/v1
kind: Feature
metadata: {name: $name-by-${slug}, owner: $owner, labels: {made-by: $name}}
spec:
  description: $what events by $key
  topic: $topic
  key: $key
  aggregates: [{name: events, function: AGGREGATE_FUNCTION_COUNT}]
  windowsSeconds: [60, 600]
  graceSeconds: 60
  service: pricing
---
apiVersion: arterial.dev/v1
kind: Slo
metadata: {name: $name-fresh, owner: $owner, labels: {made-by: $name}}
spec: {dataset: lake/curated/$topic, indicator: SLO_INDICATOR_FRESHNESS}
""")

PIPELINE = Template("""---
apiVersion: arterial.dev/v1
kind: Pipeline
metadata: {name: $stage-$name, owner: $owner, labels: {made-by: $name}}
spec: {role: PIPELINE_ROLE_$role, topics: [$topic], intervalMs: 1000, maxBatchRows: 250000}
""")

DATASET = Template("""---
apiVersion: arterial.dev/v1
kind: Dataset
metadata: {name: $dataset, owner: $owner, labels: {made-by: $name}}
spec: {description: $description, tier: $tier$more}
""")

RULE = Template("""---
apiVersion: arterial.dev/v1
kind: QualityRule
metadata: {name: $name-$test, owner: $owner, labels: {made-by: $name}}
spec: {dataset: lake/curated/$topic, test: QUALITY_TEST_$kind, columns: [event_id]}
""")


@dataclass(frozen=True)
class Answers:
    """What a new event type is about."""

    name: str
    owner: str
    tier: int
    key: str

    @property
    def topic(self) -> str:
        """Its topic, version 1."""
        return f"{self.name}_v1"


def register(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Adds the command."""
    init = commands.add_parser("init", help="write the files of something new; asks for what is not given")
    init.add_argument("what", choices=("dataset",))
    init.add_argument("--name", help="plural, in lower case, for example scooter_rides")
    init.add_argument("--owner", help="team that answers for it")
    init.add_argument("--tier", help="1 (most important) to 3")
    init.add_argument("--key", help="field that events are partitioned by, for example city_id or scooter_id")
    init.add_argument("--folder", type=Path, help="by default the name")
    init.set_defaults(run=run_init)


def run_init(arguments: argparse.Namespace, ask: Callable[[str], str] = input) -> int:
    """Writes two files; refuses to replace one."""
    answers = _answers(arguments, ask)
    folder = arguments.folder or Path(answers.name)
    files = {folder / f"{answers.name}.proto": proto(answers), folder / f"{answers.name}.yaml": resources(answers)}
    for file in files:
        if file.exists():
            raise ArterialError(Reason.REFUSED, f"{file} exists: it is not replaced")
    folder.mkdir(parents=True, exist_ok=True)
    for file, text in files.items():
        file.write_text(text)
    written = [str(file) for file in files]
    show(
        arguments,
        {"files": written},
        [*written, f"add the fields of the event to the first, then: arterial plan {folder}; arterial apply {folder}"],
    )
    return 0


def _answers(arguments: argparse.Namespace, ask: Callable[[str], str]) -> Answers:
    """Raises INVALID_REQUEST with every answer that cannot be, or if nobody answers."""
    try:
        name = arguments.name or ask("name of the events, plural, for example scooter_rides: ").strip()
        owner = arguments.owner or ask("team that answers for them: ").strip()
        tier = arguments.tier or ask("tier, 1 (most important) to 3 [3]: ").strip() or "3"
        key = arguments.key or ask("field that they are partitioned by [city_id]: ").strip() or "city_id"
    except EOFError as error:
        raise ArterialError(Reason.INVALID_REQUEST, "nobody answers: give --name, --owner, --tier and --key") from error
    wrong = [
        Violation(field, f"{value!r} is not {wanted}")
        for field, value, fits, wanted in (
            ("name", name, _fits(_NAME, name) and name != "s", f"lower-case words joined by _ {_NOT_YAML}"),
            ("owner", owner, _fits(_TEAM, owner), f"lower-case words joined by - {_NOT_YAML}"),
            ("tier", tier, tier in ("1", "2", "3"), "1, 2 or 3"),
            ("key", key, _fits(_NAME, key) and key not in _OWN, f"lower-case words joined by _ {_NOT_YAML}, nor {', '.join(_OWN)}"),
        )
        if not fits
    ]
    if wrong:
        raise ArterialError(Reason.INVALID_REQUEST, "the answers do not make a dataset", violations=wrong)
    return Answers(name, owner, int(tier), key)


def _fits(pattern: re.Pattern[str], word: str) -> bool:
    """Whether a word is of the form, and a text where it stands in YAML."""
    return pattern.fullmatch(word) is not None and isinstance(yaml.safe_load(word), str)


def proto(answers: Answers) -> str:
    """The schema."""
    own = "" if answers.key in ("city_id", "region") else f"  string {answers.key} = 6;\n"
    return PROTO.substitute(_words(answers), fields=own)


def resources(answers: Answers) -> str:
    """Everything that follows from the schema."""
    words = _words(answers)
    sla = ", sla: {freshnessSeconds: 300}" if answers.tier == 1 else ""
    told = (
        (f"kafka/{answers.topic}", "records as produced", ""),
        (f"lake/raw/{answers.topic}", "rows as they came with coordinates", sla),
        (f"lake/curated/{answers.topic}", "rows deduplicated", sla + ", marketColumn: city_id"),
        (f"olap/live/{answers.topic}", "rows for interactive queries", sla),
        (f"feature/{answers.name}-by-{words['slug']}", "live counts", sla),
    )
    return RESOURCES.substitute(
        words,
        pipelines=_joined(PIPELINE, words, [{"stage": each, "role": each.upper()} for each in ("raw", "curated", "live")]),
        datasets=_joined(DATASET, words, [{"dataset": name, "description": text, "more": more} for name, text, more in told]),
        rules=_joined(RULE, words, [{"test": "identified", "kind": "NOT_NULL"}, {"test": "unique", "kind": "UNIQUE"}]),
    )


def _joined(template: Template, words: dict[str, str], parts: Sequence[dict[str, str]]) -> str:
    return "".join(template.substitute(words | part) for part in parts)


def _words(answers: Answers) -> dict[str, str]:
    singular = answers.name.removesuffix("s")
    return {
        "name": answers.name,
        "owner": answers.owner,
        "tier": str(answers.tier),
        "key": answers.key,
        "slug": answers.key.replace("_", "-"),
        "topic": answers.topic,
        "title": answers.name.replace("_", " ").capitalize(),
        "what": singular.replace("_", " "),
        "message": "".join(word.title() for word in singular.split("_")),
        "package": f"events.{answers.name}.v1",
    }
