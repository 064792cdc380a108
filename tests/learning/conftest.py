"""Control planes of tests of training."""

from tests.controlplane.conftest import plane, shared_plane

__all__ = ["plane", "shared_plane"]
