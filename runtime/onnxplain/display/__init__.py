"""Maps shown to people: single pictures, figures, notebooks and pages, all from plain arrays."""
