"""What a follower takes from the commits of a raw table (one-way door 7 of the design)."""

from collections.abc import Sequence

from chassis.lake import Added, Commit
from services.ingestion.supersession import sources_of, superseded_by


class RemovalError(RuntimeError):
    """A commit of raw removed data without a declaration: the follower stops rather than guess."""


def good_files(commits: Sequence[Commit]) -> list[Added]:
    """Files of good rows that commits added; commits without data change are skipped.

    A correction only adds: what it supersedes stays in raw, and is the followers' own business.

    Raises:
        RemovalError: a commit removed data without a declared erasure or supersession, or added data that no source accounts for.
    """
    files: list[Added] = []
    for commit in commits:
        if not commit.data_change:
            continue
        if commit.removed:
            raise RemovalError(f"version {commit.version} removed {len(commit.removed)} files without a declared erasure or supersession")
        if commit.added and not sources_of(commit):
            raise RemovalError(f"version {commit.version} added {len(commit.added)} files without the progress of a source")
        files += [added for added in commit.added if added.good]
    return files


def take(commits: Sequence[Commit], max_rows: int) -> list[Commit]:
    """The first commits that together hold at most `max_rows` rows, but at least one; a correction is taken alone."""
    rows = 0
    taken: list[Commit] = []
    for commit in commits:
        rows += sum(added.rows for added in commit.added)
        if taken and (rows > max_rows or superseded_by(commit)):
            break
        taken.append(commit)
        if superseded_by(commit):
            break
    return taken
