"""The gRPC face of the server: thin adapters around the services, and the server that carries them."""
