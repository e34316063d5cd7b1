"""Shared by the tests; being here, it also lets them import the helpers beside it."""
