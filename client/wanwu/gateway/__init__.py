"""The REST gateway: auth, audit, input checks, metrics and a page, in front of the client.

It keeps no state but its audit log, and is a client of Triton like any other. It knows nothing of
models: what it answers is what `AsyncRecognizer` answers.
"""
