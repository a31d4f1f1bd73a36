"""Texts of strangers: SQL that goes wrong, names that are none, and what breaks those who quote or print."""

from __future__ import annotations

from hypothesis import strategies as st

ODD_TEXTS = (
    *(
        "",
        " ",
        "\0",
        "a\0b",
        "'",
        '"',
        "\\",
        "../../etc/passwd",
        "%s%n",
        "{}",
        "${x}",
        "\u202e",
        "\ufeff",
        "é" * 300,
    ),
    *("\U0001fa90", "\r\nset-cookie: a", "NULL", "nan", "-1", "1e999", "0x10", "x" * 5_000, "=cmd|' '!A0"),
)
odd_texts = st.one_of(st.sampled_from(ODD_TEXTS), st.text(max_size=30))

_NUMBERS = (
    "0",
    "1",
    "-1",
    "1.5",
    "1e308",
    "1e999",
    "9223372036854775808",
    "1" * 400,
    ".5",
    "5.",
    "NULL",
    "0xff",
)
_COLUMNS = (
    "agent__number",
    "agent__name",
    "agent__age",
    "energy__level",
    "entity_id",
    "nobody__x",
    "agent__nobody",
)
_FUNCTIONS = (
    *(
        "abs",
        "sqrt",
        "ln",
        "length",
        "upper",
        "substr",
        "left",
        "coalesce",
        "nullif",
        "if",
        "concat",
        "mod",
        "year",
    ),
    *("regexp_matches", "strpos", "list_sum", "hypot", "least", "isnan", "total_seconds"),
    *("read_csv", "uuid", "random", "now", "repeat", "exec", "url_download"),
)
_TEXTS = (
    "'a'",
    "''",
    "'it''s'",
    "'%'",
    "'(a{1000}){1000}'",
    "'['",
    "'\\'",
    "'\U0001fa90'",
    "'2026-13-45'",
    "'a' 'b'",
)
_TYPES = ("BIGINT", "INT", "VARCHAR", "DATE", "TIMESTAMP", "DOUBLE", "TINYINT", "BLOB[]", "STRUCT(a INT)")
_OPERATORS = (
    "=",
    "<>",
    "<",
    ">=",
    "+",
    "-",
    "*",
    "/",
    "//",
    "%",
    "||",
    "AND",
    "OR",
    "LIKE",
    "IS DISTINCT FROM",
)
_FRAGMENTS = (
    *(
        ";",
        "--",
        "/*",
        "*/",
        "(",
        ")",
        ",",
        "SELECT",
        "FROM",
        "UNION ALL",
        "DROP TABLE worlds",
        "::",
        "[",
        "NOT",
        "IN",
    ),
    *(
        "BETWEEN",
        "CASE WHEN",
        "THEN",
        "ELSE",
        "END",
        "EXISTS",
        "@@version",
        "`",
        "$1",
        "?",
        "ATTACH 'x'",
        "PRAGMA x",
    ),
)

_operands = st.sampled_from(_NUMBERS + _COLUMNS + _TEXTS + ("TRUE",))


def _deeper(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    return st.one_of(
        st.tuples(inner, st.sampled_from(_OPERATORS), inner).map(" ".join),
        inner.map(lambda text: f"({text})"),
        inner.map(lambda text: f"NOT {text}"),
        inner.map(lambda text: f"- {text}"),
        st.tuples(inner, st.sampled_from(_TYPES)).map(lambda pair: f"CAST({pair[0]} AS {pair[1]})"),
        st.tuples(st.sampled_from(_FUNCTIONS), st.lists(inner, max_size=3)).map(
            lambda pair: f"{pair[0]}({', '.join(pair[1])})"
        ),
        st.tuples(inner, inner, inner).map(lambda three: "CASE WHEN {} THEN {} ELSE {} END".format(*three)),
        st.tuples(inner, inner, inner).map(lambda three: "{} BETWEEN {} AND {}".format(*three)),
        st.tuples(inner, st.lists(inner, max_size=4)).map(
            lambda pair: f"{pair[0]} IN ({', '.join(pair[1])})"
        ),
    )


_expressions = st.recursive(_operands, _deeper, max_leaves=8)
sql = st.one_of(
    _expressions,
    st.tuples(_expressions, _expressions).map(lambda pair: f"{pair[0]} >= {pair[1]}"),
    st.lists(st.one_of(_operands, st.sampled_from(_OPERATORS + _FRAGMENTS)), max_size=12).map(" ".join),
    st.sampled_from(("(" * 5_000, "NOT " * 2_000 + "TRUE", "1" + "+1" * 3_000, "a" * 70_000, "''" * 4_000)),
    odd_texts,
)
"""Conditions and expressions: some good, most not."""
