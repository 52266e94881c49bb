"""Tests that the documentation does what it says."""
