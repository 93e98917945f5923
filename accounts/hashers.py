"""Argon2 as OWASP advises: strong, and too small to knock the server over with."""

from django.contrib.auth.hashers import Argon2PasswordHasher, PBKDF2PasswordHasher


class TunedArgon2PasswordHasher(Argon2PasswordHasher):
    """19 MiB, two passes, one lane; Django's 100 MiB and 8 lanes are a DoS lever."""

    memory_cost = 19 * 1024
    time_cost = 2
    parallelism = 1


class ClientSecretHasher(PBKDF2PasswordHasher):
    """For secrets made here: random enough that guessing needs no slowing down."""

    algorithm = "accounts_client_secret"
    iterations = 1
