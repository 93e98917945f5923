"""Lets client documents be on this machine, for servers under test."""
