"""The story of the race, told on the handbook of an invented company."""
