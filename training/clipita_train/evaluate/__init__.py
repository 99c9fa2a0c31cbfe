"""Measure models as their users load them: retrieval, zero-shot classification and calibration."""
