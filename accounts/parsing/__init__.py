"""What people and programs send as text, checked and bounded."""
