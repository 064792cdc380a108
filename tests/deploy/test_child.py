"""What the processes of a stack are given."""

from deploy.local.child import free_port


def test_no_port_is_given_twice() -> None:
    """Of five hundred draws, ten would be of a port that is given and not listened on yet."""
    ports = [free_port() for _ in range(500)]
    assert len(set(ports)) == len(ports)
