"""Index generations beside the serving one: giving them their vectors, checking them, cutting over, dropping them."""

from ragver.generations.building import Builder
from ragver.generations.dropping import Dropping
from ragver.generations.service import Generations

__all__ = ["Builder", "Dropping", "Generations"]
