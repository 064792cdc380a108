"""ClickHouse's HTTP protocol in front of the embedded engine (chDB), so that services use ClickHouse's own client on a laptop too."""

import argparse
import asyncio
import gzip
import re
import tempfile
import threading
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import chdb
from aiohttp import web

# Queries at a time: the machine is shared with all the other processes of a laptop.
THREADS = 2
MEMORY_BYTES = 1_500_000_000
# A setting of the query itself would come too late: the query is parsed first.
MAX_QUERY_BYTES = 16_000_000
# Bodies of inserts are spilled to a file; beyond this a client must split.
MAX_BODY_BYTES = 1 << 30
# An INSERT whose data follow; in one of a SELECT the word may be anything.
INSERT_FORMAT = re.compile(rb"^\s*INSERT\s(?:(?!\bSELECT\b|\bWITH\b).)*?\bFORMAT\s+(\w+)\s*", re.IGNORECASE | re.DOTALL)
EXCEPTION_CODE = re.compile(r"Code: (\d+)")
# Parameters of the protocol; any other is a setting of the query.
PROTOCOL = {"query", "database", "default_format", "session_id", "session_timeout", "user", "password", "query_id", "role", "compress"}
# Settings of the HTTP interface that the embedded engine has no use for.
IGNORED = {
    "enable_http_compression",
    "http_headers_progress_interval_ms",
    "send_progress_in_http_headers",
    "wait_end_of_query",
    "cancel_http_readonly_queries_on_client_close",
    "date_time_input_format",
    "http_write_exception_in_output_format",
}


class Engine:
    """The embedded engine, one connection per thread."""

    def __init__(self, path: Path) -> None:
        self._path = f"{path}?max_server_memory_usage={MEMORY_BYTES}&max_query_size={MAX_QUERY_BYTES}"
        self._local = threading.local()
        self._pool = ThreadPoolExecutor(THREADS, "query")

    async def query(self, sql: str, output: str, parameters: dict[str, str]) -> bytes:
        """Runs a statement; the result in a format of ClickHouse."""
        return await asyncio.get_running_loop().run_in_executor(self._pool, self._query, sql, output, parameters)

    def _query(self, sql: str, output: str, parameters: dict[str, str]) -> bytes:
        if not hasattr(self._local, "connection"):
            self._local.connection = chdb.connect(self._path)
        result = self._local.connection.query(sql, output, params=parameters)
        return bytes(result.bytes() or b"")


def decompress(body: bytes, encoding: str) -> bytes:
    """The body as the client meant it."""
    if encoding == "gzip":
        return gzip.decompress(body)
    if encoding == "deflate":
        return zlib.decompress(body)
    if encoding in ("lz4", "zstd"):
        import cramjam

        return bytes(getattr(cramjam, encoding).decompress(body))
    return body


class Gateway:
    """Handlers of the HTTP protocol."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    async def ping(self, _request: web.Request) -> web.Response:
        """Liveness."""
        return web.Response(text="Ok.\n")

    async def statement(self, request: web.Request) -> web.Response:
        """One statement; of an insert, the data follows in the body."""
        body = decompress(await request.read(), request.headers.get("Content-Encoding", ""))
        query = request.query.get("query", "").encode()
        whole = query + b"\n" + body if query else body
        output = request.headers.get("X-ClickHouse-Format") or request.query.get("default_format", "TabSeparated")
        parameters = {key[6:]: value for key, value in request.query.items() if key.startswith("param_")}
        settings = {key: value for key, value in request.query.items() if key not in PROTOCOL | IGNORED and not key.startswith("param_")}
        try:
            result = await self._run(whole, output, parameters, settings)
        except Exception as error:
            return _failure(error)
        return web.Response(
            body=result, headers={"X-ClickHouse-Format": output, "X-ClickHouse-Summary": "{}", "X-ClickHouse-Timezone": "UTC"}
        )

    async def _run(self, whole: bytes, output: str, parameters: dict[str, str], settings: dict[str, str]) -> bytes:
        insert = INSERT_FORMAT.match(whole)
        if insert is not None and insert.group(1).lower() != b"values":
            return await self._insert(whole, insert, settings)
        sql = whole.decode()
        stated = re.search(r"\bFORMAT\s+(\w+)\s*;?\s*$", sql, re.IGNORECASE)
        if stated is not None:
            sql, output = sql[: stated.start()], stated.group(1)
        return await self._engine.query(_with_settings(sql, settings), output, parameters)

    async def _insert(self, whole: bytes, insert: re.Match[bytes], settings: dict[str, str]) -> bytes:
        statement = whole[: insert.end()].decode().rstrip()
        head = statement[: statement.upper().rindex("FORMAT")]
        with tempfile.NamedTemporaryFile(suffix=".insert") as spill:
            await asyncio.to_thread(_write, spill.name, whole[insert.end() :])
            clause = f" SETTINGS {_assignments(settings)}" if settings else ""
            sql = f"{head} FROM INFILE '{spill.name}'{clause} FORMAT {insert.group(1).decode()}"
            return await self._engine.query(sql, "TabSeparated", {})


def _write(path: str, data: bytes) -> None:
    Path(path).write_bytes(data)


def _assignments(settings: dict[str, str]) -> str:
    return ", ".join(f"{key} = '{value}'" if not value.lstrip("-").isdigit() else f"{key} = {value}" for key, value in settings.items())


def _with_settings(sql: str, settings: dict[str, str]) -> str:
    """Settings of the URL become a clause; only queries take one, and only if they have none."""
    if not settings or not re.match(r"\s*(SELECT|WITH|INSERT)\b", sql, re.IGNORECASE) or re.search(r"\bSETTINGS\b", sql, re.IGNORECASE):
        return sql
    if re.match(r"\s*INSERT\b", sql, re.IGNORECASE):
        return sql
    return f"{sql.rstrip().rstrip(';')}\nSETTINGS {_assignments(settings)}"


def _failure(error: Exception) -> web.Response:
    text = str(error)
    code = EXCEPTION_CODE.search(text)
    headers = {"X-ClickHouse-Exception-Code": code.group(1) if code else "1002"}
    return web.Response(status=500 if code is None or code.group(1) != "60" else 404, text=text + "\n", headers=headers)


def main() -> None:
    """Serves on a loopback port until a signal."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--path", type=Path, required=True, help="data folder of the engine")
    parser.add_argument("--port", type=int, required=True)
    arguments = parser.parse_args()
    arguments.path.mkdir(parents=True, exist_ok=True)
    gateway = Gateway(Engine(arguments.path))
    application = web.Application(client_max_size=MAX_BODY_BYTES)
    application.router.add_get("/ping", gateway.ping)
    application.router.add_route("*", "/", gateway.statement)
    web.run_app(application, host="127.0.0.1", port=arguments.port, print=lambda *_: None, access_log=None)


if __name__ == "__main__":
    main()
