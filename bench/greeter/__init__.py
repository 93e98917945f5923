"""The tools that every peer offers, as a Portico app."""
