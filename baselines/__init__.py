"""Learners: the protocol that the harness trains through, and the ones that come with it."""
