"""Holds the index against the ledger, point by point, and puts right what differs."""
