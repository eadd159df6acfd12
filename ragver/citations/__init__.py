"""Reading generated text: where it cites, what it quotes, and which of its sentences lean on a citation."""
