"""Copies everything from one database to another and compares both."""
