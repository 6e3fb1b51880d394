"""What an evaluation found, told: `headline` for a card, `summary` for a terminal, `page` for a browser."""
