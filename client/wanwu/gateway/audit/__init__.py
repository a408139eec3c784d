"""The audit log: a JSON line for every request, each bound to the one before it by a hash.

chain: a line's form and place; files, head, log: what is written; writer: the thread that writes
it, and sums: what it only counts; check: what `wanwu audit verify` checks.
"""

from wanwu.gateway.audit.chain import GENESIS, AuditError, Link
from wanwu.gateway.audit.check import Verified, verify
from wanwu.gateway.audit.files import files_of
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
