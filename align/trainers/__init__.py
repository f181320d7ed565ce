"""Trainers: one for each kind of forward, never one for a formula."""
