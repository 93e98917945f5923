"""Primitives, and the log of changes that decisions depend on."""

from mcp_bridge.models.argument_rules import (
    ArgumentOperator,
    ArgumentRule,
    rule_problem,
    text_matches,
)
from mcp_bridge.models.change_log import ChangeCounter, LoggedChange
from mcp_bridge.models.client_sessions import ClientSession, SessionMessage
from mcp_bridge.models.primitives import (
    SCOPE_PREFIX,
    SERVED_STATES,
    WITH_ARGUMENTS,
    DefinitionState,
    Offer,
    Primitive,
    PrimitiveKind,
    PrimitiveQuerySet,
    RecordedArguments,
    own_scope,
    summary,
)
from mcp_bridge.models.upstream_servers import (
    CredentialMode,
    NewDefinitions,
    Protocol,
    UpstreamCredential,
    UpstreamServer,
    UpstreamStatus,
)

__all__ = [
    "SCOPE_PREFIX",
    "SERVED_STATES",
    "WITH_ARGUMENTS",
    "ArgumentOperator",
    "ArgumentRule",
    "CredentialMode",
    "DefinitionState",
    "LoggedChange",
    "NewDefinitions",
    "Protocol",
    "UpstreamCredential",
    "UpstreamServer",
    "UpstreamStatus",
    "ChangeCounter",
    "ClientSession",
    "SessionMessage",
    "Offer",
    "Primitive",
    "PrimitiveKind",
    "PrimitiveQuerySet",
    "RecordedArguments",
    "own_scope",
    "rule_problem",
    "summary",
    "text_matches",
]
