"""Registration and authentication of OAuth clients."""
