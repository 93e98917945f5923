"""Imports of users and policy from files: parse, plan, apply."""
