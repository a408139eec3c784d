"""The audit log: a JSON line for every request, each bound to the one before it by a hash.

chain: a line's form and place; log: the file; writer: the thread that writes it; check: what
`wanwu audit verify` checks.
"""

from wanwu.gateway.audit.chain import GENESIS, AuditError, Link, files_of
from wanwu.gateway.audit.check import Verified, verify
from wanwu.gateway.audit.log import AuditLog, unwritable
from wanwu.gateway.audit.writer import AuditWriter

__all__ = [
    "GENESIS",
    "AuditError",
    "AuditLog",
    "AuditWriter",
    "Link",
    "Verified",
    "files_of",
    "unwritable",
    "verify",
]
