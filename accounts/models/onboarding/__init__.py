"""How people come to their accounts."""
