"""Stores in notebooks: pictures, and what a store says about itself as HTML."""
