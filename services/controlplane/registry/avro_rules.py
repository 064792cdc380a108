"""Whether what one Avro schema wrote can be read with another: the resolution rules of the specification ("Schema Resolution"), with
the names of incompatibilities of Avro's own SchemaCompatibility, which Confluent's schema registry asks.
"""

from collections.abc import Mapping

from services.controlplane.registry.avro import AvroDocument, Field, Type
from services.controlplane.registry.definition import SchemaViolation

# Reader by the writers that it can promote.
PROMOTIONS: Mapping[str, tuple[str, ...]] = {
    "long": ("int",),
    "float": ("int", "long"),
    "double": ("int", "long", "float"),
    "bytes": ("string",),
    "string": ("bytes",),
}


def incompatibilities(reader: AvroDocument, writer: AvroDocument) -> list[SchemaViolation]:
    """Why the reader cannot read what the writer wrote, with paths in the reader; nothing if it can."""
    return _Reading().types(reader.root, writer.root, "")


class _Reading:
    """Walks two schemas together. A pair is compared once; one that the walk is inside of counts as readable: it is told where it began."""

    def __init__(self) -> None:
        self._known: dict[tuple[int, int], list[SchemaViolation]] = {}

    def types(self, reader: Type, writer: Type, path: str) -> list[SchemaViolation]:
        """Two types."""
        pair = (id(reader), id(writer))
        if pair in self._known:
            return self._known[pair]
        self._known[pair] = []
        # What is met again is told with the path where it was met first: once is enough.
        self._known[pair] = list(dict.fromkeys(self._types(reader, writer, path)))
        return self._known[pair]

    def _types(self, reader: Type, writer: Type, path: str) -> list[SchemaViolation]:
        if writer.kind == "union":
            return self._written_union(reader, writer, path)
        if reader.kind == "union":
            readable = any(not self.types(branch, writer, path) for branch in reader.parts)
            missing = _violation(path, "MISSING_UNION_BRANCH", f"reader union lacking writer type: {_text(writer)}")
            return [] if readable else [missing]
        if reader.kind != writer.kind:
            mismatch = f"reader type: {_text(reader)} not compatible with writer type: {_text(writer)}"
            return [] if writer.kind in PROMOTIONS.get(reader.kind, ()) else [_violation(path, "TYPE_MISMATCH", mismatch)]
        if reader.kind in ("array", "map"):
            return self.types(reader.parts[0], writer.parts[0], f"{path}/{'items' if reader.kind == 'array' else 'values'}")
        return self._named(reader, writer, path) if reader.name else []

    def _written_union(self, reader: Type, writer: Type, path: str) -> list[SchemaViolation]:
        found: list[SchemaViolation] = []
        for place, branch in enumerate(writer.parts):
            found += self.types(reader, branch, f"{path}/{place}")
        return found

    def _named(self, reader: Type, writer: Type, path: str) -> list[SchemaViolation]:
        found = []
        if reader.short_name != writer.short_name and writer.name not in reader.aliases:
            found.append(_violation(f"{path}/name", "NAME_MISMATCH", f"expected: {writer.name}"))
        if reader.kind == "fixed" and reader.size != writer.size:
            found.append(_violation(f"{path}/size", "FIXED_SIZE_MISMATCH", f"expected: {writer.size}, found: {reader.size}"))
        if reader.kind == "enum":
            missing = [symbol for symbol in writer.symbols if symbol not in reader.symbols]
            if missing and reader.default not in reader.symbols:
                found.append(_violation(f"{path}/symbols", "MISSING_ENUM_SYMBOLS", f"[{', '.join(missing)}]"))
        for place, field in enumerate(reader.fields):
            found += self._field(field, writer, f"{path}/fields/{place}")
        return found

    def _field(self, field: Field, writer: Type, path: str) -> list[SchemaViolation]:
        names = (field.name, *field.aliases)
        written = next((other for name in names for other in writer.fields if other.name == name), None)
        if written is not None:
            return self.types(field.type, written.type, f"{path}/type")
        return [] if field.has_default else [_violation(path, "READER_FIELD_MISSING_DEFAULT_VALUE", field.name)]


def _text(type_: Type) -> str:
    return f"{type_.kind.upper()} {type_.name}".rstrip()


def _violation(path: str, rule: str, message: str) -> SchemaViolation:
    return SchemaViolation(path or "/", rule, message)
