"""Sessions of the 2025 protocols, which any worker serves.

A session id carries, sealed, what a message needs. The rows say which ids are live.
"""
