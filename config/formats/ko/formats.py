"""Dates as admin and portal show them: short, and in the order of time."""

DATETIME_FORMAT = "Y-m-d H:i"
DATE_FORMAT = "Y-m-d"
