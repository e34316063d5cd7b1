"""Shared by the tests; being here, it also lets them import the helpers beside it."""

import signal

# Where tests run in the background SIGINT may be ignored from the start, and every process they start would inherit it.
signal.signal(signal.SIGINT, signal.default_int_handler)
