"""Helpers of the tests of the C core: switches without processes, models to compare with, shared memory."""
