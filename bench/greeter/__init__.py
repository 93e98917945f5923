"""The peers' tools as a Portico app."""
