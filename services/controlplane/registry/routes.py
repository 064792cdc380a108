"""The REST API of Confluent's Schema Registry: what each path does. Sources: its API reference and its error codes."""

import asyncio
import json
from collections.abc import Mapping
from typing import Any

from aiohttp import web
from aiohttp.web_urldispatcher import UrlDispatcher

from services.controlplane.registry.catalogue import Catalogue, Entry
from services.controlplane.registry.configuration import Configuration, Effective, level, mode_of
from services.controlplane.registry.definition import (
    Compatibility,
    Definition,
    Reference,
    Registered,
    RegistryCode,
    SchemaType,
    failure,
    invalid,
    storable,
)
from services.controlplane.registry.names import DEFAULT_CONTEXT, GLOBAL, context_name, join, qualified, split
from services.controlplane.registry.reading import serialized
from services.controlplane.registry.registry import SchemaRegistry
from services.controlplane.registry.store import Stored
from services.controlplane.registry.verdicts import Verdict

JSON = "application/vnd.schemaregistry.v1+json"
# Answers to "schema of an id" that are kept: what an id means never changes.
KEPT_ANSWERS = 2000


class Routes:
    """Handlers, over the same functions as the RPCs."""

    def __init__(self, registry: SchemaRegistry) -> None:
        self._registry = registry
        self._catalogue = Catalogue(registry)
        self._configuration = Configuration(registry.engine)
        self._answers: dict[tuple[str, str, int], bytes] = {}

    def add_to(self, router: UrlDispatcher) -> None:
        """Adds all paths, each also for a context: /contexts/{context}/..."""
        router.add_get("/", self._root)
        router.add_get("/contexts", self._contexts)
        for prefix in ("", "/contexts/{context}"):
            self._add_schemas(router, prefix)
            self._add_subjects(router, prefix)
            for path in ("/config", "/config/{subject}"):
                router.add_get(prefix + path, self._get_config)
                router.add_put(prefix + path, self._put_config)
                router.add_delete(prefix + path, self._delete_config)
            for path in ("/mode", "/mode/{subject}"):
                router.add_get(prefix + path, self._get_mode)
                router.add_put(prefix + path, self._put_mode)
                router.add_delete(prefix + path, self._delete_mode)
            router.add_post(prefix + "/compatibility/subjects/{subject}/versions", self._check)
            router.add_post(prefix + "/compatibility/subjects/{subject}/versions/{version}", self._check)

    def _add_schemas(self, router: UrlDispatcher, prefix: str) -> None:
        router.add_get(prefix + "/schemas", self._schemas)
        router.add_get(prefix + "/schemas/types", self._types)
        router.add_get(prefix + "/schemas/ids/{id}", self._schema)
        router.add_get(prefix + "/schemas/ids/{id}/schema", self._schema_text)
        router.add_get(prefix + "/schemas/ids/{id}/subjects", self._subjects_of_schema)
        router.add_get(prefix + "/schemas/ids/{id}/versions", self._versions_of_schema)

    def _add_subjects(self, router: UrlDispatcher, prefix: str) -> None:
        subject = prefix + "/subjects/{subject}"
        router.add_get(prefix + "/subjects", self._subjects)
        router.add_post(subject, self._lookup)
        router.add_delete(subject, self._delete_subject)
        router.add_get(subject + "/metadata", self._with_metadata)
        router.add_get(subject + "/versions", self._versions)
        router.add_post(subject + "/versions", self._register)
        router.add_get(subject + "/versions/{version}", self._version)
        router.add_delete(subject + "/versions/{version}", self._delete_version)
        router.add_get(subject + "/versions/{version}/schema", self._version_text)
        router.add_get(subject + "/versions/{version}/referencedby", self._referring)

    async def _root(self, _: web.Request) -> web.Response:
        return _answer({})

    async def _types(self, _: web.Request) -> web.Response:
        return _answer([each.value for each in (SchemaType.JSON, SchemaType.PROTOBUF, SchemaType.AVRO)])

    async def _contexts(self, _: web.Request) -> web.Response:
        return _answer(await self._catalogue.contexts())

    async def _schemas(self, request: web.Request) -> web.Response:
        found = await self._catalogue.all(
            prefix=_prefix(request),
            deleted=_flag(request, "deleted"),
            latest=_flag(request, "latestOnly"),
            start=max(_number(request, "offset", 0), 0),
            limit=_number(request, "limit", -1),
        )
        return _answer([_entry(each, each.stored.definition.text) for each in found])

    async def _schema(self, request: web.Request) -> web.Response:
        key = request.match_info["id"], request.query.get("format", ""), self._registry.library.generation
        body = self._answers.get(key)
        if body is None:
            stored = await self._catalogue.schema(_id(request))
            body = json.dumps(_body(stored, await self._text(stored, request))).encode()
            if len(self._answers) >= KEPT_ANSWERS:
                self._answers.clear()
            self._answers[key] = body
        return web.Response(body=body, content_type=JSON)

    async def _schema_text(self, request: web.Request) -> web.Response:
        return _raw(await self._text(await self._catalogue.schema(_id(request)), request))

    async def _subjects_of_schema(self, request: web.Request) -> web.Response:
        found = await self._catalogue.of_schema(_id(request), deleted=_flag(request, "deleted"))
        return _answer(list(dict.fromkeys(each.subject for each in found)))

    async def _versions_of_schema(self, request: web.Request) -> web.Response:
        found = await self._catalogue.of_schema(_id(request), deleted=_flag(request, "deleted"))
        return _answer([{"subject": each.subject, "version": each.version} for each in found])

    async def _subjects(self, request: web.Request) -> web.Response:
        found = await self._catalogue.subjects(
            prefix=_prefix(request),
            deleted=_flag(request, "deleted"),
            only_deleted=_flag(request, "deletedOnly"),
        )
        return _answer(_page(request, found))

    async def _versions(self, request: web.Request) -> web.Response:
        deleted, only = _flag(request, "deleted"), _flag(request, "deletedOnly")
        found = await self._catalogue.versions(_subject(request), deleted=deleted, only_deleted=only)
        return _answer(_page(request, [each.version for each in found]))

    async def _version(self, request: web.Request) -> web.Response:
        entry = await self._catalogue.version(_subject(request), _version(request), deleted=_flag(request, "deleted"))
        return _answer(_entry(entry, await self._text(entry.stored, request)))

    async def _with_metadata(self, request: web.Request) -> web.Response:
        wanted = dict(zip(request.query.getall("key", []), request.query.getall("value", []), strict=False))
        entry = await self._catalogue.with_metadata(_subject(request), wanted, deleted=_flag(request, "deleted"))
        return _answer(_entry(entry, await self._text(entry.stored, request)))

    async def _version_text(self, request: web.Request) -> web.Response:
        entry = await self._catalogue.version(_subject(request), _version(request), deleted=_flag(request, "deleted"))
        return _raw(await self._text(entry.stored, request))

    async def _referring(self, request: web.Request) -> web.Response:
        return _answer(await self._catalogue.referring(_subject(request), _version(request)))

    async def _register(self, request: web.Request) -> web.Response:
        body = await _read(request)
        wanted = None
        if isinstance(body.get("id"), int) and body["id"] >= 0:
            version = body.get("version")
            wanted = Registered(body["id"], version if isinstance(version, int) and version > 0 else 0)
            if max(wanted.schema_id, wanted.version) >= 2**31:
                raise invalid("Invalid id or version", "both are less than 2^31")
        done = await self._registry.register(_subject(request), _definition(body), normalize=_flag(request, "normalize"), wanted=wanted)
        return _answer({"id": done.schema_id, "version": done.version})

    async def _lookup(self, request: web.Request) -> web.Response:
        wanted = _definition(await _read(request))
        normalize, deleted = _flag(request, "normalize"), _flag(request, "deleted")
        found = await self._registry.lookup(_subject(request), wanted, normalize=normalize, deleted=deleted)
        stored = await self._catalogue.schema(found.schema_id)
        return _answer(_entry(Entry(found, stored), await self._text(stored, request)))

    async def _delete_subject(self, request: web.Request) -> web.Response:
        gone = await self._catalogue.delete_subject(_subject(request), permanent=_flag(request, "permanent"))
        self._answers.clear()
        return _answer(gone)

    async def _delete_version(self, request: web.Request) -> web.Response:
        gone = await self._catalogue.delete_version(_subject(request), _version(request), permanent=_flag(request, "permanent"))
        self._answers.clear()
        return _answer(gone)

    async def _check(self, request: web.Request) -> web.Response:
        wanted, subject = _definition(await _read(request)), _subject(request)
        version = _version(request) if "version" in request.match_info else None
        verdict = await self._registry.judge(subject, wanted, normalize=_flag(request, "normalize"), version=version)
        found: dict[str, Any] = {"is_compatible": not verdict.violations}
        if _flag(request, "verbose"):
            found["messages"] = _messages(verdict)
        return _answer(found)

    async def _get_config(self, request: web.Request) -> web.Response:
        scope = _scope(request)
        own = await self._configuration.own(scope)
        counts = await self._configuration.effective(scope)
        if own.compatibility is None and scope != GLOBAL and not _flag(request, "defaultToGlobal"):
            text = f"Subject '{scope}' does not have subject-level compatibility configured"
            raise failure(RegistryCode.COMPATIBILITY_NOT_CONFIGURED, text)
        return _answer(_config(counts.compatibility, counts.normalize or None))

    async def _put_config(self, request: web.Request) -> web.Response:
        body, changed = await _read(request), {}
        if body.get("compatibility") is not None:
            changed["compatibility"] = level(body["compatibility"]).value
        if isinstance(body.get("normalize"), bool):
            changed["normalize"] = body["normalize"]
        if not changed:
            raise failure(RegistryCode.INVALID_COMPATIBILITY, f"nothing to configure: give one of {', '.join(Compatibility)}")
        await self._configuration.put(_scope(request), **changed)
        return _answer(changed)

    async def _delete_config(self, request: web.Request) -> web.Response:
        scope = _scope(request)
        own = await self._configuration.own(scope)
        if own.compatibility is None and own.normalize is None and scope != GLOBAL:
            raise failure(RegistryCode.SUBJECT_NOT_FOUND, f"Subject '{scope}' not found.")
        await self._configuration.put(scope, compatibility=None, normalize=None)
        return _answer(_config(own.compatibility or Compatibility.BACKWARD, own.normalize))

    async def _get_mode(self, request: web.Request) -> web.Response:
        scope = _scope(request)
        own = await self._configuration.own(scope)
        if own.mode is None and scope != GLOBAL and not _flag(request, "defaultToGlobal"):
            raise failure(RegistryCode.MODE_NOT_CONFIGURED, f"Subject '{scope}' does not have subject-level mode configured")
        counts: Effective = await self._configuration.effective(scope)
        return _answer({"mode": counts.mode.value})

    async def _put_mode(self, request: web.Request) -> web.Response:
        mode = mode_of((await _read(request)).get("mode"))
        await self._configuration.put_mode(_scope(request), mode, force=_flag(request, "force"))
        return _answer({"mode": mode.value})

    async def _delete_mode(self, request: web.Request) -> web.Response:
        scope = _scope(request)
        own = await self._configuration.own(scope)
        if own.mode is None and scope != GLOBAL:
            raise failure(RegistryCode.SUBJECT_NOT_FOUND, f"Subject '{scope}' not found.")
        await self._configuration.put(scope, mode=None)
        return _answer({"mode": own.mode or "READWRITE"})

    async def _text(self, stored: Stored, request: web.Request) -> str:
        """The text, or in the format that is asked for."""
        if request.query.get("format") != "serialized" or stored.definition.type is not SchemaType.PROTOBUF:
            return stored.definition.text
        async with self._registry.engine.connect() as connection:
            understood = await self._registry.library.understood(connection, stored.schema_id)
        return await asyncio.to_thread(serialized, understood)


def _answer(document: object) -> web.Response:
    return web.Response(text=json.dumps(document), content_type=JSON)


def _raw(text: str) -> web.Response:
    return web.Response(text=text, content_type=JSON)


async def _read(request: web.Request) -> Mapping[str, Any]:
    try:
        body = await request.json()
    except (ValueError, RecursionError) as error:
        raise web.HTTPBadRequest(reason="the body is not JSON") from error
    if not isinstance(body, dict):
        raise web.HTTPBadRequest(reason="the body is not an object")
    return body


def _definition(body: Mapping[str, Any]) -> Definition:
    """The schema of a request. Raises 42201 for one that has no form of a schema."""
    text, kind = body.get("schema"), body.get("schemaType") or "AVRO"
    if not isinstance(text, str) or not text.strip():
        raise invalid("Empty schema", 'give the schema as text in "schema"')
    if kind not in list(SchemaType):
        raise invalid(f"Invalid schema type {kind}", f"one of {', '.join(SchemaType)}")
    try:
        references = tuple(
            Reference(str(each["name"]), str(each["subject"]), int(each["version"])) for each in body.get("references") or []
        )
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise invalid("Invalid references", "each has name, subject and version") from error
    metadata, rule_set = body.get("metadata"), body.get("ruleSet")
    return Definition(
        SchemaType(kind),
        text,
        references,
        metadata if isinstance(metadata, dict) else None,
        rule_set if isinstance(rule_set, dict) else None,
    )


def _body(stored: Stored, text: str) -> dict[str, Any]:
    """A schema as answers have it: what is AVRO goes without saying."""
    definition = stored.definition
    found: dict[str, Any] = {"schema": text}
    if definition.type is not SchemaType.AVRO:
        found["schemaType"] = definition.type.value
    if definition.references:
        found["references"] = [{"name": each.name, "subject": each.subject, "version": each.version} for each in definition.references]
    if definition.metadata is not None:
        found["metadata"] = definition.metadata
    if definition.rule_set is not None:
        found["ruleSet"] = definition.rule_set
    return found


def _entry(entry: Entry, text: str) -> dict[str, Any]:
    version = entry.version
    found = {"subject": version.subject, "version": version.version, "id": version.schema_id, **_body(entry.stored, text)}
    return {**found, "deleted": True} if version.deleted else found


def _config(compatibility: str, normalize: bool | None) -> dict[str, Any]:
    found: dict[str, Any] = {"compatibilityLevel": str(compatibility)}
    return found if normalize is None else {**found, "normalize": normalize}


def _messages(verdict: Verdict) -> list[str]:
    found = [f"{{errorType:'{each.rule}', description:'{each.message}', path:'{each.path}'}}" for each in verdict.violations]
    return [*found, f"{{compatibility: '{verdict.level}'}}"] if found else []


def _context(request: web.Request) -> str:
    named = request.match_info.get("context")
    return DEFAULT_CONTEXT if named is None else context_name(named)


def _prefix(request: web.Request) -> str:
    """How the names of subjects must begin. Raises 42208 for what none begins with."""
    prefix = request.query.get("subjectPrefix", join(_context(request), ""))
    if not storable(prefix):
        raise failure(RegistryCode.INVALID_SUBJECT, "no subject has a NUL, or half a surrogate pair, in its name")
    return prefix


def _subject(request: web.Request) -> str:
    return qualified(request.match_info["subject"], _context(request))


def _scope(request: web.Request) -> str:
    """What is configured: a subject, a context or everything."""
    named, context = request.match_info.get("subject"), _context(request)
    if named is None:
        return join(context, "") if context != DEFAULT_CONTEXT else GLOBAL
    own, name = split(named)
    return join(own, "") if not name and own != DEFAULT_CONTEXT else qualified(named, context)


def _version(request: web.Request) -> int:
    """A version in a path; -1 for "latest". Raises 42202."""
    text = request.match_info["version"]
    if text in ("latest", "-1"):
        return -1
    if not text.isascii() or not text.isdigit() or not 0 < int(text) < 2**31:
        message = (
            f"The specified version '{text}' is not a valid version id. Allowed values are between [1, 2^31-1] and the string \"latest\""
        )
        raise failure(RegistryCode.INVALID_VERSION, message)
    return int(text)


def _id(request: web.Request) -> int:
    text = request.match_info["id"]
    if not text.isascii() or not text.isdigit() or int(text) >= 2**31:
        raise web.HTTPNotFound
    return int(text)


def _flag(request: web.Request, name: str) -> bool:
    return request.query.get(name, "").lower() == "true"


def _number(request: web.Request, name: str, default: int) -> int:
    text = request.query.get(name, str(default))
    return int(text) if text.lstrip("-").isdigit() and abs(int(text)) < 2**31 else default


def _page(request: web.Request, found: list[Any]) -> list[Any]:
    start, limit = max(_number(request, "offset", 0), 0), _number(request, "limit", -1)
    return found[start:] if limit < 0 else found[start : start + limit]
