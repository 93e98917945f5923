"""Sending notifications: their content, webhooks, mail, and the worker."""
