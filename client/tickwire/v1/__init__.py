"""Generated code of the contract `tickwire.v1`, one module per file in `protos/tickwire/v1`.

Nothing is imported here, so that a program pays only for the modules it names:

    from tickwire.v1 import command_pb2, tick_service_pb2_grpc

Regenerate with `python protos/generate.py`; do not edit.
"""
