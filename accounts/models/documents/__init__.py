"""Client metadata documents."""
