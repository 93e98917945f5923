"""Dates of admin and portal: short, and sortable as text."""

DATETIME_FORMAT = "Y-m-d H:i"
DATE_FORMAT = "Y-m-d"
