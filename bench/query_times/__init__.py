"""An app of EXTRA_APPS: each response names the slowest query of its page."""
