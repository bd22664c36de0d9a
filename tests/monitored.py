"""Looks at a table as `housing monitor` takes them, and all that is said of one."""

import warnings

from IPython.display import Markdown

from housing_lib import findings, monitoring, traffic


def observe(table, registered, **options):
    """The session of a look at a table that nobody has answered yet."""
    return monitoring.observe(traffic.from_table(table, source="new.csv"), registered, **options)


def tell(session):
    """Say all that a notebook says of a session, with warnings as errors."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        text = findings.bottom_line(session, family="xgboost", stage="production", promised=0.4)
        tables = findings.first_batches, findings.worst_batches, findings.region_table
        for table in (*tables, findings.version_table):
            shown = table(session)
            assert shown.data if isinstance(shown, Markdown) else shown.to_html()
        findings.cause_table(session)
        findings.oddity_table(session)
    assert session.verdict.sentence in text
    assert ("What to do" in text) == session.verdict.alarming
    return text
