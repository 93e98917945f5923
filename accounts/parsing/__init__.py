"""Parsers that check and bound text from people and programs."""
