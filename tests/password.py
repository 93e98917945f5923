"""The one password of the test people."""

PASSWORD = "correct-horse-7"
