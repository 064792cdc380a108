"""`arterial lineage` for people: walks as trees."""

from arterial.api.lineage.v1alpha1 import lineage_service_pb2 as pb
from cli.lineage import tree


def test_a_walk_is_shown_as_a_tree_that_unfolds_everything_once() -> None:
    """One line per arrow; jobs in brackets, columns, tiers and owners beside; cycles end."""
    nodes = [
        pb.Node(name="load", kind=pb.NODE_KIND_JOB),
        pb.Node(name="lake/b", kind=pb.NODE_KIND_DATASET, columns=["x", "y"], tier=1, owner="risk"),
        pb.Node(name="lake/c", kind=pb.NODE_KIND_DATASET),
        pb.Node(name="back", kind=pb.NODE_KIND_JOB),
    ]
    steps = [("lake/a", "load"), ("load", "lake/c"), ("load", "lake/b"), ("lake/b", "back"), ("back", "lake/a"), ("lake/c", "back")]
    assert tree("lake/a", nodes, steps) == [
        "lake/a",
        "  [load]",
        "    lake/b (x, y)  tier 1, risk",
        "      [back]",
        "        lake/a ...",
        "    lake/c",
        "      [back] ...",
    ]
