"""What the API of tools shows and takes. A new field fails here until decided."""

from __future__ import annotations

from typing import Any

import pytest

from mcp_bridge.admin_api.urls import router
from tests.support.admin_api import columns_of_filters, fields_of, serializers_of

FIELDS = {
    "CellSerializer": "role* allowed* state* through*",
    "RoleQuery": "role",
    "AccessSerializer": "id* kind* name* obstacle* roles*",
    "ChangeSerializer": "role* tool* allow*",
    "MatrixReviewSerializer": "changes*",
    "SaveSerializer": "changes* version*",
    "OutcomeSerializer": "tool* name* required_scopes= dropped_scopes= kept_for="
    " gaining* losing*",
    "MadeSerializer": "role* tool* allow* accepts* obstacle*",
    "SavedSerializer": "changes*",
    "ReviewedSerializer": "changes* version* outcomes* objection*",
    "RuleSerializer": "id pointer* operator* value? role?",
    "DecisionSerializer": "definition*",
    "RejectionSerializer": "definition* reason*",
    "DifferenceSerializer": "path* before* after*",
    "ReviewSerializer": "definition* state* new* differences* suspicions* objection*",
    "ToolSerializer": "id= kind= name= title= description= enabled sensitive"
    " required_scopes argument_rules recorded_arguments state= problem= upstream=?"
    " first_seen_at= last_seen_at= changed_at=? vanished_at=?",
    "CredentialSerializer": "header token_url client_id client_authentication scope"
    " audience",
    "UpstreamSerializer": "id= name* title url* prefix enabled new_definitions"
    " credential_mode protocol call_timeout max_concurrency calls_per_minute? secret<"
    " save_unreachable< status= definitions= header< token_url< client_id<"
    " client_authentication< scope< audience<",
}
"""Serializer -> fields: `=` read only, `<` only taken, `*` required, `?` null."""
VIEWS = [view for _prefix, view, _name in router.registry]


def test_each_body_has_its_fields() -> None:
    found = serializers_of("mcp_bridge.admin_api.")
    assert {name: fields_of(kind()) for name, kind in found.items()} == FIELDS


@pytest.mark.parametrize("view", VIEWS, ids=lambda view: view.__name__)
def test_a_filter_takes_every_value_of_its_column(view: Any) -> None:
    for name, (longest, column) in columns_of_filters(view).items():
        assert longest >= column, name
