"""What strangers may send: everything, and the server answers in the contract's words, stays up, and keeps nothing of it."""
