"""An app with one primitive of each kind and need, for the flow tests."""
