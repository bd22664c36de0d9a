"""Imported before jsonschema, it spares a process more than a second.

So long the grammar of international addresses takes, and no notebook has any.
"""

import sys

sys.modules["rfc3987_syntax"] = None  # type: ignore[assignment]
