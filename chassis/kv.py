"""Redis: the online store."""

from redis.asyncio import BlockingConnectionPool, Redis

from chassis.config import KvConfig

# A read that takes longer than this is of no use to the caller, who has a deadline of its own.
TIMEOUT_SECONDS = 2.0
# Commands at a time; more wait for a free connection instead of failing or opening one each.
MAX_CONNECTIONS = 32


def connect(config: KvConfig) -> Redis:
    """A client of the configured server; it connects when first used."""
    options = {} if config.tls is None else {"ssl_ca_certs": str(config.tls.ca_file) if config.tls.ca_file else None}
    pool = BlockingConnectionPool.from_url(
        config.url,
        max_connections=MAX_CONNECTIONS,
        timeout=TIMEOUT_SECONDS,
        socket_timeout=TIMEOUT_SECONDS,
        socket_connect_timeout=TIMEOUT_SECONDS,
        **options,
    )
    return Redis.from_pool(pool)
