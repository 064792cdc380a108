"""One cause seen in several datasets is one incident, told of the most upstream of them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from services.dqm.causes import strongest
from services.dqm.incidents import Finding
from services.dqm.metrics import WHOLE

# Columns of each dataset that depends on a finding; none where the whole dataset is meant.
Impact = Mapping[str, frozenset[str]]


@dataclass(frozen=True)
class Relations:
    """What is made from what, as far as it is known."""

    upstream: Mapping[str, frozenset[str]] = field(default_factory=dict)
    """Datasets that each dataset is made from, nearest or not; no entry where lineage does not know it."""
    impacts: Mapping[Finding, Impact] = field(default_factory=dict)

    def related(self, first: str, other: str) -> bool:
        """True if the one is made from the other, or both from a third; or if that is not known."""
        if first not in self.upstream or other not in self.upstream:
            return True
        mine, theirs = self.upstream[first], self.upstream[other]
        return first in theirs or other in mine or bool(mine & theirs)

    def below(self, first: str, other: str) -> bool:
        """True if `other` is known to be made from `first`."""
        return first in self.upstream.get(other, ())

    def rank(self, dataset: str) -> tuple[int, str]:
        """Order from upstream to downstream: what is made from something has more ancestors than that; without lineage, by name."""
        return len(self.upstream.get(dataset, ())), dataset


def cluster(findings: Sequence[Finding], relations: Relations) -> list[Finding]:
    """One finding per cause, of the findings of one date in any datasets; the others' datasets and what depends on it are `affected`."""
    heads: list[tuple[Finding, list[Finding]]] = []
    for finding in sorted(findings, key=lambda finding: relations.rank(finding.dataset)):
        members = next((members for head, members in heads if explains(head, finding, relations)), None)
        if members is None:
            heads.append((finding, []))
        else:
            members.append(finding)
    return [_told(head, members, relations) for head, members in heads]


def explains(cause: Finding, finding: Finding, relations: Relations) -> bool:
    """True if a finding in another dataset follows from a cause, of the same date and market."""
    markets = cause.market == finding.market or WHOLE in (cause.market, finding.market)
    if cause.dataset == finding.dataset or not markets or not relations.related(cause.dataset, finding.dataset):
        return False
    if cause.of_rows or finding.of_rows:
        # Rows that a table lacks change everything below it, and so do values that a job below filters by. Beside it, rows follow rows.
        return (cause.of_rows and finding.of_rows) or relations.below(cause.dataset, finding.dataset)
    impacted = relations.impacts.get(cause, {}).get(finding.dataset, frozenset())
    return bool(set(finding.columns) & (set(cause.columns) | impacted))


def _told(head: Finding, members: Sequence[Finding], relations: Relations) -> Finding:
    names = dict.fromkeys(member.dataset for member in members) | dict.fromkeys(relations.impacts.get(head, {}))
    return replace(
        head,
        severity=max(finding.severity for finding in (head, *members)),
        evidence=strongest([*head.evidence, *(point for member in members for point in member.evidence)]),
        affected=tuple(name for name in names if name != head.dataset),
    )
