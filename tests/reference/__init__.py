"""Decoders written from the specifications in docs/, without torch: what another implementation would look like."""
