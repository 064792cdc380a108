"""Column lineage: definitions of jobs, derived from SQL or declarations, and their emission as OpenLineage events. Light to import."""

from chassis.lineage.definition import ColumnInput, JobDefinition, Output, Ownership, identity
from chassis.lineage.emitter import Lineage, emitting
from chassis.lineage.sql import from_sql

__all__ = ["ColumnInput", "JobDefinition", "Lineage", "Output", "Ownership", "emitting", "from_sql", "identity"]
