"""`fedpt chat`: a conversation on a terminal. `conversation` decides, `session` does."""
