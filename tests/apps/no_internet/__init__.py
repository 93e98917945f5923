"""A server in a network without internet access: only loopback names resolve."""
