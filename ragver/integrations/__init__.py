"""ragver in other people's frameworks. Each module needs the extra of its name; the base install needs none."""
