"""The one password of all test users; importable without Django."""

PASSWORD = "correct-horse-7"
