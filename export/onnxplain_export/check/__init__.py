"""Says what in a model can be differentiated, and what to do about the rest."""
