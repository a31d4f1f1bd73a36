"""SQL over ticks: conditions that select entities, and expressions that compute columns.

Conditions and expressions are a small dialect with a parser of its own: what a stranger sends never reaches Daft's planner,
which reads files that a subquery names and does not survive every text. Names are ``component__field`` columns,
``entity_id`` and ``is_active``; functions are those of `FUNCTIONS`, all row-wise and deterministic, without files, network,
user code, clock or randomness, and none whose result is much larger than its input. Whole queries are DuckDB's, in a process
of their own: see `sandbox`. docs/sql.md describes both.
"""

from tickwire_engine.sql._functions import FUNCTIONS
from tickwire_engine.sql._pushdown import Bounds
from tickwire_engine.sql._reader import MAX_DEPTH, MAX_LENGTH
from tickwire_engine.sql.catalog import MemoryCatalog, SqlCatalog, SqlTable
from tickwire_engine.sql.columns import ColumnTypes, batch_columns, catalog_columns
from tickwire_engine.sql.expression import SqlCondition, SqlExpression, parse_condition, parse_expression
from tickwire_engine.sql.processor import SqlProcessor, sql_processor
from tickwire_engine.sql.sandbox import SqlLimits, SqlRows, SqlSandbox

__all__ = [
    # Texts that are checked, and can be evaluated
    "SqlCondition",
    "SqlExpression",
    "parse_condition",
    "parse_expression",
    # Against which columns
    "ColumnTypes",
    "batch_columns",
    "catalog_columns",
    # As a processor
    "SqlProcessor",
    "sql_processor",
    # Whole queries, over tables
    "Bounds",
    "MemoryCatalog",
    "SqlCatalog",
    "SqlLimits",
    "SqlRows",
    "SqlSandbox",
    "SqlTable",
    # What they may hold
    "FUNCTIONS",
    "MAX_DEPTH",
    "MAX_LENGTH",
]
