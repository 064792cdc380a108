"""The server of the REST API: content types, errors in Confluent's form, start and stop."""

import json
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager

from aiohttp import web

from chassis.errors import ArterialError, Reason
from chassis.logs import logger
from services.controlplane.config import RegistryConfig
from services.controlplane.registry.definition import CODE, RegistryCode
from services.controlplane.registry.registry import SchemaRegistry
from services.controlplane.registry.routes import JSON, Routes

# A schema of a megabyte, escaped, with its references.
MAX_BODY_BYTES = 4 * 1024 * 1024
ACCEPTED = ("application/vnd.schemaregistry.v1+json", "application/vnd.schemaregistry+json", "application/json", "application/octet-stream")
_STATUS: Mapping[Reason, tuple[int, str]] = {
    Reason.INVALID_REQUEST: (422, "42201"),
    Reason.INVALID_PAGE_TOKEN: (422, "42201"),
    Reason.NOT_FOUND: (404, "404"),
    Reason.CONFLICT: (409, "409"),
    Reason.REFUSED: (409, "409"),
    Reason.DENIED: (403, "40301"),
    Reason.LIMIT_EXCEEDED: (429, "42901"),
    Reason.DEADLINE_EXCEEDED: (500, RegistryCode.TIMEOUT),
}
_log = logger(__name__)


@asynccontextmanager
async def serving(config: RegistryConfig | None, registry: SchemaRegistry) -> AsyncIterator[None]:
    """Serves while it lasts; nothing without a configuration."""
    if config is None:
        yield
        return
    runner = web.AppRunner(application(registry), access_log=None, handle_signals=False)
    await runner.setup()
    try:
        await web.TCPSite(runner, config.host, config.port, ssl_context=_tls(config)).start()
        _log.info("listening", host=config.host, port=config.port, services=["schema registry (REST)"])
        yield
    finally:
        await runner.cleanup()


def application(registry: SchemaRegistry) -> web.Application:
    """The application, without a socket."""
    done = web.Application(middlewares=[_guard], client_max_size=MAX_BODY_BYTES)
    Routes(registry).add_to(done.router)
    return done


@web.middleware
async def _guard(request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]) -> web.StreamResponse:
    """Errors become Confluent's: a status and a body with error_code and message."""
    if request.body_exists and request.content_type not in ACCEPTED:
        return _error(415, "415", f"HTTP 415 Unsupported Media Type: {request.content_type}")
    try:
        return await handler(request)
    except Exception as error:
        return _told(error, request.path)


def _told(error: Exception, path: str) -> web.Response:
    """Lower errors are translated here, once. What is not foreseen is a defect: logged whole, told without details."""
    if isinstance(error, ArterialError):
        status, code = _STATUS.get(error.reason, (500, RegistryCode.STORE_ERROR))
        told = error.metadata.get(CODE)
        if told is not None:
            status, code = int(told[:3]), told
        details = "; ".join(f"{each.field}: {each.description}" for each in error.violations)
        return _error(status, code, error.message + (f", details: {details}" if details else ""))
    if isinstance(error, web.HTTPException):
        return _error(error.status, str(error.status), f"HTTP {error.status} {error.reason}")
    if isinstance(error, TimeoutError):
        return _error(500, RegistryCode.TIMEOUT, "the time of the call ran out")
    if isinstance(error, OSError):
        _log.warning("dependency unavailable", path=path, error=repr(error))
        return _error(500, RegistryCode.STORE_ERROR, "the store does not answer; try again")
    _log.error("unexpected error in a handler", path=path, exc_info=error)
    return _error(500, RegistryCode.STORE_ERROR, "internal error; the log has the details")


def _error(status: int, code: str, message: str) -> web.Response:
    body = json.dumps({"error_code": int(code), "message": message})
    return web.Response(status=status, text=body, content_type=JSON)


def _tls(config: RegistryConfig) -> ssl.SSLContext | None:
    if config.tls is None:
        return None
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=str(config.tls.ca_file) if config.tls.ca_file else None)
    context.load_cert_chain(str(config.tls.cert_file), str(config.tls.key_file))
    if config.tls.ca_file:
        context.verify_mode = ssl.CERT_REQUIRED
    return context
