"""What a worker keeps of earlier decisions, and how it stays true."""
